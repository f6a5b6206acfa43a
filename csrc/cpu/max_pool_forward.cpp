// Max pooling, forward (see ../pool.h for the definition).
#include <limits>

#include "kernels.h"
#include "parallel.h"
#include "pool_window.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

struct NoIndex {};

template <class A>
constexpr A kLowest = -std::numeric_limits<A>::infinity();

// In scan order: the first of equals stays, a NaN is taken and kept until the next.
template <class A>
inline bool beats(A value, A best) {
  return (value > best) | (value != value);
}

struct Max {
  template <class A>
  A operator()(A best, A value) const {
    return beats(value, best) ? value : best;
  }
};

// How the position of a tap is written down: its number in the window (uint8) or its distance from the window's first tap
// in the input's plane (int64).
template <class Index>
struct Coding {
  int64_t tap[3];

  Coding(const Axis& depth, const Axis& height, const Axis& width) {
    if (std::is_same_v<Index, int64_t>) {
      tap[0] = depth.dilation * height.inputs * width.inputs, tap[1] = height.dilation * width.inputs, tap[2] = width.dilation;
    } else {
      tap[0] = height.kernel * width.kernel, tap[1] = width.kernel, tap[2] = 1;
    }
  }

  int64_t of(int64_t tap_d, int64_t tap_h, int64_t tap_w) const { return tap_d * tap[0] + tap_h * tap[1] + tap_w * tap[2]; }
};

// ---- N, C, D, H, W ----------------------------------------------------------------------------------------------------

template <class T>
void max_lines(const MaxPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.x, args.y, 0), height(args.window, args.x, args.y, 1), width(args.window, args.x, args.y, 2);
  const Columns columns(width);
  const std::vector<int64_t> tap_offsets = columns.tap_offsets(width);
  const Lines lines(args.y);
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);

  const int64_t most = batch_of_lines(width), line_size = columns.line_size();
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<A> memory(team, 2 * most * line_size);
  const Scratch<const T*> row_memory(team, depth.kernel * height.kernel);
  const Scratch<const A*> tap_memory(team, width.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A* maxima = memory.of(member);  // of the columns, a line each
    A* parts = columns.stride == 1 ? maxima : maxima + most * line_size;
    const T** rows = row_memory.of(member);
    const A** taps = tap_memory.of(member);
    std::fill_n(maxima, 2 * most * line_size, kLowest<A>);
    Lines at = lines.from(first);
    while (at.number < last) {
      const int64_t begin = at.number, batch = std::min(most, last - begin);
      for (int64_t i = 0; i < batch; ++i, at.next()) {
        int64_t count = 0;
        for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t, int64_t) { rows[count++] = x + from * width.inputs; });
        A* to = maxima + i * line_size + columns.padding;
        if (count == 0) {
          std::fill_n(to, width.inputs, kLowest<A>);
        } else {
          fold_rows<Max>(rows, count, to, width.inputs, Unchanged{});
        }
      }
      if (columns.stride > 1) {
        for (int64_t i = 0; i < batch; ++i) columns.split(maxima + i * line_size, parts + i * line_size);
      }
      for (int64_t tap = 0; tap < width.kernel; ++tap) taps[tap] = parts + tap_offsets[tap];
      fold_rows<Max>(taps, width.kernel, y + begin * width.outputs, width.outputs, Unchanged{}, batch, line_size);
    }
  });
}

template <class T>
bool holds_nan(const T* row, int64_t size) {
  using A = accumulate_t<T>;
  Code<A> found[kLanes] = {};
  for_blocks(size, [&]<int lanes>(int64_t first, Lanes<lanes>) {
    A value[lanes];
    load<lanes>(row + first, value);
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) found[lane] = value[lane] != value[lane] ? Code<A>{1} : found[lane];
  });
  Code<A> any = 0;
  for (const Code<A> one : found) any |= one;
  return any != 0;
}

