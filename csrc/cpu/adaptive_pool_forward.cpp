// Adaptive and pyramid pooling, forward (definitions in ../pool_adaptive.h).
//
// Channels last: a task is an image's block of channels, or with one level a line of bins; the
// pixels of a bin are folded in vectors of channels. N, C, D, H, W: as many planes as a vector has
// lanes are turned into pixels, folded in the same way, and their bins turned back; a plane's rows
// are too short for vectors along them. For planes too large for that, the rows of a line of bins
// are folded column by column, in vectors, and the columns of each bin from there. Either way all
// levels of a pyramid read a map from memory once.
//
// Maxima with an index: a column keeps its best value and the row it is in; columns are compared by
// value, then by row, then by column, which is the scan order of the bin.
//
// Bytes: x read once, y (and index) written once. Operations: an addition or comparison per element
// and level, in vectors; for planes also one shuffle or more per four elements, to turn them.
#include "../pool_adaptive.h"
#include "bins.h"
#include "maxima.h"
#include "plane_tiles.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// N, C, D, H, W: large planes

// The columns of `rows`, folded: sums, or maxima and (with codes) the number of the row they are
// in.
template <bool maximum, bool coded, class T>
PYDL_INLINE void fold_columns(const T* const* rows, int64_t count, int64_t size,
                              accumulate_t<T>* out, Code<accumulate_t<T>>* codes) {
  using A = accumulate_t<T>;
  for_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    A folded[lanes], value[lanes];
    Code<A> code[lanes] = {};
    load<lanes>(rows[0] + first, folded);
    for (int64_t row = 1; row < count; ++row) {
      load<lanes>(rows[row] + first, value);
      if constexpr (maximum) {
        const Code<A> name = static_cast<Code<A>>(row);
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          const bool take = beats(value[lane], folded[lane]);
          folded[lane] = take ? value[lane] : folded[lane];
          if constexpr (coded) code[lane] = take ? name : code[lane];
        }
      } else {
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) folded[lane] += value[lane];
      }
    }
    store<lanes>(folded, out + first);
    if constexpr (coded) {
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) codes[first + lane] = code[lane];
    }
  });
}

