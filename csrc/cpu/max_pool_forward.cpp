// Max pooling, forward (definition in ../pool.h):
//
//   y[o]     = max over the taps of window o inside the input
//   index[o] = where that is
//
// A task is a run of output lines, (n, c, d, h) or, channels last, (n, d, h).
//
// N, C, D, H, W, without index: batches of up to 8 lines. The lines that a line of windows reaches
// are reduced column by column, the maxima dealt out by column modulo the stride (pool_window.h),
// and the taps of W reduced from there as contiguous rows: 3 + 3 comparisons for 9 taps. With index
// the order in which taps are looked at matters (the first of equals, the last NaN), so each line
// of the input is dealt out itself and every window looks at its taps in scan order, 16 windows at
// a time; the code of the best tap so far rides in lanes as wide as the values. Channels last: 16
// channels of a window at a time, taps in scan order; the windows of a line that lie wholly inside
// share one list of taps.
//
// Windows of float32 three wide with stride 2 and no padding do both in registers, their taps
// brought together by shuffles (window_threes.h).
//
// NaN wins by one more comparison per tap: take = value > best or value != value, then a select,
// three instructions with AVX-512 and five with a code.
// With AVX2 a select is three by itself, so Max sets all bits instead.
//
// Bytes: x read and y and index written once, 5.2 per element of x for 3x3 windows with stride 2,
// float32 and uint8.
//
// Measured at 16x96x55x55, float32, windows 3x3 stride 2, one thread of a Zen 4 with AVX-512, data
// in cache: 0.21 ns per input element without index, 0.44 ns with (PyTorch, always with: 7.4 ns).
// Before: the same loops unrolled before they were vectorised, 18 ns; line by line, each step
// reading what the last had just stored, 0.34 and 0.78 ns. Tried without gain: a variant without
// the NaN comparison for lines that hold none (g++ turns its select into a branch).
#include <bit>
#include <limits>

#include "../pool.h"
#include "maxima.h"
#include "parallel.h"
#include "pool_window.h"
#include "window_threes.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

struct Max {
  template <class A>
  A first(A value) const {
    return value;
  }
  template <class A>
  A operator()(A best, A value) const {
    // As beats(), of vectors, which have no bool.
    const A larger = value > best ? value : best;
#if defined(__AVX2__) && !defined(__AVX512F__)
    // A select costs three instructions here; setting all bits, which is a NaN too, costs one.
    if constexpr (!std::is_floating_point_v<A>) {
      const auto unordered = value != value;
      using Bits = std::remove_const_t<decltype(unordered)>;
      return std::bit_cast<A>(std::bit_cast<Bits>(larger) | unordered);
    }
#endif
    return value != value ? value : larger;
  }
};

// How the position of a tap is written down: its number in the window (uint8) or its distance from
// the window's first tap in the input's plane (int64).
template <class Index>
struct Coding {
  int64_t tap[3];

  Coding(const Axis& depth, const Axis& height, const Axis& width) {
    if (std::is_same_v<Index, int64_t>) {
      tap[0] = depth.dilation * height.inputs * width.inputs,
      tap[1] = height.dilation * width.inputs, tap[2] = width.dilation;
    } else {
      tap[0] = height.kernel * width.kernel, tap[1] = width.kernel, tap[2] = 1;
    }
  }

  int64_t of(int64_t tap_d, int64_t tap_h, int64_t tap_w) const {
    return tap_d * tap[0] + tap_h * tap[1] + tap_w * tap[2];
  }
};

// N, C, D, H, W

struct AsItIs {
  Unchanged of_line(int64_t, int64_t) const { return {}; }
};

