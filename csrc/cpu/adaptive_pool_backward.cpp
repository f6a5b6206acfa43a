// Adaptive and pyramid pooling, backward (definitions in ../pool_adaptive.h):
//
//   grad_x[i] = sum over the levels and their bins o that hold i of
//               grad_y[o] / elements of o                    (average)
//               grad_y[o] where o chose i, else 0            (maximum)
//
// Channels last: a task is an image's block of channels; its bins' shares are laid out by bin, and
// a pixel is the sum of the rows of the bins that hold it, for maxima under a comparison of their
// positions with its own. N, C, D, H, W: the same with the bins of as many planes as a vector has
// lanes turned into rows, and their pixels turned back. For planes too large for that, averages:
// each line of bins is divided and spread over the columns once, and a row of the input is the sum
// of the few spread lines above it; maxima: a plane's bins add to the elements they chose, in scan
// order, and its memory is written once.
//
// Bytes: grad_y (and index) read and grad_x written once.
#include "../pool_adaptive.h"
#include "bins.h"
#include "maxima.h"
#include "plane_tiles.h"
#include "pool_window.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// N, C, D, H, W: large planes

template <class T>
void avg_planes(const AdaptivePoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const BinLevels pyramid(args.grad_x, args.levels, args.pyramid, /*channels_last=*/false);
  const int64_t channels = args.grad_x.size[1], depth = args.grad_x.size[2],
                height = args.grad_x.size[3], width = args.grad_x.size[4],
                planes = args.grad_x.size[0] * channels;
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  std::vector<int64_t> first_line;  // of each level, of all the lines of bins
  int64_t lines = 0, most = 0;      // and how many of them hold a row of the input, at most
  for (const BinLevel& level : pyramid.levels) {
    first_line.push_back(lines);
    lines += static_cast<int64_t>(level.depth.bins.size() * level.height.bins.size());
    int64_t most_d = 0, most_h = 0;
    for (const Run& d : level.depth.over) most_d = std::max(most_d, d.size());
    for (const Run& h : level.height.over) most_h = std::max(most_h, h.size());
    most += most_d * most_h;
  }
  const int64_t team = team_size(planes, args.grad_x.numel(), threads);
  const Scratch<A> memory(team, lines * width);
  const Scratch<const A*> row_memory(team, most);
  share_out(planes, team, [&](int64_t member, int64_t first, int64_t last) {
    A* spread = memory.of(member);
    const A** rows = row_memory.of(member);
    for (int64_t plane = first; plane < last; ++plane) {
      A* to = spread;
      for (const BinLevel& level : pyramid.levels) {
        const T* from = grad_y + level.offset + plane / channels * level.of_image +
                        plane % channels * level.of_channel;
        for (const Run& d : level.depth.bins) {
          for (const Run& h : level.height.bins) {
            const int64_t taps = d.size() * h.size();
            int64_t done = 0;  // columns that a bin has been spread over
            for (const Run& w : level.width.bins) {
              const A share = static_cast<A>(*from++) / static_cast<A>(taps * w.size());
              int64_t i = w.first;
              for (; i < done; ++i) to[i] += share;
              for (; i < w.last; ++i) to[i] = share;
              done = w.last;
            }
            to += width;
          }
        }
      }
      T* out = grad_x + plane * depth * height * width;
      for (int64_t d = 0; d < depth; ++d) {
        for (int64_t h = 0; h < height; ++h, out += width) {
          int64_t count = 0;
          for (size_t l = 0; l < pyramid.levels.size(); ++l) {
            const BinLevel& level = pyramid.levels[l];
            const Run &over_d = level.depth.over[d], &over_h = level.height.over[h];
            const int64_t heights = static_cast<int64_t>(level.height.bins.size());
            for (int64_t od = over_d.first; od < over_d.last; ++od) {
              for (int64_t oh = over_h.first; oh < over_h.last; ++oh)
                rows[count++] = spread + (first_line[l] + od * heights + oh) * width;
            }
          }
          fold_rows<Sum>(rows, count, out, width, Unchanged{});
        }
      }
    }
  });
}

