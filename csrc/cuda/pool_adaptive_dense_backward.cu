// The gradients of adaptive and pyramid pooling over H and W of maps that lie alike:
// pool_adaptive_dense.h.
//
//   averages   Each bin's gradient is copied to shared memory, divided by its elements. An element
//              adds up those of the bins that hold it.
//   maxima     A bin's gradient goes to the one element that it chose. A thread has a band of a
//              plane's rows in shared memory and gives its elements what the bins over these rows
//              give them, so no two threads add to one element.
//
// An element's sum is in ascending order of levels and, within them, of bins.
#include "pool_adaptive_dense.h"

namespace pydl::cuda {
namespace {

template <bool wide, class T, int together>
__device__ __forceinline__ void store_sums(T* grad_x, const DenseBins& bins,
                                           const Tile<together>& tile,
                                           const Planes<together>& planes, uint32_t place,
                                           const Vector<float, together>& sum) {
  Vector<T, together> out;
  UNROLLED for (int j = 0; j < together; ++j) out.at[j] = T(sum.at[j]);
  T* to = grad_x + (tile.image * bins.size + planes.first * bins.plane + place * bins.place);
  store_planes<together>(to, bins.plane, wide, planes.count, out);
}

template <class T, bool wide, int together>
__global__ void dense_averages_backward(const T* grad_y, T* grad_x, DenseBins bins) {
  DYNAMIC_SHARED(float, shares);  // [bins][groups][together]
  const uint32_t groups = bins.groups.divisor, step = groups * apart(together);
  const uint32_t height = bins.height.divisor, lines = height + bins.width.divisor;
  // Offsets among the shares: of rows of bins, and within these of columns.  [levels][H + W]
  Range* const over = reinterpret_cast<Range*>(shares + bins.bins * step);
  const Tile<together> tile(bins);

  for (uint32_t i = threadIdx.x; i < bins.bins * groups; i += blockDim.x) {
    const uint32_t number = bins.groups.quotient(i), group = i - number * groups;
    const Planes<together> planes(bins, tile, group);
    if (planes.count <= 0) continue;
    const DenseBin bin(bins, number);
    const auto gradients =
        load_planes<together>(grad_y + bin.result(bins, tile, planes), bins.level[bin.level].plane,
                              wide && bins.wide_results, planes.count);
    Vector<float, together> share;
    UNROLLED for (int j = 0; j < together; ++j) {
      share.at[j] = float(gradients.at[j]) / bin.elements();
    }
    store(shares + i * apart(together), share);
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
          const auto share = load<together>(shares + bin + at.group * apart(together));
          UNROLLED for (int j = 0; j < together; ++j) sum.at[j] += share.at[j];
        }
      }
    }
    store_sums<wide>(grad_x, bins, tile, planes, at.place, sum);
  }
}

// A maximum's gradient, and the offset of its row and column in a plane's sums.
struct Choice {
  uint32_t offset;
  float gradient;
};

// Rows of a thread. Of fewer the bins are read more often; more leave more threads idle.
constexpr uint32_t band = 4;

// Words from one group of planes' choices to the next: four threads meet in no bank.
PYDL_HOST_DEVICE constexpr int choices_apart(int together) { return 2 * together + 4; }