template <class T>
void max_lines(const MaxPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.x, args.y, 0), height(args.window, args.x, args.y, 1),
      width(args.window, args.x, args.y, 2);
  if constexpr (std::is_same_v<T, float>) {
    if (whole_threes(width)) {
      return fold_lines_of_threes<T>(args.x, args.y, depth, height, width, Max{}, Max{}, kLowest<A>,
                                     AsItIs{}, threads);
    }
  }
  const Columns columns(width);
  const bool threes = by_threes(width), parted = columns.stride > 1 && !threes;
  const std::vector<int64_t> tap_offsets = columns.tap_offsets(width);
  const Lines lines(args.y);
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);

  const Axis::Taps full = height.full();
  const int64_t most = batch_of_lines(width), line_size = columns.line_size();
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<A> memory(team, 2 * most * line_size);
  const Scratch<const T*> row_memory(team, depth.kernel * height.kernel);
  const Scratch<const A*> tap_memory(team, width.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A* maxima = memory.of(member);  // of the columns, one line each
    A* parts = parted ? maxima + most * line_size : maxima;
    const T** rows = row_memory.of(member);
    const A** taps = tap_memory.of(member);
    std::fill_n(maxima, 2 * most * line_size, kLowest<A>);
    Lines at = lines.from(first);
    while (at.number < last) {
      const int64_t begin = at.number, batch = std::min(most, last - begin);
      for (int64_t i = 0, alike; i < batch; i += alike, at.advance(alike)) {
        alike = lines_alike(full, at, batch - i);
        int64_t count = 0;
        for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t, int64_t) {
          rows[count++] = x + from * width.inputs;
        });
        A* to = maxima + i * line_size + columns.padding;
        if (count == 0) {
          std::fill_n(to, width.inputs, kLowest<A>);
        } else {
          fold_rows<Max>(rows, count, to, width.inputs, Unchanged{},
                         {alike, height.stride * width.inputs, line_size});
        }
      }
      if (threes) {
        for (int64_t i = 0; i < batch; ++i) {
          const A* from = maxima + i * line_size;
          T* to = y + (begin + i) * width.outputs;
          for_blocks<A>(width.outputs, [=]<int lanes>(int64_t o, Lanes<lanes>) PYDL_INLINE_BODY {
            store_vec<lanes>(fold_threes<lanes>(from + 2 * o, Max{}), to + o);
          });
        }
        continue;
      }
      if (parted) {
        for (int64_t i = 0; i < batch; ++i)
          columns.split(maxima + i * line_size, parts + i * line_size);
      }
      for (int64_t tap = 0; tap < width.kernel; ++tap) taps[tap] = parts + tap_offsets[tap];
      fold_rows<Max>(taps, width.kernel, y + begin * width.outputs, width.outputs, Unchanged{},
                     {batch, line_size, width.outputs});
    }
  });
}

// One window per plane: nothing to share and one lane to fill, so a plain scan.
template <class T, class Index>
void max_planes_indexed(const MaxPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t planes = args.x.size[0] * args.x.size[1],
                size = args.x.size[2] * args.x.size[3] * args.x.size[4];
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  Index* index = static_cast<Index*>(args.index.data);
  share_out(planes, team_size(planes, args.x.numel(), threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t plane = first; plane < last; ++plane) {
                const T* from = x + plane * size;
                A best = static_cast<A>(from[0]);
                int64_t chosen = 0;
                for (int64_t i = 1; i < size; ++i) {
                  const A value = static_cast<A>(from[i]);
                  if (beats(value, best)) best = value, chosen = i;
                }
                y[plane] = static_cast<T>(best);
                index[plane] = static_cast<Index>(chosen);
              }
            });
}

// At each place, for windows [0, size) of a line: the maximum and the code of its tap. A window
// starts from the code of its first tap inside the input, first_codes[i] + base.
template <int fixed, class A>
void choose(const A* const* taps, const Code<A>* codes, int64_t count, const Code<A>* first_codes,
            Code<A> base, A* values, Code<A>* chosen, int64_t size, Places places) {
  for (int64_t place = 0; place < places.count;
       ++place, values += places.to_step, chosen += places.to_step) {
    for_whole_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      const int64_t offset = place * places.from_step + first;
      A best[lanes];
      Code<A> code[lanes];
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) {
        best[lane] = kLowest<A>;
        code[lane] = first_codes[first + lane] + base;
      }
      for_steps<fixed>(0, count, [&](int64_t tap) PYDL_INLINE_BODY {
        const A* from = taps[tap] + offset;
        const Code<A> name = codes[tap];
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          const bool take = beats(from[lane], best[lane]);
          best[lane] = take ? from[lane] : best[lane];
          code[lane] = take ? name : code[lane];
        }
      });
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) {
        values[first + lane] = best[lane];
        chosen[first + lane] = code[lane];
      }
    });
  }
}

// Windows three wide that begin at every other column: their taps come out of the input's rows by
// shuffles.