template <class T, class Index>
void max_planes(const AdaptivePoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const BinLevels pyramid(args.grad_x, args.levels, args.pyramid, /*channels_last=*/false);
  const std::vector<BinCode<Index>> codings(pyramid.levels.begin(), pyramid.levels.end());
  const int64_t channels = args.grad_x.size[1], planes = args.grad_x.size[0] * channels,
                size = args.grad_x.size[2] * args.grad_x.size[3] * args.grad_x.size[4];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  const Index* index = static_cast<const Index*>(args.index.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  std::vector<int64_t> origins;
  for (size_t l = 0; l < pyramid.levels.size(); ++l) {
    pyramid.levels[l].for_bins([&](int64_t, const Run& d, const Run& h, const Run& w) {
      origins.push_back(codings[l].origin(d, h, w));
    });
  }

  constexpr bool in_place = std::is_same_v<T, A>;
  const int64_t team = team_size(planes, args.grad_x.numel(), threads);
  const Scratch<A> memory(team, in_place ? 0 : size);
  share_out(planes, team, [&](int64_t member, int64_t first, int64_t last) {
    for (int64_t plane = first; plane < last; ++plane) {
      A* sums;
      if constexpr (in_place) {
        sums = grad_x + plane * size;
      } else {
        sums = memory.of(member);
      }
      std::fill_n(sums, size, A{0});
      for (size_t l = 0; l < pyramid.levels.size(); ++l) {
        const BinLevel& level = pyramid.levels[l];
        const int64_t from =
            level.offset + plane / channels * level.of_image + plane % channels * level.of_channel;
        const int64_t count = level.count();
        for (int64_t bin = 0; bin < count; ++bin) {
          const int64_t at = codings[l].read(index[from + bin], origins[level.first + bin]);
          if (static_cast<uint64_t>(at) < static_cast<uint64_t>(size))
            sums[at] += static_cast<A>(grad_y[from + bin]);
        }
      }
      if constexpr (!in_place) store_row(sums, grad_x + plane * size, size);
    }
  });
}

// Channels last

// The sum of the rows of shares whose position is `mine`.
template <class A, class T>
PYDL_INLINE void add_chosen(const A* const* rows, const Code<A>* const* positions, int64_t count,
                            Code<A> mine, T* out, int64_t size) {
  for_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    A sum[lanes] = {};
    for (int64_t row = 0; row < count; ++row) {
      const A* share = rows[row] + first;
      const Code<A>* position = positions[row] + first;
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane)
        sum[lane] += position[lane] == mine ? share[lane] : A{0};
    }
    store<lanes>(sum, out + first);
  });
}

// Index: NoIndex for averages.
template <class T, class Index>
void pool_pixels(const AdaptivePoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr bool maximum = !std::is_same_v<Index, NoIndex>;
  using Kept = std::conditional_t<maximum, Index, uint8_t>;
  const BinLevels pyramid(args.grad_x, args.levels, args.pyramid, /*channels_last=*/true);
  const std::vector<BinCode<Kept>> codings(pyramid.levels.begin(), pyramid.levels.end());
  const int64_t channels = args.grad_x.size[1], depth = args.grad_x.size[2],
                height = args.grad_x.size[3], width = args.grad_x.size[4],
                pixels = depth * height * width, images = args.grad_x.size[0];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  [[maybe_unused]] const Kept* index = static_cast<const Kept*>(args.index.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  const BinsOfPixels over(pyramid);
  // Blocks of channels whose shares stay in the second-level cache.
  const int64_t block = channel_block(channels, pyramid.bins, 2 * sizeof(A), /*one_level=*/false);
  const int64_t shares = (channels + block - 1) / block, tasks = images * shares;
  const int64_t team = team_size(tasks, args.grad_x.numel(), threads);
  const Scratch<A> memory(team, pyramid.bins * block);
  const Scratch<Code<A>> position_memory(team, maximum ? pyramid.bins * block : 0);
  const Scratch<const A*> row_memory(team, over.most);
  const Scratch<const Code<A>*> place_memory(team, over.most);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A* held = memory.of(member);
    Code<A>* positions = position_memory.of(member);
    const A** rows = row_memory.of(member);
    const Code<A>** places = place_memory.of(member);
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / shares, c = task % shares * block,
                    size = std::min(block, channels - c);
      for (size_t l = 0; l < pyramid.levels.size(); ++l) {
        const BinLevel& level = pyramid.levels[l];
        level.for_bins([&](int64_t number, const Run& d, const Run& h, const Run& w) {
          const int64_t from =
              level.offset + n * level.of_image + c * level.of_channel + number * level.of_bin;
          const A by = maximum ? A{1} : static_cast<A>(d.size() * h.size() * w.size());
          A* to = held + (level.first + number) * block;
          if (level.of_channel == 1) {
            const T* row = grad_y + from;
            fold_rows<Sum>(&row, 1, to, size, [=](A value, int64_t) { return value / by; });
          } else {
            for (int64_t i = 0; i < size; ++i)
              to[i] = static_cast<A>(grad_y[from + i * level.of_channel]) / by;
          }
          if constexpr (maximum) {
            const int64_t origin = codings[l].origin(d, h, w);
            Code<A>* chosen = positions + (level.first + number) * block;
            for (int64_t i = 0; i < size; ++i) {
              chosen[i] =
                  static_cast<Code<A>>(codings[l].read(index[from + i * level.of_channel], origin));
            }
          }
        });
      }
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const int64_t count = over.count(pixel);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t bin = over.of(pixel)[i];
          rows[i] = held + bin * block;
          if constexpr (maximum) places[i] = positions + bin * block;
        }
        T* out = grad_x + (n * pixels + pixel) * channels + c;
        if constexpr (maximum) {
          add_chosen(rows, places, count, static_cast<Code<A>>(pixel), out, size);
        } else {
          fold_rows<Sum>(rows, count, out, size, Unchanged{});
        }
      }
    }
  });
}

