// Depthwise convolution of channels-last maps, forward and transposed alike: sums over the taps of
// neighbouring pixels, a vector of channels at a time.
//
// A task is a run of lines. A strip of up to eight pixels shares the weights it reads; a 3x3 window
// of stride 1 takes blocks of two lines by four pixels, which share what they read of the map as
// well: 33 loads for 72 multiply-adds, where strips need 81. Outside the map lie pixels of zeros.
#pragma once

#include "depthwise.h"
#include "epilogue.h"
#include "parallel.h"
#include "stream.h"

namespace pydl::cpu::PYDL_ISA {

template <class T>
struct DepthwisePixels {
  using A = accumulate_t<T>;

  const T *source, *weight, *bias, *residual;  // bias, residual: nullptr where there is none
  T* target;
  Epilogue epilogue;
  ConvAxis depth, height, width;
  int64_t batch, channels, multiplier;

  void run(int64_t threads) const {
    const bool transposed = depth.transposed;
    const int64_t filters = channels * multiplier,
                  taps = depth.kernel * height.kernel * width.kernel;
    const int64_t source_channels = transposed ? filters : channels,
                  target_channels = transposed ? channels : filters;
    // (taps, F), and what every sum starts with
    const Scratch<A> table(1, (taps + 1) * filters);
    A* weights = table.of(0);
    for (int64_t f = 0; f < filters; ++f) {
      for (int64_t t = 0; t < taps; ++t)
        weights[t * filters + f] = static_cast<A>(weight[f * taps + t]);
    }
    A* start = weights + taps * filters;
    for (int64_t f = 0; f < filters; ++f)
      start[f] = bias == nullptr ? A{0} : static_cast<A>(bias[f]);
    const std::vector<T> zeros(filters, static_cast<T>(A{0}));

    if (depth.kernel == 1 && depth.stride == 1 && height.three_by_one() && width.three_by_one() &&
        multiplier == 1 && width.targets >= 4 && channels >= kWidest<A>) {
      return run_square(weights, start, zeros.data(), threads);
    }

    const std::vector<std::vector<Tap>> taps_of_residue = width_taps();
    const int64_t lines = batch * depth.targets * height.targets;
    const int64_t row_size = width.sources * source_channels;
    const bool expanded = !transposed && multiplier > 1, folded = transposed && multiplier > 1;
    const bool plain =
        kDirect && residual == nullptr && epilogue.activation == Activation::none && !folded;
    const int64_t rows_most = depth.kernel * height.kernel;
    const int64_t elements = std::max(batch * depth.sources * height.sources * row_size,
                                      lines * width.targets * target_channels);
    const int64_t team = team_size(lines, elements, threads);
    const Scratch<T> copies(team, expanded ? rows_most * width.sources * filters : 0);
    const Scratch<A> results(team, plain ? 0 : kStrip * filters);
    const Scratch<const T*> pointer_memory(team, taps * kStrip);
    const Scratch<const A*> weight_memory(team, taps);
    share_out(lines, team, [&](int64_t member, int64_t begin, int64_t end) {
      const T** pointers = pointer_memory.of(member);
      const A** weight_of = weight_memory.of(member);
      A* result = results.of(member);
      std::vector<ConvAxis::Link> links_d, links_h;
      std::vector<Row> rows;
      for (int64_t line = begin; line < end; ++line) {
        const int64_t n = line / height.targets / depth.targets;
        depth.links(line / height.targets % depth.targets, links_d);
        height.links(line % height.targets, links_h);
        rows.clear();
        for (const auto& d : links_d) {
          for (const auto& h : links_h) {
            const int64_t number = (n * depth.sources + d.source) * height.sources + h.source;
            rows.push_back(
                {source + number * row_size, (d.tap * height.kernel + h.tap) * width.kernel});
          }
        }
        if (expanded) {
          T* to = copies.of(member);
          for (Row& row : rows) {
            expand(row.pixels, to);
            row.pixels = to;
            to += width.sources * filters;
          }
        }
        for (int64_t residue = 0; residue < width.target_step; ++residue) {
          const std::vector<Tap>& of_residue = taps_of_residue[residue];
          int64_t first = 0, last = width.places();
          while (first < last && width.target(first, residue) < 0) ++first;
          while (first < last && width.target(last - 1, residue) >= width.targets) --last;
          // Places [inner, outer) have all their sources inside.
          int64_t inner = first, outer = last, count = 0;
          for (const Tap& tap : of_residue) {
            while (inner < outer && inner * width.source_step + tap.base < 0) ++inner;
            while (inner < outer && (outer - 1) * width.source_step + tap.base >= width.sources)
              --outer;
          }
          for (const Row& row : rows) {
            for (const Tap& tap : of_residue)
              weight_of[count++] = weights + (row.taps + tap.number) * filters;
          }
          const auto strips = [&]<int size>(Lanes<size>) {
            for (int64_t at = first; at < last; at += size) {
              const int64_t place = std::min(at, last - size);
              const bool inside = place >= inner && place + size <= outer;
              const T** next = pointers;
              for (const Row& row : rows) {
                for (const Tap& tap : of_residue) {
                  for (int64_t s = 0; s < (inside ? 1 : size); ++s) {
                    const int64_t from = (place + s) * width.source_step + tap.base;
                    *next++ = from >= 0 && from < width.sources ? row.pixels + from * filters
                                                                : zeros.data();
                  }
                }
              }
              const int64_t pixel = line * width.targets + width.target(place, residue);
              T* to = target + pixel * target_channels;
              const int64_t step = width.source_step * filters;
              const auto sum = [&](A* out, int64_t out_step) {
                inside
                    ? sum_taps<size, true>(pointers, weight_of, count, step, start, out, out_step)
                    : sum_taps<size, false>(pointers, weight_of, count, step, start, out, out_step);
              };
              const int64_t pixel_step = width.target_step * target_channels;
              if constexpr (kDirect) {
                if (plain) {
                  sum(to, pixel_step);
                  continue;
                }
              }
              sum(result, filters);
              for (int64_t s = 0; s < size; ++s) {
                A* z = result + s * filters;
                if (folded) fold(z);
                finish_row(z,
                           residual == nullptr
                               ? nullptr
                               : residual + pixel * target_channels + s * pixel_step,
                           to + s * pixel_step, target_channels, epilogue);
              }
            }
          };
          const int64_t places = last - first;
          if (places >= 8) {
            strips(Lanes<8>{});
          } else if (places >= 4) {
            strips(Lanes<4>{});
          } else if (places >= 1) {
            strips(Lanes<1>{});
          }
        }
      }
    });
  }