// Looks at the next tap in scan order. Codes ascend in that order, so the last one taken is the
// largest: with AVX2 cheaper than a select.
template <class V, class I, class C>
PYDL_INLINE void look_at(const V& value, C code, V& best, I& chosen) {
  const auto taken = (value > best) | (value != value);
  best = Max{}(best, value);
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(C) == 4) {
    const I named = taken ? I{} + code : I{};
    chosen = named > chosen ? named : chosen;
    return;
  }
#endif
  chosen = taken ? I{} + code : chosen;
}

template <class Index>
void max_threes_indexed(const MaxPoolForward& args, const Axis& depth, const Axis& height,
                        const Axis& width, int64_t threads) {
  using C = Code<float>;
  const Coding<Index> coding(depth, height, width);
  const Lines lines(args.y);
  const float* x = static_cast<const float*>(args.x.data);
  float* y = static_cast<float*>(args.y.data);
  Index* index = static_cast<Index*>(args.index.data);
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<const float*> row_memory(team, depth.kernel * height.kernel);
  const Scratch<C> code_memory(team, 3 * depth.kernel * height.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const float** rows = row_memory.of(member);
    C* codes = code_memory.of(member);  // three to a row
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      int64_t count = 0;
      for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t tap_d, int64_t tap_h) {
        for (int64_t tap = 0; tap < 3; ++tap)
          codes[3 * count + tap] = static_cast<C>(coding.of(tap_d, tap_h, tap));
        rows[count++] = x + from * width.inputs;
      });
      const auto begin =
          static_cast<C>(coding.of(depth.taps(at.d).first, height.taps(at.h).first, 0));
      const int64_t origin =
          std::is_same_v<Index, int64_t>
              ? (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs
              : 0;
      const int64_t stride = std::is_same_v<Index, int64_t> ? 2 : 0;
      float* values = y + at.number * width.outputs;
      Index* places = index + at.number * width.outputs;
      with_count<float, 2, 3>(count, [&]<int fixed>(Lanes<fixed>) {
        const auto choose_block = [=]<int lanes>(int64_t o, Lanes<lanes>) PYDL_INLINE_BODY {
          Vec<float, lanes> best = Vec<float, lanes>{} + kLowest<float>;
          Vec<C, lanes> chosen = Vec<C, lanes>{} + begin;
          for_steps<fixed>(0, count, [&](int64_t row) PYDL_INLINE_BODY {
            const float* from = rows[row] + 2 * o;
            const auto [a, b, c] =
                threes_of<lanes, float>(load_vec<lanes>(from), load_vec<lanes>(from + lanes),
                                        load_vec<lanes>(from + lanes + 1));
            look_at(a, codes[3 * row], best, chosen);
            look_at(b, codes[3 * row + 1], best, chosen);
            look_at(c, codes[3 * row + 2], best, chosen);
          });
          store_vec<lanes>(best, values + o);
          C code[lanes];
          std::memcpy(code, &chosen, sizeof(chosen));
          if constexpr (std::is_same_v<Index, int64_t>) {
            PYDL_LANES
            for (int lane = 0; lane < lanes; ++lane)
              places[o + lane] = origin + (o + lane) * stride + code[lane];
          } else {
            narrow<lanes>(code, places + o);
          }
        };
        for_blocks<float>(width.outputs, choose_block);
      });
    }
  });
}

