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

// Sums of a square window over neighbouring rows of staged slices, `size` apart from one another.
template <class A>
struct SquareRows {
  const A* from;
  int64_t pitch, size, slots;
  const A* weights;
  A start;
  A* out;  // rows of `columns` one after another
  int64_t columns;

  void advance(int64_t rows) { from += rows * pitch, out += rows * columns; }

  template <int lanes, int kernel, int rows>
  PYDL_INLINE void sum() const {
    for_blocks_of<lanes>(columns, [=, *this](int64_t first) PYDL_INLINE_BODY {
      using V = Vec<A, lanes>;
      V sums[rows];
      for (V& sum : sums) sum = V{} + start;
      const A *slice = from + first, *of_slot = weights;
      for (int64_t slot = 0; slot < slots; ++slot, slice += size, of_slot += kernel * kernel) {
#pragma GCC unroll 8
        for (int row = 0; row < rows + kernel - 1; ++row) {
#pragma GCC unroll 8
          for (int tap = 0; tap < kernel; ++tap) {
            const V value = load_vec<lanes>(slice + row * pitch + tap);
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r) {
              if (row - r >= 0 && row - r < kernel)
                sums[r] += value * of_slot[(row - r) * kernel + tap];
            }
          }
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) store_vec<lanes>(sums[r], out + r * columns + first);
    });
  }
};

// Any number of rows, for a kernel of 3 or 5. Of the type that is summed in alone, so that halves
// need none of their own.
template <class A>
[[gnu::noinline]] void square_rows(SquareRows<A> square, int64_t kernel, int64_t rows) {
  with_lanes<A>(square.columns, [&]<int lanes>(Lanes<lanes>) {
    const auto of_kernel = [&]<int size>(Lanes<size>) {
      for (; rows >= 4; rows -= 4) square.template sum<lanes, size, 4>(), square.advance(4);
      for (; rows >= 2; rows -= 2) square.template sum<lanes, size, 2>(), square.advance(2);
      if (rows == 1) square.template sum<lanes, size, 1>();
    };
    kernel == 3 ? of_kernel(Lanes<3>{}) : of_kernel(Lanes<5>{});
  });
}

// out[i] = start + the sum of weights[t] * from[offsets[t] + i], for i up to `size` and on to a
// multiple of four vectors.
template <class A>
[[gnu::noinline]] void sum_taps(const A* from, const int64_t* offsets, const A* weights,
                                int64_t count, A start, A* out, int64_t size) {
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
    [[maybe_unused]] const bool plain =
        residual == nullptr && epilogue.activation == Activation::none;

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
            SquareRows<A> sums{staged,  staging.pitch, staging.size, sources * used,
                               weights, start,         flat,         columns};
            if constexpr (std::is_same_v<T, A>) {
              if (plain) {
                sums.out = out;
                square_rows(sums, wide.axis.kernel, count);
                continue;
              }
            }
            const T* out_add = add == nullptr ? nullptr : add + first * columns;
            for (int64_t row = 0; row < count; row += 4, sums.from += 4 * staging.pitch) {
              const int64_t offset = row * columns, rows = std::min<int64_t>(4, count - row);
              square_rows(sums, wide.axis.kernel, rows);
              finish_row(flat, out_add == nullptr ? nullptr : out_add + offset, out + offset,
                         rows * columns, epilogue);
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