template <class T, class Index, bool wide, int together>
__global__ void dense_maxima_backward(const T* grad_y, const Index* index, T* grad_x,
                                      DenseBins bins) {
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  DYNAMIC_SHARED(float, sums);  // [rows at once][W][groups][together]
  const uint32_t groups = bins.groups.divisor, step = groups * apart(together);
  const uint32_t height = bins.height.divisor, width = bins.width.divisor;
  const uint32_t count = bins.rows * width * step;
  Choice* const choices = reinterpret_cast<Choice*>(sums + count);  // [bins][groups][together]
  const uint32_t next = groups * choices_apart(together) / 2;
  const uint32_t all_bands = (height + band - 1) / band, bands = (bins.rows + band - 1) / band;
  // Offsets among the choices: those of the bins over a band.  [levels][bands]
  Range* const over = reinterpret_cast<Range*>(choices + bins.bins * next);
  const Tile<together> tile(bins);

  for (uint32_t i = threadIdx.x; i < bins.bins * groups; i += blockDim.x) {
    const uint32_t number = bins.groups.quotient(i), group = i - number * groups;
    const Planes<together> planes(bins, tile, group);
    Vector<Choice, together> its = {};  // planes behind the last get nothing
    if (planes.count > 0) {
      const DenseBin bin(bins, number);
      const uint32_t plane = bins.level[bin.level].plane, from = bin.result(bins, tile, planes);
      const bool vectors = wide && bins.wide_results;
      const auto gradients = load_planes<together>(grad_y + from, plane, vectors, planes.count);
      const auto indices = load_planes<together>(index + from, plane, vectors, planes.count);
      UNROLLED for (int j = 0; j < together; ++j) {
        const uint32_t place = bin.place(bins, static_cast<uint32_t>(indices.at[j]), flat);
        its.at[j] = {place * step, float(gradients.at[j])};
      }
    }
    store(choices + i * (choices_apart(together) / 2), its);
  }
  for (uint32_t i = threadIdx.x; i < bins.levels * all_bands; i += blockDim.x) {
    uint32_t number = i;
    int level = 0;
    for (; number >= all_bands; number -= all_bands) ++level;
    const DenseLevel& its = bins.level[level];
    const uint32_t last = min((number + 1) * band, height) - 1, of_row = its.of_w.divisor;
    const Range rows = {range_of(number * band, its.of_h.divisor, bins.height).first,
                        range_of(last, its.of_h.divisor, bins.height).last};
    over[i] = {(its.start + rows.first * of_row) * next, (its.start + rows.last * of_row) * next};
  }

  for (uint32_t first = 0; first < height; first += bins.rows) {
    for (uint32_t i = 4 * threadIdx.x; i < count; i += 4 * blockDim.x) {
      store(sums + i, Vector<float, 4>{});
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < bands * groups * together; i += blockDim.x) {
      const uint32_t line = i / together, number = bins.groups.quotient(line);
      const uint32_t group = line - number * groups, plane = i % together;
      const uint32_t row = number * band;  // of those at once
      if (first + row >= height) continue;
      const Choice* const from = choices + group * (choices_apart(together) / 2) + plane;
      const uint32_t before = row * width * step, start = first * width * step + before;
      float* const its = sums + before + group * apart(together) + plane;
      const Range* its_over = over + first / band + number;
      for (int level = 0; level < bins.levels; ++level, its_over += all_bands) {
        const Range range = *its_over;
        ROLLED for (uint32_t bin = range.first; bin < range.last; bin += next) {
          const Choice one = from[bin];
          const uint32_t offset = one.offset - start;
          if (offset < band * width * step) its[offset] += one.gradient;
        }
      }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < bins.rows * width * groups; i += blockDim.x) {
      const Place at(bins, i);
      const Planes<together> planes(bins, tile, at.group);
      const uint32_t place = first * width + at.place;
      if (planes.count <= 0 || place >= bins.places) continue;
      const auto sum = load<together>(sums + at.place * step + at.group * apart(together));
      store_sums<wide>(grad_x, bins, tile, planes, place, sum);
    }
    __syncthreads();
  }
}

}  // namespace

bool launch_dense_adaptive(const AdaptivePoolBackward& args, int64_t stream) {
  const Tensor &grad_y = args.grad_y, &grad_x = args.grad_x;
  const int64_t height = grad_x.size[3], width = grad_x.size[4], bins = bins_of(args.levels);
  const int64_t levels = static_cast<int64_t>(args.levels.size());
  // Of sums at once: all, or as many bands as there is room for.
  int64_t bands = blocks_for(height, band), rows = height;
  const auto bytes_of = [&](int64_t groups, int together) {
    const int64_t words = args.maximum
                              ? apart(together) * rows * width + choices_apart(together) * bins
                              : apart(together) * bins;
    const int64_t ranges = levels * (args.maximum ? blocks_for(height, band) : height + width);
    return 4 * groups * words + static_cast<int64_t>(sizeof(Range)) * ranges;
  };
  while (args.maximum && bands > 1 && bytes_of(1, 8) > enough_shared) {
    bands = blocks_for(bands, 2);
    rows = bands * band;
  }
  DenseLaunch its;
  if (!dense_launch(args, grad_x, grad_y, bytes_of, its)) return false;
  its.bins.rows = static_cast<uint32_t>(rows);
  if (!its.bins.channels_last) its.bins.inner = Divisor(static_cast<uint32_t>(rows * width));
  dispatch_dense_bins(its, grad_x.dtype, [&](auto type, auto wide, auto together) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(grad_y.data);
    T* to = static_cast<T*>(grad_x.data);
    const auto run = [&](auto kernel, auto... pointers) {
      launch(kernel, its.blocks, block_size, its.shared, stream, pointers..., its.bins);
    };
    if (!args.maximum)
      run(dense_averages_backward<T, wide, together>, from, to);
    else if (args.index.dtype == DType::uint8)
      run(dense_maxima_backward<T, uint8_t, wide, together>, from,
          static_cast<const uint8_t*>(args.index.data), to);
    else
      run(dense_maxima_backward<T, int64_t, wide, together>, from,
          static_cast<const int64_t*>(args.index.data), to);
  });
  return true;
}

}  // namespace pydl::cuda
