// Depthwise convolution of maps (N, C, D, H, W), forward and transposed alike: sums over taps of
// staged planes (depthwise.h).
//
// A task is a run of bands of rows of one plane. A 3x3 or 5x5 window of stride 1 takes four rows
// together, which share the rows they read: 4.5 loads and 9 multiply-adds for 16 outputs of a 3x3
// window. Any other window is a sum of displaced runs, as rows of a staged band are neighbours in
// memory: whole vectors however short the rows are. The order of the taps depends on the shape
// alone.
#pragma once

#include "depthwise.h"
#include "epilogue.h"
#include "parallel.h"

namespace pydl::cpu::PYDL_ISA {

// `depth` channels' filters belong to a plane of x: forward one source makes that many targets,
// transposed that many sources make one.
template <class T>
struct DepthwiseLines {
  using A = accumulate_t<T>;

  const T *source, *weight, *bias, *residual;  // bias, residual: nullptr where there is none
  T* target;
  Epilogue epilogue;
  ConvAxis depth;
  Staging staging;
  int64_t batch, channels, multiplier, taps;

  // A tap of a class: which of a plane's weights, and where it reads a staged slice.
  struct Tap {
    int64_t number, offset;
  };

  void run(int64_t threads) const {
    const StagedAxis &high = staging.height, &wide = staging.width;
    const bool transposed = depth.transposed;
    const int64_t sources = transposed ? multiplier : 1, targets = transposed ? 1 : multiplier;
    const int64_t source_slice = high.axis.sources * wide.axis.sources,
                  target_slice = high.axis.targets * wide.axis.targets;
    const int64_t bands = staging.bands(), classes = high.residues * wide.residues;
    const int64_t plane_taps = high.axis.kernel * wide.axis.kernel;
    std::vector<std::vector<Tap>> taps_of_class(classes);
    for (int64_t h = 0; h < high.residues; ++h) {
      for (int64_t w = 0; w < wide.residues; ++w) {
        for (const StagedTap& tap_h : high.taps(h)) {
          for (const StagedTap& tap_w : wide.taps(w)) {
            taps_of_class[h * wide.residues + w].push_back(
                {tap_h.number * wide.axis.kernel + tap_w.number, staging.offset(tap_h, tap_w)});
          }
        }
      }
    }
    // Transposed, the taps of one class are in the reverse order of their memory.
    const bool square = classes == 1 && high.parts * wide.parts == 1 && high.axis.dilation == 1 &&
                        wide.axis.dilation == 1 && high.axis.kernel == wide.axis.kernel &&
                        (high.axis.kernel == 3 || high.axis.kernel == 5) && wide.places >= 8;
    const bool plain = residual == nullptr && epilogue.activation == Activation::none;

    const int64_t slots = depth.kernel * sources;
    const int64_t group = std::clamp<int64_t>(1024 / staging.pitch, 1, staging.rows);
    const int64_t flat_size = whole_blocks(std::max(group * staging.pitch, 4 * wide.axis.targets)) +
                              4 * kLanes,
                  line_size = whole_blocks(wide.places * wide.residues) + 2 * kLanes;
    const int64_t items = batch * channels * depth.targets * bands;
    const int64_t elements = batch * channels * multiplier *
                             std::max(depth.sources * source_slice, depth.targets * target_slice);
    const int64_t team = team_size(items, elements, threads);
    const Scratch<A> memory(
        team, slots * staging.size + wide.residues * flat_size + line_size + slots * plane_taps);
    const Scratch<int64_t> offset_memory(team, slots * plane_taps);
    share_out(items, team, [&](int64_t member, int64_t begin, int64_t end) {
      A* staged = memory.of(member);
      A* flat = staged + slots * staging.size;
      A* line = flat + wide.residues * flat_size;
      A* weights = line + line_size;
      int64_t* offsets = offset_memory.of(member);
      std::fill_n(staged, slots * staging.size, A{0});
      std::vector<ConvAxis::Link> links;
      for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item % bands * staging.rows,
                      count = std::min(staging.rows, high.places - first);
        const int64_t d = item / bands % depth.targets, plane = item / bands / depth.targets,
                      channel = plane % channels;
        depth.links(d, links);
        const int64_t used = static_cast<int64_t>(links.size());
        for (int64_t s = 0; s < sources; ++s) {
          for (int64_t l = 0; l < used; ++l) {
            const int64_t slice = (plane * sources + s) * depth.sources + links[l].source;
            staging.stage(source + slice * source_slice, first, count,
                          staged + (s * used + l) * staging.size);
          }
        }
        for (int64_t t = 0; t < targets; ++t) {
          const int64_t slice = ((plane * targets + t) * depth.targets + d) * target_slice;
          T* to = target + slice;
          const T* add = residual == nullptr ? nullptr : residual + slice;
          const A start = bias == nullptr ? A{0} : static_cast<A>(bias[channel * targets + t]);
          // The weights of a class, in the order of the taps.
          const auto gather = [&](const std::vector<Tap>& of_class) {
            int64_t n = 0;
            for (int64_t s = 0; s < sources; ++s) {
              const T* filter = weight + ((channel * multiplier) + (transposed ? s : t)) * taps;
              for (int64_t l = 0; l < used; ++l) {
                for (const Tap& tap : of_class) {
                  weights[n] = static_cast<A>(filter[links[l].tap * plane_taps + tap.number]);
                  offsets[n++] = (s * used + l) * staging.size + tap.offset;
                }
              }
            }
            return n;
          };
          if (square) {
            gather(taps_of_class[0]);
            if (transposed) {
              for (int64_t s = 0; s < sources * used; ++s)
                std::reverse(weights + s * plane_taps, weights + (s + 1) * plane_taps);
            }
            const int64_t columns = wide.axis.targets;
            T* out = to + first * columns;
            if (plain) {
              sum_square(staged, sources * used, weights, start, count, out, columns,
                         [](int64_t, int64_t) {});
            } else {
              const T* out_add = add == nullptr ? nullptr : add + first * columns;
              sum_square(staged, sources * used, weights, start, count, flat, 0,
                         [=, this](int64_t row, int64_t rows) {
                           const int64_t offset = row * columns;
                           finish_row(flat, out_add == nullptr ? nullptr : out_add + offset,
                                      out + offset, rows * columns, epilogue);
                         });
            }
            continue;
          }
          for (int64_t h = 0; h < high.residues; ++h) {
            for (int64_t row = 0; row < count; row += group) {
              const int64_t rows = std::min(group, count - row);
              for (int64_t w = 0; w < wide.residues; ++w) {
                const int64_t n = gather(taps_of_class[h * wide.residues + w]);
                sum_taps(staged + row * staging.pitch, offsets, weights, n, start,
                         flat + w * flat_size, (rows - 1) * staging.pitch + wide.places);
              }
              for (int64_t r = 0; r < rows; ++r) {
                const int64_t at = high.axis.target(first + row + r, h);
                if (at < 0 || at >= high.axis.targets) continue;
                const A* from = flat + r * staging.pitch;
                if (wide.residues > 1) {
                  join(from, flat_size, line);
                  from = line + wide.axis.padding - wide.axis.first_place() * wide.axis.stride;
                }
                const int64_t offset = at * wide.axis.targets;
                finish_row(from, add == nullptr ? nullptr : add + offset, to + offset,
                           wide.axis.targets, epilogue);
              }
            }
          }
        }
      }
    });
  }

