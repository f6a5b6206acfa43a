// Maxima with the index of the tap that they are at, in N, C, D, H, W (max_pool_forward.cpp), and
// how an index is written down in either layout.
#pragma once

#include <cstring>

#include "../pool.h"
#include "maxima.h"
#include "parallel.h"
#include "pool_window.h"
#include "window_threes.h"

namespace pydl::cpu::PYDL_ISA {

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

// Writes down where the taps with these codes are, for windows [first, first + lanes) of which the
// first tap of window 0 is at `origin` and that of each other one `stride` further.
template <int lanes, class C, class Index>
PYDL_INLINE void store_index(const C* codes, int64_t first, int64_t origin, int64_t stride,
                             Index* index) {
  if constexpr (std::is_same_v<Index, int64_t>) {
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane)
      index[first + lane] = origin + (first + lane) * stride + codes[lane];
  } else {
    narrow<lanes>(codes, index + first);
  }
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

// Windows two or three wide that begin at every other column: their taps come out of the input's
// rows by shuffles.

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

template <int wide, class Index>
void max_every_other_indexed(const MaxPoolForward& args, const Axis& depth, const Axis& height,
                             const Axis& width, int64_t threads) {
  using C = Code<float>;
  const Coding<Index> coding(depth, height, width);
  const Lines lines(args.y);
  const float* x = static_cast<const float*>(args.x.data);
  float* y = static_cast<float*>(args.y.data);
  Index* index = static_cast<Index*>(args.index.data);
  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<const float*> row_memory(team, depth.kernel * height.kernel);
  const Scratch<C> code_memory(team, wide * depth.kernel * height.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const float** rows = row_memory.of(member);
    C* codes = code_memory.of(member);  // `wide` to a row
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      int64_t count = 0;
      for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t tap_d, int64_t tap_h) {
        for (int64_t tap = 0; tap < wide; ++tap)
          codes[wide * count + tap] = static_cast<C>(coding.of(tap_d, tap_h, tap));
        rows[count++] = x + from * width.inputs;
      });
      const auto begin =
          static_cast<C>(coding.of(depth.taps(at.d).first, height.taps(at.h).first, 0));
      const int64_t origin =
          (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs;
      float* values = y + at.number * width.outputs;
      Index* places = index + at.number * width.outputs;
      with_count<float, 2, 3, 4>(count, [&]<int fixed>(Lanes<fixed>) {
        const auto choose_block = [=]<int lanes>(int64_t o, Lanes<lanes>) PYDL_INLINE_BODY {
          Vec<float, lanes> best = Vec<float, lanes>{} + kLowest<float>;
          Vec<C, lanes> chosen = Vec<C, lanes>{} + begin;
          for_steps<fixed>(0, count, [&](int64_t row) PYDL_INLINE_BODY {
            const float* from = rows[row] + 2 * o;
            const auto low = load_vec<lanes>(from), high = load_vec<lanes>(from + lanes);
            const auto end = wide == 3 ? load_vec<lanes>(from + lanes + 1) : high;
            const auto [a, b, c] = threes_of<lanes, float>(low, high, end);
            look_at(a, codes[wide * row], best, chosen);
            look_at(b, codes[wide * row + 1], best, chosen);
            if constexpr (wide == 3) look_at(c, codes[wide * row + 2], best, chosen);
          });
          store_vec<lanes>(best, values + o);
          C code[lanes];
          std::memcpy(code, &chosen, sizeof(chosen));
          store_index<lanes>(code, o, origin, 2, places);
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
    if (whole_twos(width))
      return max_every_other_indexed<2, Index>(args, depth, height, width, threads);
    if (whole_threes(width))
      return max_every_other_indexed<3, Index>(args, depth, height, width, threads);
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
          store_index<lanes>(code + from, from, origin, width.stride, to);
        });
      }
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
