// Gradients of a depthwise convolution's weight and of a convolution's bias (definition in
// ../conv.h): every weight adds up grad_y * x over the batch and the outputs.
//
// N, C, D, H, W: a task is a run of channels. A plane of x is staged as for the forward pass
// (depthwise.h), the plane of grad_y beside it at the same pitch with zeros between its rows, so
// that a tap's share is one dot product of two runs; all taps of a window go together, and a 3x3
// window of stride 1 takes four rows of grad_y together, which share the rows of x they meet.
// Channels last: a task is a run of lines; the sums of a vector of channels, one a tap, stay in
// registers for a strip of pixels.
//
// Sums run over one plane (a run of lines) before they meet those of the others, and their number
// depends on the shape alone.
//
// Bytes: x and grad_y read once.
#include <utility>

#include "depthwise.h"
#include "kernels.h"
#include "parallel.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kMostRuns = 32;  // of lines, each with sums of its own
constexpr int64_t kStrip = 16;     // pixels whose sums stay in registers

// N, C, D, H, W

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

// Channels last

// sums[t][f] += grad * x over `pixels` pixels of all channels, for `count` taps at once. A tap's
// pixels start at from[t] and are `step` apart.
template <int count, class T>
void dot_pixels(const T* grad, const T* const* from, int64_t step, int64_t pixels, int64_t filters,
                accumulate_t<T>* const* sums) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(filters, [&]<int lanes>(int64_t first, Lanes<lanes>) {
    using V = Vec<A, lanes>;
    V partial[count];
#pragma GCC unroll 16
    for (int t = 0; t < count; ++t) partial[t] = V{};
    const T* g_at = grad + first;
    for (int64_t p = 0; p < pixels; ++p, g_at += filters) {
      const V g = load_vec<lanes>(g_at);
#pragma GCC unroll 16
      for (int t = 0; t < count; ++t) partial[t] += g * load_vec<lanes>(from[t] + p * step + first);
    }
#pragma GCC unroll 16
    for (int t = 0; t < count; ++t)
      store_vec<lanes>(V(load_vec<lanes>(sums[t] + first) + partial[t]), sums[t] + first);
  });
}

template <class T>
void dot_all_pixels(const T* grad, const T* const* from, int64_t taps, int64_t step, int64_t pixels,
                    int64_t filters, accumulate_t<T>* const* sums) {
  int64_t t = 0;
  for (; t + 9 <= taps; t += 9) dot_pixels<9>(grad, from + t, step, pixels, filters, sums + t);
  for (; t + 3 <= taps; t += 3) dot_pixels<3>(grad, from + t, step, pixels, filters, sums + t);
  for (; t < taps; ++t) dot_pixels<1>(grad, from + t, step, pixels, filters, sums + t);
}

template <class T>
void weight_from_pixels(const ConvGradWeight& args, int64_t threads) {
  using A = accumulate_t<T>;
  const auto axis = [&](int spatial) {
    return ConvAxis(args.window, args.grad_weight, args.x, args.grad_y, spatial,
                    /*transposed=*/false);
  };
  const ConvAxis depth = axis(0), high = axis(1), wide = axis(2);
  const int64_t batch = args.x.size[0], channels = args.x.size[1], filters = args.grad_y.size[1];
  const int64_t taps = depth.kernel * high.kernel * wide.kernel;
  const int64_t row_size = wide.sources * channels, step = wide.stride * filters;
  // Columns [inner, outer) have all their taps inside.
  const int64_t inner = std::min((wide.padding + wide.stride - 1) / wide.stride, wide.targets);
  const int64_t room = wide.sources - 1 - (wide.kernel - 1) * wide.dilation + wide.padding;
  const int64_t outer = std::clamp(room < 0 ? 0 : room / wide.stride + 1, inner, wide.targets);
  const std::vector<T> zeros(filters, static_cast<T>(A{0}));
  const T *x = static_cast<const T*>(args.x.data),
          *grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_weight = static_cast<T*>(args.grad_weight.data);

  // As many partial sums as there are runs of lines worth it.
  const int64_t lines = batch * depth.targets * high.targets;
  const int64_t runs =
      std::max<int64_t>(1, std::min({args.grad_y.numel() / 65536, lines, kMostRuns}));
  const bool expanded = filters > channels;
  const int64_t team = team_size(runs, args.x.numel() + args.grad_y.numel(), threads);
  const Scratch<A> partial(runs, taps * filters);
  const Scratch<T> copies(team, expanded ? depth.kernel * high.kernel * wide.sources * filters : 0);
  const Scratch<const T*> pointers(team, taps);
  const Scratch<A*> sum_pointers(team, taps);
  share_out(runs, team, [&](int64_t member, int64_t begin, int64_t end) {
    const T** from = pointers.of(member);
    A** sums = sum_pointers.of(member);
    std::vector<ConvAxis::Link> links_d, links_h;
    struct Row {
      const T* pixels;
      int64_t taps;
    };
    std::vector<Row> rows;
    for (int64_t run = begin; run < end; ++run) {
      std::fill_n(partial.of(run), taps * filters, A{0});
      for (int64_t line = lines * run / runs; line < lines * (run + 1) / runs; ++line) {
        const int64_t n = line / high.targets / depth.targets;
        depth.links(line / high.targets % depth.targets, links_d);
        high.links(line % high.targets, links_h);
        rows.clear();
        for (const auto& d : links_d) {
          for (const auto& h : links_h) {
            const int64_t number = (n * depth.sources + d.source) * high.sources + h.source;
            rows.push_back({x + number * row_size, (d.tap * high.kernel + h.tap) * wide.kernel});
          }
        }
        if (expanded) {
          T* to = copies.of(member);
          for (Row& row : rows) {
            const T* pixels = std::exchange(row.pixels, to);
            for (int64_t i = 0; i < row_size; ++i) {
              for (int64_t m = 0; m < filters / channels; ++m) *to++ = pixels[i];
            }
          }
        }
        for (int64_t first = 0, size; first < wide.targets; first += size) {
          const bool inside = first >= inner && first < outer;
          size = inside ? std::min(kStrip, outer - first) : 1;
          int64_t count = 0;
          for (const Row& row : rows) {
            for (int64_t tap = 0; tap < wide.kernel; ++tap) {
              const int64_t at = first * wide.stride - wide.padding + tap * wide.dilation;
              if (at < 0 || at >= wide.sources) {
                if (wide.kernel > 5) continue;
                from[count] = zeros.data();
              } else {
                from[count] = row.pixels + at * filters;
              }
              sums[count++] = partial.of(run) + (row.taps + tap) * filters;
            }
          }
          dot_all_pixels(grad_y + (line * wide.targets + first) * filters, from, count, step, size,
                         filters, sums);
        }
      }
    }
  });
  for (int64_t t = 0; t < taps; ++t) {
    A* sums = partial.of(0) + t * filters;
    for (int64_t run = 1; run < runs; ++run) {
      const A* more = partial.of(run) + t * filters;
      for (int64_t f = 0; f < filters; ++f) sums[f] += more[f];
    }
    for (int64_t f = 0; f < filters; ++f) grad_weight[f * taps + t] = static_cast<T>(sums[f]);
  }
}