 private:
  // out[i] = start + the sum of weights[t] * from[offsets[t] + i], for i up to `size` and on to a
  // multiple of four vectors.
  static void sum_taps(const A* from, const int64_t* offsets, const A* weights, int64_t count,
                       A start, A* out, int64_t size) {
    constexpr int lanes = kWidest<A>;
    using V = Vec<A, lanes>;
    with_count<A, 9>(count, [=]<int fixed>(Lanes<fixed>) {
      for (int64_t i = 0; i < size; i += 4 * lanes) {
        V a = V{} + start, b = a, c = a, d = a;
        for (int64_t t = 0; t < (fixed ? fixed : count); ++t) {
          const A* at = from + offsets[t] + i;
          const V w = V{} + weights[t];
          a += load_vec<lanes>(at) * w;
          b += load_vec<lanes>(at + lanes) * w;
          c += load_vec<lanes>(at + 2 * lanes) * w;
          d += load_vec<lanes>(at + 3 * lanes) * w;
        }
        store_vec<lanes>(a, out + i);
        store_vec<lanes>(b, out + i + lanes);
        store_vec<lanes>(c, out + i + 2 * lanes);
        store_vec<lanes>(d, out + i + 3 * lanes);
      }
    });
  }

  // Rows of a 3x3 or 5x5 window of stride 1, four at a time, which share the rows they read. Row r
  // goes to out + r * out_pitch, or, where that is 0, to the place of its group; done(row, rows) is
  // called for each group.
  template <class Out, class Done>
  void sum_square(const A* from, int64_t slots, const A* weights, A start, int64_t count, Out* out,
                  int64_t out_pitch, Done done) const {
    const int64_t columns = staging.width.axis.targets;
    with_lanes<A>(columns, [&]<int lanes>(Lanes<lanes>) {
      const auto rows_of = [&]<int size>(Lanes<size>) {
        const auto group = [&]<int rows>(int64_t row, Lanes<rows>) {
          const A* group_from = from + row * staging.pitch;
          Out* group_out = out + row * out_pitch;
          for_blocks_of<lanes>(columns, [&](int64_t first) PYDL_INLINE_BODY {
            square_block<lanes, size, rows>(group_from + first, slots, weights, start,
                                            group_out + first, columns);
          });
          done(row, rows);
        };
        int64_t row = 0;
        for (; row + 4 <= count; row += 4) group(row, Lanes<4>{});
        for (; row + 2 <= count; row += 2) group(row, Lanes<2>{});
        for (; row < count; ++row) group(row, Lanes<1>{});
      };
      staging.height.axis.kernel == 3 ? rows_of(Lanes<3>{}) : rows_of(Lanes<5>{});
    });
  }

