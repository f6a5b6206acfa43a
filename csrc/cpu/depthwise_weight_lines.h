// Gradient of a depthwise convolution's weight from maps (N, C, D, H, W).
//
// A task is a run of channels. A plane of x is staged as for the forward pass (depthwise.h), the
// plane of grad_y beside it at the same pitch with zeros between its rows, so that a tap's share is
// one dot product of two runs; all taps of a window go together, and a 3x3 window of stride 1 takes
// four rows of grad_y together, which share the rows of x they meet. Sums run over one band before
// they meet those of the others.
#pragma once

#include "depthwise.h"
#include "parallel.h"

namespace pydl::cpu::PYDL_ISA {

// sums[t] += the dot product of grad and x + offsets[t], for `count` taps at once.
template <int count, int lanes, class A>
void dot_taps(const A* grad, const A* x, const int64_t* offsets, int64_t size,
              Vec<A, lanes>* sums) {
  using V = Vec<A, lanes>;
  V partial[count] = {};
  for (int64_t i = 0; i < size; i += lanes) {
    const V g = load_vec<lanes>(grad + i);
#pragma GCC unroll 16
    for (int t = 0; t < count; ++t) partial[t] += g * load_vec<lanes>(x + offsets[t] + i);
  }
#pragma GCC unroll 16
  for (int t = 0; t < count; ++t) sums[t] += partial[t];
}

// The nine taps of a 3x3 window of stride 1. Rows of grad_y lie `pitch` apart and are zero from
// `columns` on.
template <int lanes, class A>
void dot_square(const A* grad, const A* x, int64_t rows, int64_t columns, int64_t pitch,
                Vec<A, lanes>* sums) {
  using V = Vec<A, lanes>;
  V partial[9] = {};
  const auto group = [&]<int at_once>(int64_t row, Lanes<at_once>) PYDL_INLINE_BODY {
    for (int64_t i = 0; i < columns; i += lanes) {
      V g[at_once];
#pragma GCC unroll 8
      for (int r = 0; r < at_once; ++r) g[r] = load_vec<lanes>(grad + (row + r) * pitch + i);
#pragma GCC unroll 8
      for (int from = 0; from < at_once + 2; ++from) {
#pragma GCC unroll 8
        for (int tap = 0; tap < 3; ++tap) {
          const V value = load_vec<lanes>(x + (row + from) * pitch + i + tap);
#pragma GCC unroll 8
          for (int r = 0; r < at_once; ++r) {
            if (from - r >= 0 && from - r < 3) partial[(from - r) * 3 + tap] += g[r] * value;
          }
        }
      }
    }
  };
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) group(row, Lanes<4>{});
  for (; row < rows; ++row) group(row, Lanes<1>{});
#pragma GCC unroll 16
  for (int t = 0; t < 9; ++t) sums[t] += partial[t];
}

template <class T>
void weight_from_lines(const ConvGradWeight& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr int lanes = kWidest<A>;
  using V = Vec<A, lanes>;
  const auto axis = [&](int spatial) {
    return ConvAxis(args.window, args.grad_weight, args.x, args.grad_y, spatial,
                    /*transposed=*/false);
  };
  const ConvAxis depth = axis(0);
  const ConvAxis high = axis(1), wide = axis(2);
  const int64_t batch = args.x.size[0], channels = args.x.size[1],
                multiplier = args.grad_y.size[1] / channels;
  const int64_t plane_taps = high.kernel * wide.kernel, taps = depth.kernel * plane_taps;
  const bool square = plane_taps == 9 && high.kernel == 3 && high.stride == 1 && wide.stride == 1 &&
                      high.dilation == 1 && wide.dilation == 1 && wide.targets >= lanes / 2;
  // Where vectors go by rows, rows are whole vectors.
  const Staging staging(high, wide, kStaged, square ? lanes : 1);
  std::vector<int64_t> offsets;
  for (const StagedTap& tap_h : staging.height.taps(0)) {
    for (const StagedTap& tap_w : staging.width.taps(0))
      offsets.push_back(staging.offset(tap_h, tap_w));
  }
  const int64_t x_slice = high.sources * wide.sources, y_slice = high.targets * wide.targets;
  const int64_t y_size = whole_blocks(staging.rows * staging.pitch) + kLanes;
  const T *x = static_cast<const T*>(args.x.data),
          *grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_weight = static_cast<T*>(args.grad_weight.data);

  const int64_t team = team_size(channels, args.x.numel() + args.grad_y.numel(), threads);
  const Scratch<A> memory(team, depth.kernel * staging.size + y_size + multiplier * taps * lanes);
  share_out(channels, team, [&](int64_t member, int64_t begin, int64_t end) {
    A* staged = memory.of(member);
    A* grad = staged + depth.kernel * staging.size;
    A* sum_memory = grad + y_size;
    std::fill_n(staged, depth.kernel * staging.size + y_size, A{0});
    std::vector<ConvAxis::Link> links;
    for (int64_t c = begin; c < end; ++c) {
      V* sums = reinterpret_cast<V*>(sum_memory);
      std::fill_n(sum_memory, multiplier * taps * lanes, A{0});
      for (int64_t n = 0; n < batch; ++n) {
        for (int64_t d = 0; d < depth.targets; ++d) {
          depth.links(d, links);
          for (int64_t first = 0; first < high.targets; first += staging.rows) {
            const int64_t count = std::min(staging.rows, high.targets - first);
            for (size_t l = 0; l < links.size(); ++l) {
              const int64_t slice = (n * channels + c) * depth.sources + links[l].source;
              staging.stage(x + slice * x_slice, first, count,
                            staged + static_cast<int64_t>(l) * staging.size);
            }
            for (int64_t m = 0; m < multiplier; ++m) {
              const int64_t f = c * multiplier + m;
              const int64_t slice = (n * channels * multiplier + f) * depth.targets + d;
              const T* from = grad_y + slice * y_slice + first * wide.targets;
              with_lanes<A>(wide.targets, [&]<int vec>(Lanes<vec>) {
                for (int64_t row = 0; row < count; ++row) {
                  for_blocks_of<vec>(wide.targets, [&](int64_t i) PYDL_INLINE_BODY {
                    store_vec<vec>(load_vec<vec>(from + row * wide.targets + i),
                                   grad + row * staging.pitch + i);
                  });
                }
              });
              // Of the band before, which was longer.
              const int64_t size = count * staging.pitch;
              std::fill(grad + size, grad + whole_blocks(size), A{0});
              for (size_t l = 0; l < links.size(); ++l) {
                const A* slot = staged + static_cast<int64_t>(l) * staging.size;
                V* to = sums + m * taps + links[l].tap * plane_taps;
                if (square) {
                  dot_square<lanes>(grad, slot, count, wide.targets, staging.pitch, to);
                  continue;
                }
                const int64_t* at = offsets.data();
                int64_t t = 0;
                for (; t + 9 <= plane_taps; t += 9)
                  dot_taps<9, lanes>(grad, slot, at + t, size, to + t);
                for (; t + 4 <= plane_taps; t += 4)
                  dot_taps<4, lanes>(grad, slot, at + t, size, to + t);
                for (; t < plane_taps; ++t) dot_taps<1, lanes>(grad, slot, at + t, size, to + t);
              }
            }
          }
        }
      }
      for (int64_t t = 0; t < multiplier * taps; ++t)
        grad_weight[c * multiplier * taps + t] = static_cast<T>(sum_lanes<lanes, A>(sums[t]));
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