// Without `nans` the taps are known to hold none, which saves two of the five instructions a tap.
template <int fixed, bool nans, class A>
void choose(const A* const* taps, const Code<A>* codes, int64_t count, const Code<A>* first_code, Code<A> base, A* value,
            Code<A>* code, int64_t size) {
  for_whole_blocks(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    A best[lanes];
    Code<A> chosen[lanes];
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) {
      best[lane] = kLowest<A>;
      chosen[lane] = first_code[first + lane] + base;
    }
    for (int64_t tap = 0; tap < (fixed ? fixed : count); ++tap) {
      const A* from = taps[tap] + first;
      const Code<A> name = codes[tap];
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) {
        const bool take = nans ? beats(from[lane], best[lane]) : from[lane] > best[lane];
        best[lane] = take ? from[lane] : best[lane];
        chosen[lane] = take ? name : chosen[lane];
      }
    }
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) {
      value[first + lane] = best[lane];
      code[first + lane] = chosen[lane];
    }
  });
}

template <class T, class Index>
void max_lines_indexed(const MaxPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.x, args.y, 0), height(args.window, args.x, args.y, 1), width(args.window, args.x, args.y, 2);
  const Columns columns(width);
  const std::vector<int64_t> tap_offsets = columns.tap_offsets(width);
  const Coding<Index> coding(depth, height, width);
  const Lines lines(args.y);
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  Index* index = static_cast<Index*>(args.index.data);

  // Split lines stay until their slot is needed: neighbouring windows share them. A batch lies in one d, so that all its
  // lines have slots.
  const int64_t most = batch_of_lines(width), line_size = columns.line_size();
  const int64_t slots_d = (depth.kernel - 1) * depth.dilation + 1;
  const int64_t slots_h = (most - 1) * height.stride + (height.kernel - 1) * height.dilation + 1, slots = slots_d * slots_h;
  std::vector<int64_t> slot_of_line;
  for (int64_t d = 0; d < depth.inputs; ++d) {
    for (int64_t h = 0; h < height.inputs; ++h) slot_of_line.push_back(d % slots_d * slots_h + h % slots_h);
  }
  const int64_t window = depth.kernel * height.kernel * width.kernel, outputs = whole_blocks(width.outputs);
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<A> memory(team, (1 + slots) * line_size + most * outputs);
  const Scratch<int64_t> tag_memory(team, 2 * slots);
  const Scratch<Code<A>> code_memory(team, window + (most + 1) * outputs);
  const Scratch<const A*> tap_memory(team, window);

  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A *line = memory.of(member), *cache = line + line_size, *values = cache + slots * line_size;
    int64_t *tags = tag_memory.of(member), *nans = tags + slots;
    const int64_t *offsets = tap_offsets.data(), *slot_of = slot_of_line.data();
    const int64_t taps_w = width.kernel, code_w = coding.tap[2];
    const A** taps = tap_memory.of(member);
    Code<A> *codes = code_memory.of(member), *first_code = codes + window, *chosen = first_code + outputs;
    std::fill_n(line, (1 + slots) * line_size, kLowest<A>);
    std::fill_n(tags, slots, int64_t{-1});
    for (int64_t o = 0; o < outputs; ++o) {
      first_code[o] = static_cast<Code<A>>(coding.of(0, 0, width.taps(std::min(o, width.outputs - 1)).first));
    }
    Lines at = lines.from(first);
    while (at.number < last) {
      const int64_t begin = at.number, batch = std::min({most, last - begin, height.outputs - at.h});
      const Lines batch_begin = at;
      const int64_t x_line = at.plane * depth.inputs * height.inputs;
      for (int64_t i = 0; i < batch; ++i, at.next()) {
        for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t, int64_t) {
          const int64_t slot = slot_of[from - x_line];
          if (tags[slot] == from) return;
          tags[slot] = from;
          nans[slot] = holds_nan(x + from * width.inputs, width.inputs);
          columns.load_split(x + from * width.inputs, line, cache + slot * line_size);
        });
      }
      at = batch_begin;
      for (int64_t i = 0; i < batch; ++i, at.next()) {
        int64_t count = 0;
        bool with_nans = false;
        for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t tap_d, int64_t tap_h) {
          const int64_t slot = slot_of[from - x_line];
          const A* parts = cache + slot * line_size;
          with_nans |= nans[slot] != 0;
          auto code = static_cast<Code<A>>(coding.of(tap_d, tap_h, 0));
          for (int64_t tap_w = 0; tap_w < taps_w; ++tap_w, ++count, code += static_cast<Code<A>>(code_w)) {
            taps[count] = parts + offsets[tap_w];
            codes[count] = code;
          }
        });
        const auto base = static_cast<Code<A>>(coding.of(depth.taps(at.d).first, height.taps(at.h).first, 0));
        A* value = values + i * outputs;
        Code<A>* code = chosen + i * outputs;
        if (with_nans) {
          choose<0, true>(taps, codes, count, first_code, base, value, code, width.outputs);
        } else {
          with_count<2, 3, 4, 6, 9>(count, [&]<int fixed>(Lanes<fixed>) {
            choose<fixed, false>(taps, codes, count, first_code, base, value, code, width.outputs);
          });
        }
      }
      at = batch_begin;
      for (int64_t i = 0; i < batch; ++i, at.next()) {
        store_row(values + i * outputs, y + at.number * width.outputs, width.outputs);
        const Code<A>* code = chosen + i * outputs;
        Index* to = index + at.number * width.outputs;
        const int64_t origin = (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs - width.padding;
        for_blocks(width.outputs, [=, &width]<int lanes>(int64_t from, Lanes<lanes>) {
          if constexpr (std::is_same_v<Index, int64_t>) {
            PYDL_LANES
            for (int lane = 0; lane < lanes; ++lane) to[from + lane] = origin + (from + lane) * width.stride + code[from + lane];
          } else {
            narrow<lanes>(code + from, to + from);
          }
        });
      }
    }
  });
}

