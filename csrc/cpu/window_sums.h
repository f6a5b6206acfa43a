// Sums over the windows of a map (definitions in ../pool.h and ../pool_lp.h):
//
//   y[o] = finish(sum of the terms of the taps of window o inside the input)
//
// where a term is a tap's value or a function of it. Term{} is a fold for fold_rows: first(value)
// is the first tap's term, operator()(sum, value) adds another. finish.of_line(d, h) gives what
// finishes the windows of a line: operator()(sum, o) one of them, window(o) the channels of one.
//
// N, C, D, H, W: a task is a run of output lines (n, c, d, h), worked on in batches of up to 8: the
// lines that a line of windows reaches are added up column by column, the sums dealt out by column
// modulo the stride, the taps of W added from there as contiguous rows, and finished. Threes that
// begin at every other column are added by shuffles instead, and in registers from the start where
// they are float32 and unpadded (window_threes.h), as are pairs.
// Channels last: a task is a run of lines (n, d, h); the rows that are added are the channels of
// pixels, and the windows of a line that lie wholly inside share one list of taps.
#pragma once

#include "parallel.h"
#include "pool_window.h"
#include "vec.h"
#include "window_threes.h"

namespace pydl::cpu::PYDL_ISA {

// N, C, D, H, W

// One window per plane: nothing to share.
template <class T, class Term, class Finish>
void sum_planes(const Tensor& x_map, const Tensor& y_map, int64_t size, Term term, Finish finish,
                int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t planes = x_map.size[0] * x_map.size[1];
  const T* x = static_cast<const T*>(x_map.data);
  T* y = static_cast<T*>(y_map.data);
  share_out(planes, team_size(planes, x_map.numel(), threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t plane = first; plane < last; ++plane) {
                constexpr int lanes = 8;
                const T* from = x + plane * size;
                A sums[lanes] = {}, value[lanes];
                int64_t i = 0;
                for (; i + lanes <= size; i += lanes) {
                  load<lanes>(from + i, value);
                  PYDL_LANES
                  for (int lane = 0; lane < lanes; ++lane)
                    sums[lane] = term(sums[lane], value[lane]);
                }
                for (int lane = 0; i < size; ++i, ++lane)
                  sums[lane] = term(sums[lane], static_cast<A>(from[i]));
                const A sum = ((sums[0] + sums[4]) + (sums[1] + sums[5])) +
                              ((sums[2] + sums[6]) + (sums[3] + sums[7]));
                y[plane] = static_cast<T>(finish(sum, 0));
              }
            });
}

// Whether the windows are the pairs of an axis.
inline bool in_pairs(const Axis& axis) {
  return axis.kernel == 2 && axis.stride == 2 && axis.padding == 0 && axis.dilation == 1 &&
         2 * axis.outputs <= axis.inputs;
}

// Adds a block of these rows to the sums, or starts them with it.
template <int fixed, int lanes, bool begun, class T, class Term>
PYDL_INLINE void add_rows(const T* const* rows, int64_t count, int64_t from, accumulate_t<T>* sums,
                          Term term) {
  accumulate_t<T> value[lanes];
  if constexpr (!begun) {
    load<lanes>(rows[0] + from, sums);
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) sums[lane] = term.first(sums[lane]);
  }
  for_steps<fixed>(begun ? 0 : 1, count, [&](int64_t row) PYDL_INLINE_BODY {
    load<lanes>(rows[row] + from, value);
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) sums[lane] = term(sums[lane], value[lane]);
  });
}