template <class A>
PYDL_INLINE A sum_of(const A* from, int64_t size) {
  if (size < 8) {
    A sum = from[0];
    for (int64_t i = 1; i < size; ++i) sum += from[i];
    return sum;
  }
  A sums[4] = {from[0], from[1], from[2], from[3]};
  int64_t i = 4;
  for (; i + 4 <= size; i += 4) {
    for (int lane = 0; lane < 4; ++lane) sums[lane] += from[i + lane];
  }
  for (; i < size; ++i) sums[0] += from[i];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

template <class T, class Index, bool maximum>
void pool_planes(const AdaptivePoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr bool coded = !std::is_same_v<Index, NoIndex>;
  using Kept = std::conditional_t<coded, Index, uint8_t>;
  const BinLevels pyramid(args.x, args.levels, args.pyramid, /*channels_last=*/false);
  std::vector<BinCode<Kept>> codings(pyramid.levels.begin(), pyramid.levels.end());
  const int64_t channels = args.x.size[1], depth = args.x.size[2], height = args.x.size[3],
                width = args.x.size[4], planes = args.x.size[0] * channels;
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  [[maybe_unused]] Kept* index = static_cast<Kept*>(args.index.data);

  const int64_t team = team_size(planes, args.x.numel(), threads);
  const Scratch<A> memory(team, width);
  const Scratch<Code<A>> code_memory(team, width);
  const Scratch<const T*> row_memory(team, depth * height);
  const Scratch<int64_t> row_code_memory(team, depth * height);
  share_out(planes, team, [&](int64_t member, int64_t first, int64_t last) {
    A* columns = memory.of(member);
    Code<A>* codes = code_memory.of(member);
    const T** rows = row_memory.of(member);
    [[maybe_unused]] int64_t* row_codes = row_code_memory.of(member);  // of a row's first element
    for (int64_t plane = first; plane < last; ++plane) {
      const T* from = x + plane * depth * height * width;
      for (size_t l = 0; l < pyramid.levels.size(); ++l) {
        const BinLevel& level = pyramid.levels[l];
        const int64_t to =
            level.offset + plane / channels * level.of_image + plane % channels * level.of_channel;
        T* out = y + to;
        [[maybe_unused]] Kept* taken = coded ? index + to : nullptr;
        for (const Run& d : level.depth.bins) {
          for (const Run& h : level.height.bins) {
            int64_t count = 0;
            for (int64_t at = d.first; at < d.last; ++at) {
              for (int64_t row = h.first; row < h.last; ++row, ++count) {
                rows[count] = from + (at * height + row) * width;
                if constexpr (coded) {
                  const int64_t origin = codings[l].origin(d, h, {0, 0});
                  row_codes[count] = codings[l].write(origin, at - d.first, row - h.first, 0);
                }
              }
            }
            fold_columns<maximum, coded>(rows, count, width, columns, codes);
            for (const Run& w : level.width.bins) {
              if constexpr (!maximum) {
                *out++ = static_cast<T>(sum_of(columns + w.first, w.size()) /
                                        static_cast<A>(count * w.size()));
                continue;
              }
              // Without branches, which maxima would mispredict every other time.
              if constexpr (!coded) {
                A best = columns[w.first];
                bool nan = false;
                for (int64_t i = w.first + 1; i < w.last; ++i) {
                  best = columns[i] > best ? columns[i] : best;
                  nan |= columns[i] != columns[i];
                }
                *out++ = static_cast<T>(nan ? std::numeric_limits<A>::quiet_NaN() : best);
                continue;
              }
              int64_t chosen = w.first;
              for (int64_t i = w.first + 1; i < w.last; ++i) {
                const A value = columns[i], best = columns[chosen];
                const bool greater = value > best,
                           tie = (value == best) & (codes[i] < codes[chosen]),
                           nan = (value != value) & ((best == best) | (codes[i] >= codes[chosen]));
                chosen = greater | tie | nan ? i : chosen;
              }
              *out++ = static_cast<T>(columns[chosen]);
              if constexpr (coded) {
                const int64_t column = std::is_same_v<Index, uint8_t> ? chosen - w.first : chosen;
                *taken++ = static_cast<Kept>(row_codes[codes[chosen]] + column);
              }
            }
          }
        }
      }
    }
  });
}

// Channels last

// The bin (d, h, w) of an image in `vecs` vectors of channels. Every row of the bin is folded on
// its own, so that a sum over many pixels rounds no more than a plane's does.
template <int vecs, int lanes, bool maximum, class T>
PYDL_INLINE void fold_pixels(const T* image, int64_t height, int64_t width, int64_t channels,
                             const Run& d, const Run& h, const Run& w, accumulate_t<T>* out) {
  using A = accumulate_t<T>;
  Vec<A, lanes> total[vecs];
  for (int v = 0; v < vecs; ++v) total[v] = Vec<A, lanes>{} + (maximum ? kLowest<A> : A{0});
  for (int64_t at = d.first; at < d.last; ++at) {
    for (int64_t row = h.first; row < h.last; ++row) {
      const T* from = image + ((at * height + row) * width + w.first) * channels;
      Vec<A, lanes> sums[vecs] = {};
      for (int64_t i = 0; i < w.size(); ++i, from += channels) {
        for (int v = 0; v < vecs; ++v) {
          const Vec<A, lanes> value = load_vec<lanes>(from + v * lanes);
          if constexpr (maximum) {
            total[v] = (value > total[v]) | (value != value) ? value : total[v];
          } else {
            sums[v] += value;
          }
        }
      }
      if constexpr (!maximum) {
        for (int v = 0; v < vecs; ++v) total[v] += sums[v];
      }
    }
  }
  for (int v = 0; v < vecs; ++v) std::memcpy(out + v * lanes, &total[v], sizeof(total[v]));
}

template <int lanes, class T, class Index>
PYDL_INLINE void choose_pixels(const T* image, int64_t height, int64_t width, int64_t channels,
                               const Run& d, const Run& h, const Run& w, accumulate_t<T>* out,
                               Code<accumulate_t<T>>* codes, const BinCode<Index>& coding) {
  using A = accumulate_t<T>;
  A best[lanes], value[lanes];
  Code<A> code[lanes];
  PYDL_LANES
  for (int lane = 0; lane < lanes; ++lane) {
    best[lane] = kLowest<A>;
    code[lane] = static_cast<Code<A>>(coding.write(coding.origin(d, h, w), 0, 0, 0));
  }
  for (int64_t at = d.first; at < d.last; ++at) {
    for (int64_t row = h.first; row < h.last; ++row) {
      const T* from = image + ((at * height + row) * width + w.first) * channels;
      Code<A> name = static_cast<Code<A>>(
          coding.write(coding.origin(d, h, w), at - d.first, row - h.first, 0));
      for (int64_t i = 0; i < w.size(); ++i, from += channels, ++name) {
        load<lanes>(from, value);
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          const bool take = beats(value[lane], best[lane]);
          best[lane] = take ? value[lane] : best[lane];
          code[lane] = take ? name : code[lane];
        }
      }
    }
  }
  PYDL_LANES
  for (int lane = 0; lane < lanes; ++lane) {
    out[lane] = best[lane];
    codes[lane] = code[lane];
  }
}

