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
// brought together by shuffles (window_threes.h). What has an index is in max_pool_indexed.h.
//
// NaN wins by one more comparison per tap: take = value > best or value != value, then a select,
// three instructions with AVX-512 and five with a code.
// With AVX2 a select is three by itself, so Max (maxima.h) sets all bits instead.
//
// Bytes: x read and y and index written once, 5.2 per element of x for 3x3 windows with stride 2,
// float32 and uint8.
//
// Measured at 16x96x55x55, float32, windows 3x3 stride 2, one thread of a Zen 4 with AVX-512, data
// in cache: 0.21 ns per input element without index, 0.44 ns with (PyTorch, always with: 7.4 ns).
// Before: the same loops unrolled before they were vectorised, 18 ns; line by line, each step
// reading what the last had just stored, 0.34 and 0.78 ns. Tried without gain: a variant without
// the NaN comparison for lines that hold none (g++ turns its select into a branch).
#include "../pool.h"
#include "max_pool_indexed.h"
#include "maxima.h"
#include "parallel.h"
#include "pool_window.h"
#include "window_threes.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

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
      store_index<lanes>(chosen, first, origin, 0, index);
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