// ---- Channels last ----------------------------------------------------------------------------------------------------

// At `places` neighbouring windows, whose taps lie `step` apart and whose indices `stride`.
template <int fixed, class T, class Index>
void choose_channels(const T* const* taps, const Code<accumulate_t<T>>* codes, int64_t count, int64_t origin, T* y, Index* index,
                     int64_t channels, int64_t places, int64_t step, int64_t stride) {
  using A = accumulate_t<T>;
  for (int64_t place = 0; place < places; ++place, y += channels, index += channels, origin += stride) {
    for_blocks(channels, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      const int64_t offset = place * step + first;
      A best[lanes], value[lanes];
      Code<A> chosen[lanes];
      load<lanes>(taps[0] + offset, best);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) chosen[lane] = codes[0];
      for (int64_t tap = 1; tap < (fixed ? fixed : count); ++tap) {
        load<lanes>(taps[tap] + offset, value);
        const Code<A> name = codes[tap];
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          const bool take = beats(value[lane], best[lane]);
          best[lane] = take ? value[lane] : best[lane];
          chosen[lane] = take ? name : chosen[lane];
        }
      }
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
  const Axis depth(args.window, args.x, args.y, 0), height(args.window, args.x, args.y, 1), width(args.window, args.x, args.y, 2);
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
    Code<A> *codes = code_memory.of(member), *row_codes = codes + window;
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
        const int64_t to = (at.number * width.outputs + o) * channels, step = width.stride * channels;
        int64_t origin = 0;
        if (std::is_same_v<Index, int64_t>) {
          origin = (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs + width.start(o);
        }
        if (count == 0) {
          const int64_t code = origin + coding.of(depth.taps(at.d).first, height.taps(at.h).first, first_w);
          for (int64_t i = to; i < to + places * channels; ++i) {
            y[i] = static_cast<T>(kLowest<A>);
            if constexpr (indexed) index[i] = static_cast<Index>(code);
          }
        } else if constexpr (indexed) {
          with_count<4, 9>(count, [&]<int fixed>(Lanes<fixed>) {
            choose_channels<fixed>(taps, codes, count, origin, y + to, index + to, channels, places, step, width.stride);
          });
        } else {
          fold_rows<Max>(taps, count, y + to, channels, Unchanged{}, places, step);
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
      channels_last ? max_pixels<T, uint8_t>(args, threads) : max_lines_indexed<T, uint8_t>(args, threads);
    } else {
      channels_last ? max_pixels<T, int64_t>(args, threads) : max_lines_indexed<T, int64_t>(args, threads);
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