template <class T, class Index, bool maximum>
void pool_pixels(const AdaptivePoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr bool coded = !std::is_same_v<Index, NoIndex>;
  using Kept = std::conditional_t<coded, Index, uint8_t>;
  const BinLevels pyramid(args.x, args.levels, args.pyramid, /*channels_last=*/true);
  std::vector<BinCode<Kept>> codings(pyramid.levels.begin(), pyramid.levels.end());
  const int64_t channels = args.x.size[1], height = args.x.size[3], width = args.x.size[4],
                pixels = args.x.size[2] * height * width;
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  [[maybe_unused]] Kept* index = static_cast<Kept*>(args.index.data);

  const bool one_level = pyramid.levels.size() == 1;
  const int64_t block = channel_block(channels, pixels, sizeof(T), one_level);
  // With one level a task is a line of bins, else a block of channels.
  const int64_t shares =
      one_level ? args.levels[0][0] * args.levels[0][1] : (channels + block - 1) / block;
  const int64_t tasks = args.x.size[0] * shares;
  const int64_t team = team_size(tasks, args.x.numel(), threads);
  const Scratch<A> memory(team, block);
  const Scratch<Code<A>> code_memory(team, block);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A* folded = memory.of(member);
    Code<A>* codes = code_memory.of(member);
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / shares, share = task % shares;
      const int64_t c = one_level ? 0 : share * block, size = std::min(block, channels - c);
      const T* image = x + n * pixels * channels + c;
      for (size_t l = 0; l < pyramid.levels.size(); ++l) {
        const BinLevel& level = pyramid.levels[l];
        const auto pool = [&](int64_t number, const Run& d, const Run& h, const Run& w) {
          if constexpr (coded) {
            for_blocks<A>(size, [=]<int lanes>(int64_t at, Lanes<lanes>) {
              choose_pixels<lanes>(image + at, height, width, channels, d, h, w, folded + at,
                                   codes + at, codings[l]);
            });
          } else {
            with_lanes<A>(size, [&]<int lanes>(Lanes<lanes>) {
              int64_t at = 0;
              for (; at + 4 * lanes <= size; at += 4 * lanes)
                fold_pixels<4, lanes, maximum>(image + at, height, width, channels, d, h, w,
                                               folded + at);
              for (; at < size; at += lanes) {
                at = std::min<int64_t>(at, size - lanes);
                fold_pixels<1, lanes, maximum>(image + at, height, width, channels, d, h, w,
                                               folded + at);
              }
            });
          }
          const int64_t taps = d.size() * h.size() * w.size();
          const int64_t step = level.of_channel,
                        to = level.offset + n * level.of_image + c * step + number * level.of_bin;
          if (!maximum) {
            const A by = static_cast<A>(taps);
            for_vectors_once<A>(size, [=]<int lanes>(int64_t at, Lanes<lanes>) {
              PYDL_LANES
              for (int lane = 0; lane < lanes; ++lane) folded[at + lane] /= by;
            });
          }
          if (step == 1) {
            store_row(folded, y + to, size);
          } else {
            for (int64_t i = 0; i < size; ++i) y[to + i * step] = static_cast<T>(folded[i]);
          }
          if constexpr (coded) {
            for (int64_t i = 0; i < size; ++i) index[to + i * step] = static_cast<Kept>(codes[i]);
          }
        };
        if (one_level) {
          const int64_t lines = args.levels[0][1], outputs = args.levels[0][2];
          const Run &d = level.depth.bins[share / lines], &h = level.height.bins[share % lines];
          for (int64_t o = 0; o < outputs; ++o)
            pool(share * outputs + o, d, h, level.width.bins[o]);
        } else {
          level.for_bins(pool);
        }
      }
    }
  });
}