 private:
  static constexpr int64_t kStrip = 8;  // pixels at once
  static constexpr int kSquare = 4;     // by two lines
  // Whether sums can be written where they belong. Those of halves always become a row of A first:
  // half the code.
  static constexpr bool kDirect = std::is_same_v<T, A>;

  struct Row {
    const T* pixels;
    int64_t taps;  // the number of its first tap
  };
  // Reads the pixel `base` after place * source_step.
  struct Tap {
    int64_t number, base;
  };

  std::vector<std::vector<Tap>> width_taps() const {
    std::vector<std::vector<Tap>> out(width.target_step);
    for (int64_t tap = 0; tap < width.kernel; ++tap) {
      const int64_t column = tap * width.dilation;
      if (width.transposed) {
        out[column % width.stride].push_back({tap, width.first_place() - column / width.stride});
      } else {
        out[0].push_back({tap, column - width.padding});
      }
    }
    return out;
  }

  // A row that repeats every channel once for each of its filters.
  void expand(const T* from, T* to) const {
    for (int64_t i = 0; i < width.sources * channels; ++i) {
      for (int64_t m = 0; m < multiplier; ++m) *to++ = from[i];
    }
  }
  // The filters of each channel added up.
  void fold(A* z) const {
    for (int64_t c = 0; c < channels; ++c) {
      A sum = z[c * multiplier];
      for (int64_t m = 1; m < multiplier; ++m) sum += z[c * multiplier + m];
      z[c] = sum;
    }
  }

