// Adaptive and pyramid pooling over H and W of maps that lie alike: ../pool_adaptive.h has the
// definitions, pool_adaptive.cu the kernels for all others.
//
// A block owns some planes of an image, `groups` times `together` of them, and all their bins of all
// levels. So what it reads it reads once, and what belongs to a place or to a bin is worked out
// once for the eight or sixteen planes together that a thread has in registers. Shared memory is
// [...][groups][together], read 16 bytes at a time. Behind it a table has the range that each column
// of bins covers or, backward, of the bins over each row and column.
//
//   forward    The planes are copied to shared memory. Of each row a thread reduces what bins of one
//              column cover, [columns of all levels][H]; then those of each bin's rows are reduced.
//   backward   Each bin's gradient is copied to shared memory, divided by its elements or with the
//              place it chose. An element adds up those of the bins that hold it.
//
// Rows, and within them elements, are in ascending order; so are levels and bins backward. Offsets
// are 32 bits wide, and the divisions are those of dense.h.
#include <algorithm>

#include "dense.h"
#include "pool_adaptive_kernels.h"

namespace pydl::cuda {
namespace {

// Floats from one group of planes in shared memory to the next. Behind sixteen are four more, without
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
__device__ Range range_of(uint32_t o, uint32_t size, const Divisor& bins) {
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

// What has been seen of some elements: the sum, or the maximum and its number. A later NaN wins, and
// the first of equals.
template <bool maximum, int together>
struct Seen {
  Vector<float, together> value;
  Vector<uint32_t, together> number;

  __device__ void join(int i, float other, uint32_t its_number) {
    if constexpr (maximum) {
      if (other > value.at[i] || other != other) value.at[i] = other, number.at[i] = its_number;
    } else {
      value.at[i] += other;
    }
  }
};

template <class T, class Index, bool maximum, bool wide, int together>
__global__ void dense_bins_forward(const T* x, Index* index, T* y, DenseBins bins) {
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  DYNAMIC_SHARED(float, shared);
  const uint32_t groups = bins.groups.divisor, height = bins.height.divisor,
                 width = bins.width.divisor, step = groups * apart(together);
  float* const of_rows = shared + bins.places * step;  // [columns][H][groups][8]
  uint32_t* const numbers = reinterpret_cast<uint32_t*>(of_rows + bins.columns * height * step);
  Range* const of_columns =
      reinterpret_cast<Range*>(numbers + (maximum ? bins.columns * height * step : 0));
  const Tile<together> tile(bins);

  for (uint32_t i = threadIdx.x; i < bins.places * groups; i += blockDim.x) {
    const Place at(bins, i);
    const Planes<together> planes(bins, tile, at.group);
    if (planes.count <= 0) continue;
    const T* from =
        x + (tile.image * bins.size + planes.first * bins.plane + at.place * bins.place);
    const auto loaded = load_planes<together>(from, bins.plane, wide, planes.count);
    Vector<float, together> values;
    UNROLLED for (int j = 0; j < together; ++j) values.at[j] = float(loaded.at[j]);
    store(shared + at.place * step + at.group * apart(together), values);
  }
  for (uint32_t i = threadIdx.x; i < bins.columns; i += blockDim.x) {
    uint32_t column = i;
    int level = 0;
    while (column >= bins.level[level].of_w.divisor) column -= bins.level[level++].of_w.divisor;
    of_columns[i] = range_of(column, width, bins.level[level].of_w);
  }
  __syncthreads();

  for (uint32_t i = threadIdx.x; i < bins.columns * height * groups; i += blockDim.x) {
    const uint32_t row = bins.groups.quotient(i), group = i - row * groups;
    const uint32_t column = bins.height.quotient(row), h = row - column * height;
    const Range range = of_columns[column];
    const uint32_t from = h * width * step + group * apart(together);
    Seen<maximum, together> seen = {load<together>(shared + from + range.first * step), {}};
    uint32_t number = flat ? range.first : 0;
    UNROLLED for (int j = 0; j < together; ++j) seen.number.at[j] = number;
    for (uint32_t w = range.first + 1; w < range.last; ++w) {
      const auto values = load<together>(shared + from + w * step);
      ++number;
      UNROLLED for (int j = 0; j < together; ++j) seen.join(j, values.at[j], number);
    }
    store(of_rows + i * apart(together), seen.value);
    if constexpr (maximum) store(numbers + i * apart(together), seen.number);
  }
  __syncthreads();

  for (uint32_t i = threadIdx.x; i < bins.bins * groups; i += blockDim.x) {
    const uint32_t number = bins.groups.quotient(i), group = i - number * groups;
    const Planes<together> planes(bins, tile, group);
    if (planes.count <= 0) continue;
    const DenseBin bin(bins, number);
    const DenseLevel& its = bins.level[bin.level];
    uint32_t column = bin.w;
    for (int level = 0; level < bin.level; ++level) column += bins.level[level].of_w.divisor;
    const uint32_t from = column * height * step + group * apart(together);
    // What one row further is in a number.
    const uint32_t line = flat ? width : its.of_longest.divisor;
    uint32_t row = flat ? bin.rows.first * width : 0;
    Seen<maximum, together> seen = {load<together>(of_rows + from + bin.rows.first * step), {}};
    if constexpr (maximum) {
      seen.number = load<together>(numbers + from + bin.rows.first * step);
      UNROLLED for (int j = 0; j < together; ++j) seen.number.at[j] += row;
    }
    for (uint32_t h = bin.rows.first + 1; h < bin.rows.last; ++h) {
      const auto values = load<together>(of_rows + from + h * step);
      Vector<uint32_t, together> its_numbers = {};
      if constexpr (maximum) its_numbers = load<together>(numbers + from + h * step);
      row += line;
      UNROLLED for (int j = 0; j < together; ++j) {
        seen.join(j, values.at[j], row + its_numbers.at[j]);
      }
    }
    const uint32_t to = bin.result(bins, tile, planes);
    const bool vectors = wide && bins.wide_results;
    Vector<T, together> out;
    UNROLLED for (int j = 0; j < together; ++j) {
      out.at[j] = T(maximum ? seen.value.at[j] : seen.value.at[j] / bin.elements());
    }
    store_planes<together>(y + to, its.plane, vectors, planes.count, out);
    if constexpr (maximum) {
      if (index == nullptr) continue;
      Vector<Index, together> chosen;
      UNROLLED for (int j = 0; j < together; ++j) {
        chosen.at[j] = static_cast<Index>(seen.number.at[j]);
      }
      store_planes<together>(index + to, its.plane, vectors, planes.count, chosen);
    }
  }
}

template <class T, class Index, bool maximum, bool wide, int together>
__global__ void dense_bins_backward(const T* grad_y, const Index* index, T* grad_x,
                                    DenseBins bins) {
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  DYNAMIC_SHARED(float, shares);  // [bins][groups][together]
  const uint32_t groups = bins.groups.divisor, step = groups * apart(together);
  const uint32_t height = bins.height.divisor, lines = height + bins.width.divisor;
  uint32_t* const chosen = reinterpret_cast<uint32_t*>(shares + bins.bins * step);
  // Offsets among the shares: of rows of bins, and within these of columns.  [levels][H + W]
  Range* const over = reinterpret_cast<Range*>(chosen + (maximum ? bins.bins * step : 0));
  const Tile<together> tile(bins);

  for (uint32_t i = threadIdx.x; i < bins.bins * groups; i += blockDim.x) {
    const uint32_t number = bins.groups.quotient(i), group = i - number * groups;
    const Planes<together> planes(bins, tile, group);
    if (planes.count <= 0) continue;
    const DenseBin bin(bins, number);
    const DenseLevel& its = bins.level[bin.level];
    const uint32_t from = bin.result(bins, tile, planes);
    const bool vectors = wide && bins.wide_results;
    const auto gradients = load_planes<together>(grad_y + from, its.plane, vectors, planes.count);
    Vector<float, together> share;
    UNROLLED for (int j = 0; j < together; ++j) {
      const float gradient = float(gradients.at[j]);
      share.at[j] = maximum ? gradient : gradient / bin.elements();
    }
    store(shares + i * apart(together), share);
    if constexpr (maximum) {
      const auto indices = load_planes<together>(index + from, its.plane, vectors, planes.count);
      Vector<uint32_t, together> places;
      UNROLLED for (int j = 0; j < together; ++j) {
        const auto its_index = static_cast<uint32_t>(indices.at[j]);
        const uint32_t row = its.of_longest.quotient(its_index);
        const uint32_t column = its_index - row * its.of_longest.divisor;
        places.at[j] =
            flat ? its_index
                 : (bin.rows.first + row) * bins.width.divisor + bin.columns.first + column;
      }
      store(chosen + i * apart(together), places);
    }
  }
  for (uint32_t i = threadIdx.x; i < bins.levels * lines; i += blockDim.x) {
    uint32_t line = i;
    int level = 0;
    for (; line >= lines; line -= lines) ++level;
    const DenseLevel& its = bins.level[level];
    if (line < height) {
      const Range rows = range_of(line, its.of_h.divisor, bins.height);
      const uint32_t next = its.of_w.divisor;
      over[i] = {(its.start + rows.first * next) * step, (its.start + rows.last * next) * step};
    } else {
      const Range columns = range_of(line - height, its.of_w.divisor, bins.width);
      over[i] = {columns.first * step, columns.last * step};
    }
  }
  __syncthreads();

  for (uint32_t i = threadIdx.x; i < bins.places * groups; i += blockDim.x) {
    const Place at(bins, i);
    const Planes<together> planes(bins, tile, at.group);
    if (planes.count <= 0) continue;
    const uint32_t h = bins.width.quotient(at.place), w = at.place - h * bins.width.divisor;
    Vector<float, together> sum = {};
    const Range* its_over = over;
    for (int level = 0; level < bins.levels; ++level, its_over += lines) {
      const Range rows = its_over[h], columns = its_over[height + w];
      const uint32_t next = bins.level[level].of_w.divisor * step;
      for (uint32_t row = rows.first; row < rows.last; row += next) {
        ROLLED
        for (uint32_t bin = row + columns.first; bin < row + columns.last; bin += step) {
          const uint32_t from = bin + at.group * apart(together);
          const auto share = load<together>(shares + from);
          Vector<uint32_t, together> place = {};
          if constexpr (maximum) place = load<together>(chosen + from);
          UNROLLED for (int j = 0; j < together; ++j) {
            if (!maximum || place.at[j] == at.place) sum.at[j] += share.at[j];
          }
        }
      }
    }
    Vector<T, together> out;
    UNROLLED for (int j = 0; j < together; ++j) out.at[j] = T(sum.at[j]);
    T* to = grad_x + (tile.image * bins.size + planes.first * bins.plane + at.place * bins.place);
    store_planes<together>(to, bins.plane, wide, planes.count, out);
  }
}

constexpr int64_t most_shared = 48 * 1024;    // of a block, without asking for more
constexpr int64_t enough_shared = 40 * 1024;  // so that several blocks have room
constexpr int64_t enough_blocks = 2 * 132;    // two for each multiprocessor of a large GPU

// Pools, or takes the gradient, and says so, where these kernels serve the maps: `map`, its results and
// their indices, which may be absent.
template <bool forward, class Arguments>
bool launch_dense(const Arguments& args, const Tensor& map, const Tensor& pooled,
                  const Tensor& index, int64_t stream) {
  const bool channels_last = map.channels_last(), pyramid = args.pyramid, maximum = args.maximum;
  const bool inside = channels_last && !pyramid;  // channels of results are neighbours
  const int64_t *size = map.size, places = size[3] * size[4];
  if (map.dtype == DType::float64 || size[2] > 1) return false;
  bool aligned = true;
  const auto lies = [&aligned](const Tensor& tensor, bool last) {
    aligned = aligned && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
    return tensor.data == nullptr || (is_dense(tensor, last) && tensor.numel() <= 1 << 29);
  };
  if (!lies(map, channels_last) || !lies(pooled, inside) || !lies(index, inside)) return false;

  DenseBins bins = {};
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
  int64_t of_all = 0, columns = 0, most = 1;
  for (const Bins& its : args.levels) {
    if (its[0] > 1) return false;
    of_all += its[1] * its[2], columns += its[2];
    most = std::max({most, its[1], its[2]});
  }
  const int64_t of_plane =
      forward ? places + columns * size[3] * (maximum ? 2 : 1) : of_all * (maximum ? 2 : 1);
  const int64_t ranges = forward ? columns : args.levels.size() * (size[3] + size[4]);
  // Sixteen planes a thread where there are enough of them and shared memory has room.
  int together = 16;
  const auto bytes_of = [&](int64_t groups) {
    return 4 * groups * apart(together) * of_plane + static_cast<int64_t>(sizeof(Range)) * ranges;
  };
  const bool many = bins.images * blocks_for(bins.planes, together) >= enough_blocks / 2;
  if (!many || bytes_of(1) > enough_shared || (channels_last && size[1] % together != 0))
    together = 8;
  bins.wide = channels_last && aligned && size[1] % together == 0;
  // Offsets, and (o + 1) * size + bins, have 32 bits.
  if (bytes_of(1) > most_shared || (most + 1) * (std::max(size[3], size[4]) + 1) > INT32_MAX)
    return false;
  bins.bins = static_cast<uint32_t>(of_all);
  bins.columns = static_cast<uint32_t>(columns);
  bins.pooled_size = bins.planes * bins.bins;
  for (const Bins& its : args.levels) {
    DenseLevel& level = bins.level[bins.levels];
    level.of_h = Divisor(static_cast<uint32_t>(its[1]));
    level.of_w = Divisor(static_cast<uint32_t>(its[2]));
    level.of_longest = Divisor(static_cast<uint32_t>(longest_bin(size[4], its[2])));
    level.count = static_cast<uint32_t>(its[1] * its[2]);
    if (bins.levels > 0)
      level.start = bins.level[bins.levels - 1].start + bins.level[bins.levels - 1].count;
    level.plane = inside ? 1 : level.count;
    level.bin = inside ? bins.planes : 1;
    level.first = level.start * bins.planes;
    ++bins.levels;
  }

  // As many groups as keep a block busy, in channels last at least four, which are neighbours.
  const int64_t all_groups = blocks_for(bins.planes, together);
  int64_t groups =
      std::min(all_groups, std::max<int64_t>(block_size / places, channels_last ? 4 : 1));
  const auto blocks = [&] { return bins.images * blocks_for(all_groups, groups); };
  while (groups > 1 && (bytes_of(groups) > enough_shared || blocks() < enough_blocks)) groups /= 2;
  bins.groups = Divisor(static_cast<uint32_t>(groups));
  bins.tiles = Divisor(static_cast<uint32_t>(blocks_for(all_groups, groups)));
  bins.inner = channels_last ? bins.groups : Divisor(bins.places);

  const Tensor &from = forward ? map : pooled, &to = forward ? pooled : map;
  dispatch_floating(map.dtype, "adaptive pooling", [&](auto type) {
    using T = decltype(type);
    const auto with = [&](auto kind, auto of_maximum, auto wide, auto planes) {
      using Index = decltype(kind);
      const auto run = [&](auto kernel) {
        launch(kernel, blocks(), block_size, bytes_of(groups), stream,
               static_cast<const T*>(from.data), static_cast<Index*>(index.data),
               static_cast<T*>(to.data), bins);
      };
      if constexpr (forward)
        run(dense_bins_forward<T, Index, of_maximum, wide, planes>);
      else
        run(dense_bins_backward<T, Index, of_maximum, wide, planes>);
    };
    const auto by_planes = [&](auto kind, auto of_maximum) {
      const auto by_width = [&](auto planes) {
        if (bins.wide)
          with(kind, of_maximum, std::true_type{}, planes);
        else
          with(kind, of_maximum, std::false_type{}, planes);
      };
      if (together == 16)
        by_width(std::integral_constant<int, 16>{});
      else
        by_width(std::integral_constant<int, 8>{});
    };
    if constexpr (!std::is_same_v<T, double>) {
      if (!maximum)
        by_planes(uint8_t{}, std::false_type{});
      else if (index.data == nullptr || index.dtype == DType::uint8)
        by_planes(uint8_t{}, std::true_type{});
      else
        by_planes(int64_t{}, std::true_type{});
    }
  });
  return true;
}

}  // namespace

bool launch_dense_adaptive(const AdaptivePoolForward& args, int64_t stream) {
  return launch_dense<true>(args, args.x, args.y, args.index, stream);
}

bool launch_dense_adaptive(const AdaptivePoolBackward& args, int64_t stream) {
  return launch_dense<false>(args, args.grad_x, args.grad_y, args.index, stream);
}

}  // namespace pydl::cuda