// N, C, D, H, W: tiles of planes

template <int lanes, class T, class Index, bool maximum>
void pool_tiles(const AdaptivePoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr bool coded = !std::is_same_v<Index, NoIndex>;
  using Kept = std::conditional_t<coded, Index, uint8_t>;
  const BinLevels pyramid(args.x, args.levels, args.pyramid, /*channels_last=*/false);
  const std::vector<BinCode<Kept>> codings(pyramid.levels.begin(), pyramid.levels.end());
  const auto [images, channels, pixels] = PlaneGroups(args.x, args.pyramid);
  const int64_t height = args.x.size[3], width = args.x.size[4];
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  [[maybe_unused]] Kept* index = static_cast<Kept*>(args.index.data);

  const PlaneTiles<lanes, A> tiles(images, channels, pixels, pyramid.bins, threads);
  const Scratch<Code<A>> chosen(tiles.team(), coded ? pyramid.bins * lanes : 0);
  // For lanes that have no plane.
  const auto begin = [&](const auto& tile) { std::fill_n(tile.pixels, pixels * lanes, A{0}); };
  tiles.run(begin, [&](const auto& tile) {
    const auto [n, c, plane, planes, member, map, result, row] = tile;
    [[maybe_unused]] Code<A>* codes = chosen.of(member);
    turn_wide(x + plane * pixels, pixels, planes, pixels, map, lanes, row);
    for (size_t l = 0; l < pyramid.levels.size(); ++l) {
      const BinLevel& level = pyramid.levels[l];
      level.for_bins([&](int64_t number, const Run& d, const Run& h, const Run& w) {
        A* out = result + number * lanes;
        if constexpr (coded) {
          choose_pixels<lanes>(map, height, width, lanes, d, h, w, out, codes + number * lanes,
                               codings[l]);
        } else {
          fold_pixels<1, lanes, maximum>(map, height, width, lanes, d, h, w, out);
        }
        if constexpr (!maximum) {
          const A taps = static_cast<A>(d.size() * h.size() * w.size());
          store_vec<lanes>(load_vec<lanes>(static_cast<const A*>(out)) / taps, out);
        }
      });
      const int64_t bins = level.count(),
                    to = level.offset + n * level.of_image + c * level.of_channel;
      turn_narrow(result, lanes, bins, planes, y + to, bins, row);
      if constexpr (coded) {
        for (int64_t lane = 0; lane < planes; ++lane) {
          for (int64_t bin = 0; bin < bins; ++bin)
            index[to + lane * bins + bin] = static_cast<Kept>(codes[bin * lanes + lane]);
        }
      }
    }
  });
}

template <class T, class Index, bool maximum>
void pool(const AdaptivePoolForward& args, bool channels_last, int64_t threads) {
  constexpr int lanes = kWidest<accumulate_t<T>>;
  if (channels_last) return pool_pixels<T, Index, maximum>(args, threads);
  if (tiles_suit(args.x, args.levels, args.pyramid, lanes, sizeof(accumulate_t<T>)))
    return pool_tiles<lanes, T, Index, maximum>(args, threads);
  pool_planes<T, Index, maximum>(args, threads);
}

}  // namespace

void adaptive_pool_forward(const AdaptivePoolForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "adaptive_pool", [&]<class T>(T) {
    if (!args.maximum) return pool<T, NoIndex, false>(args, channels_last, threads);
    if (args.index.data == nullptr) return pool<T, NoIndex, true>(args, channels_last, threads);
    args.index.dtype == DType::uint8 ? pool<T, uint8_t, true>(args, channels_last, threads)
                                     : pool<T, int64_t, true>(args, channels_last, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