template <class T, class Index>
void max_lines_indexed(const MaxPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.x, args.y, 0), height(args.window, args.x, args.y, 1),
      width(args.window, args.x, args.y, 2);
  if (depth.global() && height.global() && width.global())
    return max_planes_indexed<T, Index>(args, threads);
  if constexpr (std::is_same_v<T, float>) {
    if (whole_threes(width)) return max_threes_indexed<Index>(args, depth, height, width, threads);
  }
  const Columns columns(width);
  const std::vector<int64_t> tap_offsets = columns.tap_offsets(width);
  const Coding<Index> coding(depth, height, width);
  const Lines lines(args.y);
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  Index* index = static_cast<Index*>(args.index.data);

  // The lines that a batch of windows reaches are split first; a batch lies in one d.
  const Axis::Taps full = height.full();
  const int64_t most = batch_of_lines(width), line_size = columns.line_size();
  const int64_t reach = (most - 1) * height.stride + (height.kernel - 1) * height.dilation + 1;
  const int64_t window = depth.kernel * height.kernel * width.kernel,
                outputs = whole_blocks(width.outputs);
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<A> memory(team, (1 + depth.kernel * reach) * line_size + most * outputs);
  const Scratch<Code<A>> code_memory(team, window + (most + 1) * outputs);
  const Scratch<const A*> tap_memory(team, window);

  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A *line = memory.of(member), *split = line + line_size,
      *values = split + depth.kernel * reach * line_size;
    const A** taps = tap_memory.of(member);
    Code<A>*codes = code_memory.of(member), *first_codes = codes + window,
    *chosen = first_codes + outputs;
    std::fill_n(line, (1 + depth.kernel * reach) * line_size, kLowest<A>);
    for (int64_t o = 0; o < outputs; ++o) {
      first_codes[o] =
          static_cast<Code<A>>(coding.of(0, 0, width.taps(std::min(o, width.outputs - 1)).first));
    }
    Lines at = lines.from(first);
    while (at.number < last) {
      const Lines begin = at;
      const int64_t batch = std::min({most, last - at.number, height.outputs - at.h});
      const int64_t top = std::max<int64_t>(height.start(at.h), 0);
      const int64_t bottom =
          std::min(height.start(at.h + batch - 1) + (height.kernel - 1) * height.dilation + 1,
                   height.inputs);
      const auto [first_d, last_d] = depth.taps(at.d);
      for (int64_t tap_d = first_d; tap_d < last_d; ++tap_d) {
        const int64_t d = depth.start(at.d) + tap_d * depth.dilation;
        const T* from = x + ((at.plane * depth.inputs + d) * height.inputs + top) * width.inputs;
        for (int64_t h = 0; h < bottom - top; ++h) {
          columns.load_split(from + h * width.inputs, line,
                             split + (tap_d * reach + h) * line_size);
        }
      }
      for (int64_t i = 0, alike; i < batch; i += alike, at.advance(alike)) {
        alike = lines_alike(full, at, batch - i);
        const auto [first_h, last_h] = height.taps(at.h);
        int64_t count = 0;
        for (int64_t tap_d = first_d; tap_d < last_d; ++tap_d) {
          for (int64_t tap_h = first_h; tap_h < last_h; ++tap_h) {
            const int64_t h = height.start(at.h) + tap_h * height.dilation - top;
            for (int64_t tap_w = 0; tap_w < width.kernel; ++tap_w, ++count) {
              taps[count] = split + (tap_d * reach + h) * line_size + tap_offsets[tap_w];
              codes[count] = static_cast<Code<A>>(coding.of(tap_d, tap_h, tap_w));
            }
          }
        }
        const auto base = static_cast<Code<A>>(coding.of(first_d, first_h, 0));
        with_count<A, 2, 3, 4, 6, 9>(count, [&]<int fixed>(Lanes<fixed>) {
          choose<fixed>(taps, codes, count, first_codes, base, values + i * outputs,
                        chosen + i * outputs, width.outputs,
                        {alike, height.stride * line_size, outputs});
        });
      }
      at = begin;
      for (int64_t i = 0; i < batch; ++i, at.next()) {
        store_row(values + i * outputs, y + at.number * width.outputs, width.outputs);
        const Code<A>* code = chosen + i * outputs;
        Index* to = index + at.number * width.outputs;
        const int64_t origin =
            (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs - width.padding;
        for_blocks<A>(width.outputs, [=, &width]<int lanes>(int64_t from, Lanes<lanes>) {
          if constexpr (std::is_same_v<Index, int64_t>) {
            PYDL_LANES
            for (int lane = 0; lane < lanes; ++lane)
              to[from + lane] = origin + (from + lane) * width.stride + code[from + lane];
          } else {
            narrow<lanes>(code + from, to + from);
          }
        });
      }
    }
  });
}

// Channels last

