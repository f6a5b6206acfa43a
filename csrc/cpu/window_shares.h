// The transpose of window_sums.h for maps N, C, D, H, W: every input adds up the shares of the
// windows that hold it,
//
//   grad_x[i] = finish(sum over the windows o that hold i of share[o])
//
// A task is a run of input lines (n, c, d, h), worked on in batches of up to 8. The shares of the
// lines of windows that hold a batch are made once each, then spread over the columns (a sum over
// the taps of W, by the parts of pool_window.h), and an input line is the sum of the one or few
// spread lines above it.
//
// shares.write(first, d, h, count, to, step) writes the shares of the `count` lines of windows from
// (d, h) on, the first of which begins at `first` in the windows' map, as rows `step` apart.
// finish.line(first)(sum, i) finishes the input i of the line that begins at `first`.
#pragma once

#include "parallel.h"
#include "pool_window.h"

namespace pydl::cpu::PYDL_ISA {

template <class T, class Shares, class Finish>
void add_shares(const Tensor& grad_map, const Axis& depth, const Axis& height, const Axis& width,
                const Shares& shares, const Finish& finish, int64_t threads) {
  using A = accumulate_t<T>;
  const Columns columns(width);
  const Cover cover_d(depth), cover_h(height);
  const Lines lines(grad_map);
  T* grad_x = static_cast<T*>(grad_map.data);

  // The shares of the lines of windows that hold a batch of inputs are spread over the columns
  // first; a batch lies in one d.
  const WindowLine windows(width, columns);
  const int64_t most = batch_of_lines(width), line_size = columns.line_size(),
                reach = height.most_holding(most);
  const int64_t lines_spread = cover_d.most() * reach;
  const int64_t team = team_size(lines.count(), grad_map.numel(), threads);
  const Scratch<A> memory(team, reach * (windows.size + line_size) + lines_spread * line_size);
  const Scratch<const A*> row_memory(team, std::max(width.kernel, cover_d.most() * cover_h.most()));
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A *held = memory.of(member), *parts = held + reach * windows.size,
      *spread = parts + reach * line_size;
    const A** rows = row_memory.of(member);
    std::fill_n(held, reach * (windows.size + line_size) + lines_spread * line_size, A{0});
    Lines at = lines.from(first);
    while (at.number < last) {
      const int64_t batch = std::min({most, last - at.number, height.inputs - at.h});
      const auto [first_h, last_h] = height.holding(at.h, batch);
      const int64_t count_h = std::max<int64_t>(last_h - first_h, 0);
      A* to = spread;
      for (auto d = cover_d.begin(at.d); d != cover_d.end(at.d); ++d, to += reach * line_size) {
        const int64_t row =
            ((at.plane * depth.outputs + d->window) * height.outputs + first_h) * width.outputs;
        shares.write(row, d->window, first_h, count_h, held + windows.lead, windows.size);
        A* to_parts = columns.stride == 1 ? to : parts;
        for (int64_t part = 0; part < columns.stride; ++part) {
          int64_t count = 0;
          for (const auto [tap, back] : windows.taps_of_part[part])
            rows[count++] = held + windows.lead - back;
          if (count == 0) continue;
          fold_rows<Sum>(rows, count, to_parts + part * columns.part_size, windows.inputs,
                         Unchanged{}, {count_h, windows.size, line_size});
        }
        if (columns.stride > 1) {
          for (int64_t i = 0; i < count_h; ++i)
            columns.join(parts + i * line_size, to + i * line_size);
        }
      }
      for (int64_t i = 0; i < batch; ++i, at.next()) {
        int64_t count = 0;
        const A* from = spread + columns.padding;
        for (auto d = cover_d.begin(at.d); d != cover_d.end(at.d); ++d, from += reach * line_size) {
          for (auto h = cover_h.begin(at.h); h != cover_h.end(at.h); ++h)
            rows[count++] = from + (h->window - first_h) * line_size;
        }
        T* out = grad_x + at.number * width.inputs;
        if (count == 0) {
          std::fill_n(out, width.inputs, static_cast<T>(A{0}));
        } else {
          fold_rows<Sum>(rows, count, out, width.inputs, finish.line(at.number * width.inputs));
        }
      }
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
