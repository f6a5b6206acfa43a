// Gradient of a depthwise convolution's weight from channels-last maps.
//
// A task is a run of lines; the sums of a vector of channels, one per tap, stay in registers for a
// strip of pixels. A 3x3 window of stride 1 takes blocks of two lines by four pixels, which share
// what they read of x: 32 loads for 72 multiply-adds, where strips need 80. The number of runs
// depends on the shape alone.
#pragma once

#include <utility>

#include "depthwise.h"
#include "parallel.h"

namespace pydl::cpu::PYDL_ISA {

inline constexpr int64_t kMostRuns = 32;  // of lines, each with sums of its own
inline constexpr int64_t kStrip = 16;     // pixels whose sums stay in registers

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

// The share of `rows` lines by `columns` pixels of grad_y in a 3x3 window's sums (9, channels). x
// holds what they meet, row r and column c at x[r * (columns + 2) + c], or, inside, `channels`
// apart from x[r * (columns + 2)] on.
template <int rows, int columns, bool inside, class T>
void dot_pixel_square(const T* grad, int64_t grad_pitch, const T* const* x, int64_t channels,
                      accumulate_t<T>* sums) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(channels, [&]<int lanes>(int64_t first, Lanes<lanes>) PYDL_INLINE_BODY {
    using V = Vec<A, lanes>;
    V partial[9], g[rows][columns];
#pragma GCC unroll 16
    for (int t = 0; t < 9; ++t) partial[t] = V{};
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < columns; ++c) {
        const T* at = grad + r * grad_pitch + c * channels + first;
        g[r][c] = load_vec<lanes>(at);
        if (inside) fetch(at + columns * channels);
      }
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows + 2; ++row) {
#pragma GCC unroll 8
      for (int column = 0; column < columns + 2; ++column) {
        const T* at =
            inside ? x[row * (columns + 2)] + column * channels : x[row * (columns + 2) + column];
        const V value = load_vec<lanes>(at + first);
        // The rows that the next block reads first.
        if (inside && row >= 2 && column >= 2) fetch(at + first + columns * channels);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
          for (int c = 0; c < columns; ++c) {
            if (row - r >= 0 && row - r < 3 && column - c >= 0 && column - c < 3)
              partial[(row - r) * 3 + column - c] += g[r][c] * value;
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < 9; ++t) {
      A* sum = sums + t * channels + first;
      store_vec<lanes>(V(load_vec<lanes>(sum) + partial[t]), sum);
    }
  });
}

// Adds up `runs` tables (taps, filters) into the first, and that into grad_weight (filters, taps).
template <class T>
void add_runs(const Scratch<accumulate_t<T>>& partial, int64_t runs, int64_t taps, int64_t filters,
              T* grad_weight) {
  using A = accumulate_t<T>;
  for (int64_t t = 0; t < taps; ++t) {
    A* sums = partial.of(0) + t * filters;
    for (int64_t run = 1; run < runs; ++run) {
      const A* more = partial.of(run) + t * filters;
      for (int64_t f = 0; f < filters; ++f) sums[f] += more[f];
    }
    for (int64_t f = 0; f < filters; ++f) grad_weight[f * taps + t] = static_cast<T>(sums[f]);
  }
}

// As many partial sums as there are runs of `items` that are worth one.
inline int64_t runs_of(int64_t items, int64_t elements) {
  return std::max<int64_t>(1, std::min({elements / 65536, items, kMostRuns}));
}

// Whether blocks of four columns of grad_y and of three come out even.
inline bool blocks_fit(int64_t columns) { return columns == 3 || columns == 4 || columns >= 6; }

// A 3x3 window of stride 1; an item is two lines of grad_y, or the last one.
template <class T>
void weight_from_squares(const ConvGradWeight& args, const ConvAxis& depth, const ConvAxis& high,
                         const ConvAxis& wide, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr int most = 4;
  const int64_t channels = args.x.size[1], row_size = wide.sources * channels;
  const T *x = static_cast<const T*>(args.x.data),
          *grad_y = static_cast<const T*>(args.grad_y.data);
  const std::vector<T> zeros(channels, static_cast<T>(A{0}));
  const int64_t pairs = (high.targets + 1) / 2, items = args.x.size[0] * depth.targets * pairs;
  const int64_t runs = runs_of(items, args.grad_y.numel());
  const int64_t team = team_size(runs, args.x.numel() + args.grad_y.numel(), threads);
  const Scratch<A> partial(runs, 9 * channels);
  share_out(runs, team, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<ConvAxis::Link> links;
    const T* pixels[4 * (most + 2)];
    for (int64_t run = begin; run < end; ++run) {
      A* sums = partial.of(run);
      std::fill_n(sums, 9 * channels, A{0});
      for (int64_t item = items * run / runs; item < items * (run + 1) / runs; ++item) {
        const int64_t h = item % pairs * 2, d = item / pairs % depth.targets,
                      n = item / pairs / depth.targets;
        const int64_t rows = std::min<int64_t>(2, high.targets - h), top = h - high.padding;
        depth.links(d, links);
        if (links.empty()) continue;
        const T* plane = x + (n * depth.sources + links[0].source) * high.sources * row_size;
        const T* line =
            grad_y + ((n * depth.targets + d) * high.targets + h) * wide.targets * channels;
        const auto block = [&]<int columns>(int64_t place, Lanes<columns>) {
          const bool inside = place_block(plane, high, wide, channels, top, place - wide.padding,
                                          rows + 2, columns + 2, zeros.data(), pixels);
          const T* grad = line + place * channels;
          const int64_t pitch = wide.targets * channels;
          const auto add = [&]<int count>(Lanes<count>) {
            inside ? dot_pixel_square<count, columns, true>(grad, pitch, pixels, channels, sums)
                   : dot_pixel_square<count, columns, false>(grad, pitch, pixels, channels, sums);
          };
          rows == 2 ? add(Lanes<2>{}) : add(Lanes<1>{});
        };
        int64_t place = 0;
        for (int64_t rest; (rest = wide.targets - place) > 0;) {
          if (rest == most || blocks_fit(rest - most)) {
            block(place, Lanes<most>{}), place += most;
          } else {
            block(place, Lanes<3>{}), place += 3;
          }
        }
      }
    }
  });
  add_runs(partial, runs, 9, channels, static_cast<T*>(args.grad_weight.data));
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
  if (depth.kernel == 1 && depth.stride == 1 && high.three_by_one() && wide.three_by_one() &&
      filters == channels && blocks_fit(wide.targets)) {
    return weight_from_squares<T>(args, depth, high, wide, threads);
  }
  const int64_t taps = depth.kernel * high.kernel * wide.kernel;
  const int64_t row_size = wide.sources * channels, step = wide.stride * filters;
  // Columns [inner, outer) have all their taps inside.
  const int64_t inner = std::min((wide.padding + wide.stride - 1) / wide.stride, wide.targets);
  const int64_t room = wide.sources - 1 - (wide.kernel - 1) * wide.dilation + wide.padding;
  const int64_t outer = std::clamp(room < 0 ? 0 : room / wide.stride + 1, inner, wide.targets);
  const std::vector<T> zeros(filters, static_cast<T>(A{0}));
  const T *x = static_cast<const T*>(args.x.data),
          *grad_y = static_cast<const T*>(args.grad_y.data);

  const int64_t lines = batch * depth.targets * high.targets;
  const int64_t runs = runs_of(lines, args.grad_y.numel());
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
  add_runs(partial, runs, taps, filters, static_cast<T*>(args.grad_weight.data));
}

}  // namespace pydl::cpu::PYDL_ISA
