// Adaptive and pyramid pooling over H and W of maps that lie alike: what the kernels of
// pool_adaptive_dense.cu and pool_adaptive_dense_backward.cu share. ../pool_adaptive.h has the
// definitions, pool_adaptive.cu the kernels for all other maps.
//
// A block owns some planes of an image, `groups` times `together` of them, and all their bins of
// all levels. So what it reads it reads once, and what belongs to a place or to a bin is worked out
// once for the eight or sixteen planes together that a thread has in registers. Shared memory is
// [...][groups][together], read 16 bytes at a time; behind it is a table of ranges. Offsets are
// 32 bits wide, and the divisions are those of dense.h.
#pragma once

#include <algorithm>

#include "dense.h"
#include "pool_adaptive_kernels.h"

namespace pydl::cuda {

// Words from one group of planes in shared memory to the next. Behind sixteen are four more, without
// which four neighbouring threads at a time would meet in the same banks; eight meet two at a time,
// and leave the room to larger maps.
PYDL_HOST_DEVICE constexpr int apart(int together) {
  return together > 8 ? together + 4 : together;
}

struct DenseLevel {
  Divisor of_h, of_w;          // bins along the axes
  Divisor of_longest;          // elements of its longest bins along w
  uint32_t start, count;       // bins: of the levels before, its own
  uint32_t first, plane, bin;  // offsets in an image's results: of the first, to the next
};

struct DenseBins {
  uint32_t images, planes;  // of an image
  Divisor height, width;
  uint32_t places;              // of a plane
  uint32_t size, plane, place;  // elements of an image; offsets to the next
  uint32_t pooled_size;         // results of an image
  uint32_t bins, columns;       // of a plane, of all levels
  uint32_t rows;                // that maxima's gradients have in shared memory at once
  int levels;
  bool channels_last;
  bool wide, wide_results;       // a thread's planes are neighbours, in whole vectors
  Divisor groups, tiles, inner;  // inner: what changes fastest, groups or places
  DenseLevel level[kMostLevels];
};

struct Range {
  uint32_t first, last;
};

// Of bin `o` along an axis of `size` elements; with the two sizes exchanged, the bins over element o.
__device__ inline Range range_of(uint32_t o, uint32_t size, const Divisor& bins) {
  return {bins.quotient(o * size), bins.quotient((o + 1) * size + bins.divisor - 1)};
}

// A block's image and the first of its planes.
template <int together>
struct Tile {
  uint32_t image, plane;

  __device__ explicit Tile(const DenseBins& bins) {
    image = bins.tiles.quotient(blockIdx.x);
    plane = (blockIdx.x - image * bins.tiles.divisor) * bins.groups.divisor * together;
  }
};

// A thread's planes of a tile: the first, and how many there are from there on.
template <int together>
struct Planes {
  uint32_t first;
  int count;

  __device__ Planes(const DenseBins& bins, const Tile<together>& tile, uint32_t group)
      : first(tile.plane + group * together), count(static_cast<int>(bins.planes - first)) {}
};

// A number through [places][groups], or where places are neighbours through [groups][places].
struct Place {
  uint32_t place, group;

  __device__ Place(const DenseBins& bins, uint32_t number) {
    const uint32_t outer = bins.inner.quotient(number);
    const uint32_t rest = number - outer * bins.inner.divisor;
    place = bins.channels_last ? outer : rest;
    group = bins.channels_last ? rest : outer;
  }
};

// A bin of all levels', and where its result is in the image's.
struct DenseBin {
  int level;
  uint32_t h, w;
  Range rows, columns;