// Of windows over several planes one plane's lines are added after another's: read in turns, planes
// take twice the time from memory.
template <class T, class Term, class Finish>
void sum_pairs(const Tensor& x_map, const Tensor& y_map, const Axis& depth, const Axis& height,
               const Axis& width, Term term, const Finish& finish, int64_t threads) {
  using A = accumulate_t<T>;
  const Lines lines(y_map);
  const Axis::Taps full = height.full();
  const int64_t step = height.stride * width.inputs, size = 2 * width.outputs;
  const int64_t most = std::max<int64_t>(1, 8192 / size);
  const T* x = static_cast<const T*>(x_map.data);
  T* y = static_cast<T*>(y_map.data);
  const int64_t team = team_size(lines.count(), x_map.numel(), threads);
  const Scratch<const T*> row_memory(team, depth.kernel * height.kernel);
  const Scratch<A> memory(team, depth.kernel > 1 ? most * size : 0);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const T** rows = row_memory.of(member);
    A* sums = memory.of(member);
    Lines at = lines.from(first);
    while (at.number < last) {
      const int64_t alike = lines_alike(full, at, std::min(most, last - at.number));
      const auto of_line = finish.of_line(at.d, at.h);
      T* out = y + at.number * width.outputs;
      int64_t count = 0, planes = 0, plane = -1;
      for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t tap_d, int64_t) {
        rows[count++] = x + from * width.inputs;
        planes += tap_d != plane;
        plane = tap_d;
      });
      at.advance(alike);
      if (count == 0) {
        for (int64_t o = 0; o < alike * width.outputs; ++o)
          out[o] = static_cast<T>(of_line(A{0}, o % width.outputs));
        continue;
      }
      const int64_t of_plane = count / planes;
      with_count<A, 1, 2, 3>(of_plane, [=]<int fixed>(Lanes<fixed>) {
        const auto add = [=]<bool begun>(const T* const* from, std::bool_constant<begun>) {
          for (int64_t line = 0; line < alike; ++line) {
            A* to = sums + line * size;
            for_vectors_once<A>(size, [=]<int lanes>(int64_t i, Lanes<lanes>) {
              A block[lanes];
              if constexpr (begun) load<lanes>(to + i, block);
              add_rows<fixed, lanes, begun>(from, of_plane, line * step + i, block, term);
              store<lanes>(block, to + i);
            });
          }
        };
        const auto pair_up = [=]<bool begun>(const T* const* from, std::bool_constant<begun>) {
          for (int64_t line = 0; line < alike; ++line) {
            for_blocks<A>(width.outputs, [=]<int lanes>(int64_t o, Lanes<lanes>) {
              A block[2 * lanes], pairs[lanes];
              if constexpr (begun) load<2 * lanes>(sums + line * size + 2 * o, block);
              add_rows<fixed, 2 * lanes, begun>(from, of_plane, line * step + 2 * o, block, term);
              PYDL_LANES
              for (int lane = 0; lane < lanes; ++lane)
                pairs[lane] = of_line(block[2 * lane] + block[2 * lane + 1], o + lane);
              store<lanes>(pairs, out + line * width.outputs + o);
            });
          }
        };
        if (planes == 1) return pair_up(rows, std::false_type{});
        add(rows, std::false_type{});
        for (int64_t i = 1; i + 1 < planes; ++i) add(rows + i * of_plane, std::true_type{});
        pair_up(rows + (planes - 1) * of_plane, std::true_type{});
      });
    }
  });
}