// A bias. Short sums are made in A and added up in double, as PyTorch's are in a tree: one long sum
// would be the less accurate.

// The sum of `size` values, in runs of 4096.
template <class T>
double sum_row(const T* from, int64_t size) {
  using A = accumulate_t<T>;
  constexpr int lanes = kWidest<A>;
  using V = Vec<A, lanes>;
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += 4096) {
    const int64_t count = std::min<int64_t>(4096, size - begin), whole = count / (4 * lanes);
    V a{}, b{}, c{}, d{};
    const T* at = from + begin;
    for (int64_t i = 0; i < whole; ++i, at += 4 * lanes) {
      a += load_vec<lanes>(at);
      b += load_vec<lanes>(at + lanes);
      c += load_vec<lanes>(at + 2 * lanes);
      d += load_vec<lanes>(at + 3 * lanes);
    }
    double rest = 0;
    for (; at < from + begin + count; ++at) rest += static_cast<A>(*at);
    total += sum_lanes<lanes, A>((a + b) + (c + d)) + rest;
  }
  return total;
}

template <class T>
void bias_from_lines(const ConvGradBias& args, int64_t threads) {
  const int64_t batch = args.grad_y.size[0], filters = args.grad_y.size[1];
  const int64_t plane = args.grad_y.size[2] * args.grad_y.size[3] * args.grad_y.size[4];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_bias = static_cast<T*>(args.grad_bias.data);
  share_out(filters, team_size(filters, args.grad_y.numel(), threads),
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t f = begin; f < end; ++f) {
                double sum = 0;
                for (int64_t n = 0; n < batch; ++n)
                  sum += sum_row(grad_y + (n * filters + f) * plane, plane);
                grad_bias[f] = static_cast<T>(static_cast<accumulate_t<T>>(sum));
              }
            });
}

template <class T>
void bias_from_pixels(const ConvGradBias& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t filters = args.grad_y.size[1], pixels = args.grad_y.numel() / filters;
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_bias = static_cast<T*>(args.grad_bias.data);
  const int64_t runs =
      std::max<int64_t>(1, std::min({args.grad_y.numel() / 16384, pixels, 4 * kMostRuns}));
  const Scratch<double> partial(runs, filters);
  const Scratch<A> memory(runs, filters);
  share_out(runs, team_size(runs, args.grad_y.numel(), threads),
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t run = begin; run < end; ++run) {
                double* totals = partial.of(run);
                A* sums = memory.of(run);
                std::fill_n(totals, filters, 0.0);
                const int64_t last = pixels * (run + 1) / runs;
                for (int64_t first = pixels * run / runs; first < last; first += 8) {
                  std::fill_n(sums, filters, A{0});
                  for (int64_t p = first; p < std::min(first + 8, last); ++p) {
                    const T* pixel = grad_y + p * filters;
                    for_vectors_once<A>(
                        filters, [&]<int lanes>(int64_t f, Lanes<lanes>) PYDL_INLINE_BODY {
                          using V = Vec<A, lanes>;
                          store_vec<lanes>(
                              V(load_vec<lanes>(sums + f) + load_vec<lanes>(pixel + f)), sums + f);
                        });
                  }
                  for (int64_t f = 0; f < filters; ++f) totals[f] += sums[f];
                }
              }
            });
  for (int64_t f = 0; f < filters; ++f) {
    double sum = 0;
    for (int64_t run = 0; run < runs; ++run) sum += partial.of(run)[f];
    grad_bias[f] = static_cast<T>(static_cast<A>(sum));
  }
}

}  // namespace

void conv_grad_weight(const ConvGradWeight& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "convolution", [&]<class T>(T) {
    channels_last ? weight_from_pixels<T>(args, threads) : weight_from_lines<T>(args, threads);
  });
}

void conv_grad_bias(const ConvGradBias& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_y.dtype, "convolution", [&]<class T>(T) {
    channels_last ? bias_from_pixels<T>(args, threads) : bias_from_lines<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