  __device__ DenseBin(const DenseBins& bins, uint32_t number) : level(0) {
    while (number >= bins.level[level].count) number -= bins.level[level++].count;
    const DenseLevel& its = bins.level[level];
    h = its.of_w.quotient(number);
    w = number - h * its.of_w.divisor;
    rows = range_of(h, bins.height.divisor, its.of_h);
    columns = range_of(w, bins.width.divisor, its.of_w);
  }
  __device__ float elements() const {
    return static_cast<float>((rows.last - rows.first) * (columns.last - columns.first));
  }
  // The index of the maximum that is at a place of the plane, `flat` or inside the bin, and back.
  __device__ uint32_t number(const DenseBins& bins, uint32_t place, bool flat) const {
    if (flat) return place;
    const uint32_t row = bins.width.quotient(place), column = place - row * bins.width.divisor;
    return (row - rows.first) * bins.level[level].of_longest.divisor + column - columns.first;
  }
  __device__ uint32_t place(const DenseBins& bins, uint32_t number, bool flat) const {
    if (flat) return number;
    const Divisor& longest = bins.level[level].of_longest;
    const uint32_t row = longest.quotient(number), column = number - row * longest.divisor;
    return (rows.first + row) * bins.width.divisor + columns.first + column;
  }
  template <int together>
  __device__ uint32_t result(const DenseBins& bins, const Tile<together>& tile,
                             const Planes<together>& planes) const {
    const DenseLevel& its = bins.level[level];
    return tile.image * bins.pooled_size + its.first + planes.first * its.plane +
           (h * its.of_w.divisor + w) * its.bin;
  }
};

// Calls function(i) for those of a thread's planes that there are.
template <int together, class Function>
__device__ __forceinline__ void for_planes(int count, const Function& function) {
  if (count >= together) {
    UNROLLED for (int i = 0; i < together; ++i) function(i);
  } else {
    UNROLLED for (int i = 0; i < together; ++i) {
      if (i < count) function(i);
    }
  }
}

// `wide`: the planes are neighbours.
template <int together, class T>
__device__ __forceinline__ Vector<T, together> load_planes(const T* from, uint32_t step, bool wide,
                                                           int count) {
  if (wide) return load<together>(from);
  Vector<T, together> out = {};
  for_planes<together>(count, [&](int i) { out.at[i] = from[i * step]; });
  return out;
}

template <int together, class T>
__device__ __forceinline__ void store_planes(T* to, uint32_t step, bool wide, int count,
                                             const Vector<T, together>& values) {
  if (wide) return store(to, values);
  for_planes<together>(count, [&](int i) { to[i * step] = values.at[i]; });
}

constexpr int64_t most_shared = 48 * 1024;    // of a block, without asking for more
constexpr int64_t enough_shared = 40 * 1024;  // so that several blocks have room
constexpr int64_t enough_blocks = 2 * 132;    // two for each multiprocessor of a large GPU

struct DenseLaunch {
  DenseBins bins = {};
  int together = 16;
  int64_t blocks = 0, shared = 0;  // bytes of a block
};

// Says whether these kernels serve a map, its results and their indices (which may be absent), and
// how. bytes_of(groups, together): what a block needs of shared memory.
template <class Arguments, class BytesOf>
bool dense_launch(const Arguments& args, const Tensor& map, const Tensor& pooled,
                  const BytesOf& bytes_of, DenseLaunch& out) {
  const bool channels_last = map.channels_last(), pyramid = args.pyramid;
  const bool inside = channels_last && !pyramid;  // channels of results are neighbours
  const int64_t *size = map.size, places = size[3] * size[4];
  if (map.dtype == DType::float64 || size[2] > 1) return false;
  bool aligned = true;
  const auto lies = [&aligned](const Tensor& tensor, bool last) {
    aligned = aligned && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
    return tensor.data == nullptr || (is_dense(tensor, last) && tensor.numel() <= 1 << 29);
  };
  if (!lies(map, channels_last) || !lies(pooled, inside) || !lies(args.index, inside)) return false;

  DenseBins& bins = out.bins;
  const bool by_image = channels_last || pyramid;
  bins.images = static_cast<uint32_t>(by_image ? size[0] : 1);
  bins.planes = static_cast<uint32_t>(by_image ? size[1] : size[0] * size[1]);
  bins.height = Divisor(static_cast<uint32_t>(size[3]));
  bins.width = Divisor(static_cast<uint32_t>(size[4]));
  bins.places = static_cast<uint32_t>(places);
  bins.size = bins.planes * bins.places;
  bins.plane = channels_last ? 1 : bins.places;
  bins.place = channels_last ? bins.planes : 1;
  bins.channels_last = channels_last;
  bins.wide_results = inside;
  // Sixteen planes a thread where there are enough of them and shared memory has room.
  int& together = out.together;
  const bool many = bins.images * blocks_for(bins.planes, together) >= enough_blocks / 2;
  if (!many || bytes_of(1, together) > enough_shared || (channels_last && size[1] % together != 0))
    together = 8;
  bins.wide = channels_last && aligned && size[1] % together == 0;
  // Offsets, and (o + 1) * size + bins, have 32 bits.
  int64_t most = 1;
  for (const Bins& its : args.levels) {
    if (its[0] > 1) return false;
    most = std::max({most, its[1], its[2]});
  }
  if (bytes_of(1, together) > most_shared ||
      (most + 1) * (std::max(size[3], size[4]) + 1) > INT32_MAX)
    return false;
  for (const Bins& its : args.levels) {
    DenseLevel& level = bins.level[bins.levels++];
    level.of_h = Divisor(static_cast<uint32_t>(its[1]));
    level.of_w = Divisor(static_cast<uint32_t>(its[2]));
    level.of_longest = Divisor(static_cast<uint32_t>(longest_bin(size[4], its[2])));
    level.start = bins.bins;
    level.count = static_cast<uint32_t>(its[1] * its[2]);
    level.plane = inside ? 1 : level.count;
    level.bin = inside ? bins.planes : 1;
    level.first = level.start * bins.planes;
    bins.bins += level.count;
    bins.columns += level.of_w.divisor;
  }
  bins.pooled_size = bins.planes * bins.bins;

  // As many groups as keep a block busy, in channels last at least four, which are neighbours.
  const int64_t all_groups = blocks_for(bins.planes, together);
  int64_t groups =
      std::min(all_groups, std::max<int64_t>(block_size / places, channels_last ? 4 : 1));
  const auto blocks = [&] { return bins.images * blocks_for(all_groups, groups); };
  while (groups > 1 && (bytes_of(groups, together) > enough_shared || blocks() < enough_blocks))
    groups /= 2;
  bins.groups = Divisor(static_cast<uint32_t>(groups));
  bins.tiles = Divisor(static_cast<uint32_t>(blocks_for(all_groups, groups)));
  bins.inner = channels_last ? bins.groups : Divisor(bins.places);
  out.blocks = blocks();
  out.shared = bytes_of(groups, together);
  return true;
}

// Calls function(T{}, wide, together).
template <class Function>
void dispatch_dense_bins(const DenseLaunch& its, DType dtype, const Function& function) {
  dispatch_floating(dtype, "adaptive pooling", [&](auto type) {
    if constexpr (!std::is_same_v<decltype(type), double>) {
      const auto by_width = [&](auto planes) {
        if (its.bins.wide)
          function(type, std::true_type{}, planes);
        else
          function(type, std::false_type{}, planes);
      };
      if (its.together == 16)
        by_width(std::integral_constant<int, 16>{});
      else
        by_width(std::integral_constant<int, 8>{});
    }
  });
}

// The bins of all levels, and those along W.
inline int64_t bins_of(const std::vector<Bins>& levels) {
  int64_t count = 0;
  for (const Bins& its : levels) count += its[1] * its[2];
  return count;
}

inline int64_t columns_of(const std::vector<Bins>& levels) {
  int64_t count = 0;
  for (const Bins& its : levels) count += its[2];
  return count;
}

}  // namespace pydl::cuda