template <class T, class Term, class Finish>
void sum_lines(const Tensor& x_map, const Tensor& y_map, const Axis& depth, const Axis& height,
               const Axis& width, Term term, const Finish& finish, int64_t threads) {
  using A = accumulate_t<T>;
  if (depth.global() && height.global() && width.global()) {
    return sum_planes<T>(x_map, y_map, depth.inputs * height.inputs * width.inputs, term,
                         finish.of_line(0, 0).window(0), threads);
  }
  if (in_pairs(width))
    return sum_pairs<T>(x_map, y_map, depth, height, width, term, finish, threads);
  if constexpr (std::is_same_v<T, float>) {
    if (whole_threes(width)) {
      return fold_lines_of_threes<T>(x_map, y_map, depth, height, width, term, Sum{}, A{0}, finish,
                                     threads);
    }
  }
  const Columns columns(width);
  const bool threes = by_threes(width), parted = columns.stride > 1 && !threes;
  const std::vector<int64_t> tap_offsets = columns.tap_offsets(width);
  const Lines lines(y_map);
  const T* x = static_cast<const T*>(x_map.data);
  T* y = static_cast<T*>(y_map.data);

  const Axis::Taps full = height.full();
  const int64_t most = batch_of_lines(width), line_size = columns.line_size();
  const int64_t team = team_size(lines.count(), x_map.numel(), threads);
  const Scratch<A> memory(team, 2 * most * line_size);
  const Scratch<const T*> row_memory(team, depth.kernel * height.kernel);
  const Scratch<const A*> tap_memory(team, width.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A* sums = memory.of(member);  // of the columns, one line each
    A* parts = parted ? sums + most * line_size : sums;
    const T** rows = row_memory.of(member);
    const A** taps = tap_memory.of(member);
    std::fill_n(sums, 2 * most * line_size, A{0});
    Lines at = lines.from(first);
    while (at.number < last) {
      const Lines begin = at;
      const int64_t batch = std::min(most, last - begin.number);
      for (int64_t i = 0, alike; i < batch; i += alike, at.advance(alike)) {
        alike = lines_alike(full, at, batch - i);
        int64_t count = 0;
        for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t, int64_t) {
          rows[count++] = x + from * width.inputs;
        });
        A* to = sums + i * line_size + columns.padding;
        if (count == 0) {
          std::fill_n(to, width.inputs, A{0});
        } else {
          fold_rows<Term>(rows, count, to, width.inputs, Unchanged{},
                          {alike, height.stride * width.inputs, line_size}, term);
        }
      }
      if (parted) {
        for (int64_t i = 0; i < batch; ++i)
          columns.split(sums + i * line_size, parts + i * line_size);
      }
      at = begin;
      for (int64_t i = 0, alike; i < batch; i += alike, at.advance(alike)) {
        alike = lines_alike(full, at, batch - i);
        T* out = y + at.number * width.outputs;
        if (threes) {
          const auto of_line = finish.of_line(at.d, at.h);
          for (int64_t line = 0; line < alike; ++line) {
            const A* from = sums + (i + line) * line_size;
            T* to = out + line * width.outputs;
            for_blocks<A>(width.outputs, [=]<int lanes>(int64_t o, Lanes<lanes>) {
              A block[lanes];
              store_vec<lanes>(fold_threes<lanes>(from + 2 * o, Sum{}), block);
              PYDL_LANES
              for (int lane = 0; lane < lanes; ++lane) block[lane] = of_line(block[lane], o + lane);
              store<lanes>(block, to + o);
            });
          }
          continue;
        }
        for (int64_t tap = 0; tap < width.kernel; ++tap)
          taps[tap] = parts + i * line_size + tap_offsets[tap];
        fold_rows<Sum>(taps, width.kernel, out, width.outputs, finish.of_line(at.d, at.h),
                       {alike, line_size, width.outputs});
      }
    }
  });
}

// Channels last

template <class T, class Term, class Finish>
void sum_pixels(const Tensor& x_map, const Tensor& y_map, const Axis& depth, const Axis& height,
                const Axis& width, Term term, const Finish& finish, int64_t threads) {
  using A = accumulate_t<T>;
  const Lines lines(y_map, /*channels_last=*/true);
  const Axis::Taps full = width.full();
  const int64_t channels = x_map.size[1], rows_of = depth.kernel * height.kernel;
  const T* x = static_cast<const T*>(x_map.data);
  T* y = static_cast<T*>(y_map.data);

  const int64_t team = team_size(lines.count(), x_map.numel(), threads);
  const Scratch<const T*> memory(team, rows_of * (1 + width.kernel));
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const T **rows = memory.of(member), **taps = rows + rows_of;
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      int64_t count_rows = 0;
      for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t, int64_t) {
        rows[count_rows++] = x + from * width.inputs * channels;
      });
      const auto of_line = finish.of_line(at.d, at.h);
      for (int64_t o = 0, places; o < width.outputs; o += places) {
        places = o >= full.first && o < full.last ? full.last - o : 1;
        const auto [first_w, last_w] = width.taps(o);
        int64_t count = 0;
        for (int64_t row = 0; row < count_rows; ++row) {
          for (int64_t tap = first_w; tap < last_w; ++tap)
            taps[count++] = rows[row] + (width.start(o) + tap) * channels;
        }
        T* to = y + (at.number * width.outputs + o) * channels;
        if (count == 0) {
          std::fill_n(to, places * channels, static_cast<T>(A{0}));
        } else {
          fold_rows<Term>(taps, count, to, channels, of_line.window(o),
                          {places, width.stride * channels, channels}, term);
        }
      }
    }
  });
}

// Either, whichever layout the maps have.
template <class T, class Term, class Finish>
void sum_windows(const Tensor& x, const Tensor& y, const Axis& depth, const Axis& height,
                 const Axis& width, Term term, const Finish& finish, bool channels_last,
                 int64_t threads) {
  channels_last ? sum_pixels<T>(x, y, depth, height, width, term, finish, threads)
                : sum_lines<T>(x, y, depth, height, width, term, finish, threads);
}

}  // namespace pydl::cpu::PYDL_ISA