  template <int lanes, int size, int at_once, class Out>
  PYDL_INLINE void square_block(const A* from, int64_t slots, const A* weights, A start, Out* out,
                                int64_t columns) const {
    using V = Vec<A, lanes>;
    V sums[at_once];
    for (V& sum : sums) sum = V{} + start;
    for (int64_t slot = 0; slot < slots; ++slot) {
#pragma GCC unroll 8
      for (int row = 0; row < at_once + size - 1; ++row) {
#pragma GCC unroll 8
        for (int tap = 0; tap < size; ++tap) {
          const V value = load_vec<lanes>(from + row * staging.pitch + tap);
#pragma GCC unroll 8
          for (int r = 0; r < at_once; ++r) {
            if (row - r >= 0 && row - r < size) sums[r] += value * weights[(row - r) * size + tap];
          }
        }
      }
      from += staging.size, weights += size * size;
    }
#pragma GCC unroll 8
    for (int r = 0; r < at_once; ++r) store_vec<lanes>(sums[r], out + r * columns);
  }

  // Line of all residues from their results, `apart` one another.
  void join(const A* from, int64_t apart, A* line) const {
    const int64_t step = staging.width.residues, places = staging.width.places;
    if (step == 2) {
      const A* odd = from + apart;
      for_whole_blocks<A>(places, [=]<int lanes>(int64_t first, Lanes<lanes>) {
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          line[2 * (first + lane)] = from[first + lane];
          line[2 * (first + lane) + 1] = odd[first + lane];
        }
      });
      return;
    }
    for (int64_t residue = 0; residue < step; ++residue) {
      for (int64_t i = 0; i < places; ++i) line[i * step + residue] = from[residue * apart + i];
    }
  }
};

}  // namespace pydl::cpu::PYDL_ISA