// N, C, D, H, W: tiles of planes

template <int lanes, class T, class Index>
void pool_tiles(const AdaptivePoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  using V = Vec<A, lanes>;
  using P = Vec<Code<A>, lanes>;
  constexpr bool maximum = !std::is_same_v<Index, NoIndex>;
  using Kept = std::conditional_t<maximum, Index, uint8_t>;
  const BinLevels pyramid(args.grad_x, args.levels, args.pyramid, /*channels_last=*/false);
  const std::vector<BinCode<Kept>> codings(pyramid.levels.begin(), pyramid.levels.end());
  const auto [images, channels, pixels] = PlaneGroups(args.grad_x, args.pyramid);
  const BinsOfPixels over(pyramid);
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  [[maybe_unused]] const Kept* index = static_cast<const Kept*>(args.index.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  const PlaneTiles<lanes, A> tiles(images, channels, pixels, pyramid.bins, threads);
  const Scratch<Code<A>> chosen(tiles.team(), maximum ? pyramid.bins * lanes : 0);
  // For lanes that have no plane.
  const auto begin = [&](const auto& tile) {
    std::fill_n(tile.bins, pyramid.bins * lanes, A{0});
    if constexpr (maximum) std::fill_n(chosen.of(tile.member), pyramid.bins * lanes, Code<A>{0});
  };
  tiles.run(begin, [&](const auto& tile) {
    const auto [n, c, plane, planes, member, map, held, row] = tile;
    [[maybe_unused]] Code<A>* positions = chosen.of(member);
    for (size_t l = 0; l < pyramid.levels.size(); ++l) {
      const BinLevel& level = pyramid.levels[l];
      const int64_t bins = level.count(),
                    from = level.offset + n * level.of_image + c * level.of_channel;
      A* to = held + level.first * lanes;
      turn_wide(grad_y + from, bins, planes, bins, to, lanes, row);
      level.for_bins([&](int64_t number, const Run& d, const Run& h, const Run& w) {
        if constexpr (maximum) {
          const int64_t origin = codings[l].origin(d, h, w);
          Code<A>* position = positions + (level.first + number) * lanes;
          for (int64_t lane = 0; lane < planes; ++lane)
            position[lane] =
                static_cast<Code<A>>(codings[l].read(index[from + lane * bins + number], origin));
        } else {
          const A taps = static_cast<A>(d.size() * h.size() * w.size());
          A* share = to + number * lanes;
          store_vec<lanes>(load_vec<lanes>(static_cast<const A*>(share)) / taps, share);
        }
      });
    }
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      V sum{};
      const int64_t count = over.count(pixel);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = over.of(pixel)[i] * lanes;
        const V share = load_vec<lanes>(static_cast<const A*>(held + at));
        if constexpr (maximum) {
          P position;
          std::memcpy(&position, positions + at, sizeof(position));
          sum += position == P{} + static_cast<Code<A>>(pixel) ? share : V{};
        } else {
          sum += share;
        }
      }
      store_vec<lanes>(sum, map + pixel * lanes);
    }
    turn_narrow(map, lanes, pixels, planes, grad_x + plane * pixels, pixels, row);
  });
}

template <class T, class Index>
void pool(const AdaptivePoolBackward& args, bool channels_last, int64_t threads) {
  constexpr int lanes = kWidest<accumulate_t<T>>;
  if (channels_last) return pool_pixels<T, Index>(args, threads);
  if (tiles_suit(args.grad_x, args.levels, args.pyramid, lanes, sizeof(accumulate_t<T>)))
    return pool_tiles<lanes, T, Index>(args, threads);
  if constexpr (std::is_same_v<Index, NoIndex>) {
    avg_planes<T>(args, threads);
  } else {
    max_planes<T, Index>(args, threads);
  }
}

}  // namespace

void adaptive_pool_backward(const AdaptivePoolBackward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "adaptive_pool", [&]<class T>(T) {
    if (!args.maximum) return pool<T, NoIndex>(args, channels_last, threads);
    args.index.dtype == DType::uint8 ? pool<T, uint8_t>(args, channels_last, threads)
                                     : pool<T, int64_t>(args, channels_last, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