// The same for the channels of the windows at `places`, whose indices lie `stride` apart.
template <int fixed, class T, class Index>
void choose_channels(const T* const* taps, const Code<accumulate_t<T>>* codes, int64_t count,
                     int64_t origin, T* y, Index* index, int64_t channels, Places places,
                     int64_t stride) {
  using A = accumulate_t<T>;
  for (int64_t place = 0; place < places.count;
       ++place, y += places.to_step, index += places.to_step, origin += stride) {
    for_blocks<A>(channels, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      const int64_t offset = place * places.from_step + first;
      A best[lanes], value[lanes];
      Code<A> chosen[lanes];
      load<lanes>(taps[0] + offset, best);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) chosen[lane] = codes[0];
      for_steps<fixed>(1, count, [&](int64_t tap) PYDL_INLINE_BODY {
        load<lanes>(taps[tap] + offset, value);
        const Code<A> name = codes[tap];
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          const bool take = beats(value[lane], best[lane]);
          best[lane] = take ? value[lane] : best[lane];
          chosen[lane] = take ? name : chosen[lane];
        }
      });
      store<lanes>(best, y + first);
      if constexpr (std::is_same_v<Index, int64_t>) {
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) index[first + lane] = origin + chosen[lane];
      } else {
        narrow<lanes>(chosen, index + first);
      }
    });
  }
}

template <class T, class Index>
void max_pixels(const MaxPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr bool indexed = !std::is_same_v<Index, NoIndex>;
  const Axis depth(args.window, args.x, args.y, 0), height(args.window, args.x, args.y, 1),
      width(args.window, args.x, args.y, 2);
  const Coding<Index> coding(depth, height, width);
  const Lines lines(args.y, /*channels_last=*/true);
  const Axis::Taps full = width.full();
  const int64_t channels = args.x.size[1];
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  [[maybe_unused]] Index* index = static_cast<Index*>(args.index.data);

  const int64_t window = depth.kernel * height.kernel * width.kernel;
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<const T*> memory(team, window + depth.kernel * height.kernel);
  const Scratch<Code<A>> code_memory(team, window + depth.kernel * height.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const T **taps = memory.of(member), **rows = taps + window;
    Code<A>*codes = code_memory.of(member), *row_codes = codes + window;
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      int64_t count_rows = 0;
      for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t tap_d, int64_t tap_h) {
        rows[count_rows] = x + from * width.inputs * channels;
        row_codes[count_rows++] = static_cast<Code<A>>(coding.of(tap_d, tap_h, 0));
      });
      for (int64_t o = 0, places; o < width.outputs; o += places) {
        places = o >= full.first && o < full.last ? full.last - o : 1;
        const auto [first_w, last_w] = width.taps(o);
        int64_t count = 0;
        for (int64_t row = 0; row < count_rows; ++row) {
          for (int64_t tap = first_w; tap < last_w; ++tap, ++count) {
            taps[count] = rows[row] + (width.start(o) + tap * width.dilation) * channels;
            codes[count] = row_codes[row] + static_cast<Code<A>>(coding.of(0, 0, tap));
          }
        }
        const int64_t to = (at.number * width.outputs + o) * channels,
                      step = width.stride * channels;
        int64_t origin = 0;
        if (std::is_same_v<Index, int64_t>) {
          origin = (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs +
                   width.start(o);
        }
        if (count == 0) {
          const int64_t code =
              origin + coding.of(depth.taps(at.d).first, height.taps(at.h).first, first_w);
          for (int64_t i = to; i < to + places * channels; ++i) {
            y[i] = static_cast<T>(kLowest<A>);
            if constexpr (indexed) index[i] = static_cast<Index>(code);
          }
        } else if constexpr (indexed) {
          with_count<A, 4, 9>(count, [&]<int fixed>(Lanes<fixed>) {
            choose_channels<fixed>(taps, codes, count, origin, y + to, index + to, channels,
                                   {places, step, channels}, width.stride);
          });
        } else {
          fold_rows<Max>(taps, count, y + to, channels, Unchanged{}, {places, step, channels});
        }
      }
    }
  });
}

}  // namespace

void max_pool_forward(const MaxPoolForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "max_pool", [&]<class T>(T) {
    if (args.index.data == nullptr) {
      channels_last ? max_pixels<T, NoIndex>(args, threads) : max_lines<T>(args, threads);
    } else if (args.index.dtype == DType::uint8) {
      channels_last ? max_pixels<T, uint8_t>(args, threads)
                    : max_lines_indexed<T, uint8_t>(args, threads);
    } else {
      channels_last ? max_pixels<T, int64_t>(args, threads)
                    : max_lines_indexed<T, int64_t>(args, threads);
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