  // A 3x3 window of stride 1: blocks of two lines by four pixels, which share what they read. An
  // item is two lines, or the last one.
  void run_square(const A* weights, const A* start, const T* zeros, int64_t threads) const {
    const bool plain = kDirect && residual == nullptr && epilogue.activation == Activation::none;
    const int64_t pairs = (height.targets + 1) / 2, items = batch * depth.targets * pairs;
    const int64_t team = team_size(
        items, batch * depth.targets * height.targets * width.targets * channels, threads);
    const bool streams =
        channels % (kLineBytes / sizeof(T)) == 0 &&
        worth_streaming<T>(batch * depth.targets * height.targets * width.targets * channels);
    const Scratch<A> results(team, plain ? 0 : 2 * kSquare * channels);
    std::vector<const A*> taps(9);
    for (int t = 0; t < 9; ++t) taps[t] = weights + (depth.transposed ? 8 - t : t) * channels;
    // Where the first tap in memory order reads, of target 0.
    const int64_t top = height.transposed ? height.padding - 2 : -height.padding,
                  left = width.transposed ? width.padding - 2 : -width.padding;
    const int64_t row_size = width.sources * channels;
    share_out(items, team, [&](int64_t member, int64_t begin, int64_t end) {
      std::vector<ConvAxis::Link> links;
      const T* pixels[4 * (kSquare + 2)];
      for (int64_t item = begin; item < end; ++item) {
        const int64_t h = item % pairs * 2, d = item / pairs % depth.targets,
                      n = item / pairs / depth.targets;
        const int64_t rows = std::min<int64_t>(2, height.targets - h);
        depth.links(d, links);
        const T* plane = links.empty() ? nullptr
                                       : source + (n * depth.sources + links[0].source) *
                                                      height.sources * row_size;
        for (int64_t at = 0; at < width.targets; at += kSquare) {
          const int64_t place = std::min<int64_t>(at, width.targets - kSquare);
          const bool inside = place_block(plane, height, width, channels, h + top, place + left,
                                          rows + 2, kSquare + 2, zeros, pixels);
          const int64_t pixel =
              ((n * depth.targets + d) * height.targets + h) * width.targets + place;
          const auto sum = [&](auto* out, int64_t out_pitch) {
            const auto block = [&]<int count>(Lanes<count>) {
              inside ? sum_square<count, true>(pixels, taps.data(), start, out, out_pitch)
                     : sum_square<count, false>(pixels, taps.data(), start, out, out_pitch);
            };
            rows == 2 ? block(Lanes<2>{}) : block(Lanes<1>{});
          };
          if constexpr (kDirect) {
            if (plain) {
              write_row(target + pixel * channels, streams,
                        [&](auto* out) { sum(out, width.targets * channels); });
              continue;
            }
          }
          A* z = results.of(member);
          sum(z, kSquare * channels);
          for (int64_t r = 0; r < rows; ++r) {
            const int64_t offset = (pixel + r * width.targets) * channels;
            finish_row(z + r * kSquare * channels,
                       residual == nullptr ? nullptr : residual + offset, target + offset,
                       kSquare * channels, epilogue);
          }
        }
      }
    });
  }

  // Row r of the block reads pixels[r * (kSquare + 2) + c], or, inside, those from
  // pixels[r * (kSquare + 2)] on.
  template <int rows, bool inside, class Out>
  void sum_square(const T* const* pixels, const A* const* taps, const A* start, Out* out,
                  int64_t out_pitch) const {
    constexpr int columns = kSquare;
    const int64_t step = channels;
    constexpr int lanes = kWidest<A>;
    for_blocks_of<lanes>(channels, [&](int64_t first) PYDL_INLINE_BODY {
      using V = Vec<A, lanes>;
      V weights[9], sums[rows][columns];
#pragma GCC unroll 16
      for (int t = 0; t < 9; ++t) weights[t] = load_vec<lanes>(taps[t] + first);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < columns; ++c) sums[r][c] = load_vec<lanes>(start + first);
      }
#pragma GCC unroll 8
      for (int row = 0; row < rows + 2; ++row) {
#pragma GCC unroll 8
        for (int column = 0; column < columns + 2; ++column) {
          const T* at = inside ? pixels[row * (columns + 2)] + column * step
                               : pixels[row * (columns + 2) + column];
          const V value = load_vec<lanes>(at + first);
          // The rows that the next block reads first.
          if (inside && row >= 2 && column >= 2) fetch(at + first + columns * step);
#pragma GCC unroll 4
          for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
            for (int c = 0; c < columns; ++c) {
              if (row - r >= 0 && row - r < 3 && column - c >= 0 && column - c < 3)
                sums[r][c] += value * weights[(row - r) * 3 + column - c];
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < columns; ++c)
          write_vec<lanes>(sums[r][c], out + r * out_pitch + c * step + first);
      }
    });
  }

  // `size` neighbouring pixels of all channels. Inside, taps[t] is what tap t reads for the first
  // of them, `step` apart from what it reads for the next; else taps[t * size + s] for pixel s.
  template <int size, bool inside>
  void sum_taps(const T* const* taps, const A* const* weights, int64_t count, int64_t step,
                const A* start, A* out, int64_t out_step) const {
    for_blocks<A>(channels * multiplier, [&]<int lanes>(int64_t first, Lanes<lanes>) {
      using V = Vec<A, lanes>;
      V sums[size];
#pragma GCC unroll 8
      for (int s = 0; s < size; ++s) sums[s] = load_vec<lanes>(start + first);
      for (int64_t t = 0; t < count; ++t) {
        const V w = load_vec<lanes>(weights[t] + first);
#pragma GCC unroll 8
        for (int s = 0; s < size; ++s) {
          const T* at = inside ? taps[t] + s * step : taps[t * size + s];
          sums[s] += load_vec<lanes>(at + first) * w;
        }
      }
#pragma GCC unroll 8
      for (int s = 0; s < size; ++s) store_vec<lanes>(sums[s], out + s * out_step + first);
    });
  }
};

}  // namespace pydl::cpu::PYDL_ISA
