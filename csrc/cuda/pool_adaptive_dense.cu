// Adaptive and pyramid pooling over H and W of maps that lie alike: pool_adaptive_dense.h.
//
// The planes are copied to shared memory. Of each row a thread reduces what bins of one column
// cover, [columns of all levels][H]; then those of each bin's rows are reduced. Rows, and within
// them elements, are in ascending order. The table has the range that each column of bins covers.
#include "pool_adaptive_dense.h"

namespace pydl::cuda {
namespace {

// A 16-bit value and its place in a plane as one number, of which two's maximum is what a maximum
// takes (../pool.h): the greater value, the first of equals, NaN before all and the last of those.
// So to join two is one instruction. Zeros are equal, so a key does not have their sign.
//
//   bits 31-13  the value as float32: its sign bit changed, or where that was set all bits
//   bits 12-0   the place, all its bits changed where the value is no NaN
struct Key {
  static constexpr uint32_t sign = 0x80000000u, places = 0x1fffu, values = ~places;

  __device__ static uint32_t of(float value, uint32_t place) {
    // Its lower bits are zero, of NaN all ones.
    const uint32_t bits = detail::bits_of(canonical_nan(value)), other = place ^ places;
    return (bits | sign) ^ (value < 0 ? values ^ other : other);
  }
  __device__ static float value(uint32_t key) {
    return detail::float_of((key & sign ? key ^ sign : ~key) & values);
  }
  __device__ static uint32_t place(uint32_t key) { return (key < ~places ? ~key : key) & places; }
};

template <class T, int n>
__device__ __forceinline__ Vector<float, n> to_floats(const Vector<T, n>& values) {
  Vector<float, n> out;
  // nvcc would take three instructions for each second one.
  if constexpr (std::is_same_v<T, bfloat16>) {
    UNROLLED for (int j = 0; j < n; j += 2) {
      uint32_t two;
      std::memcpy(&two, values.at + j, sizeof(two));
      out.at[j] = detail::float_of(two << 16);
      out.at[j + 1] = detail::float_of(two & 0xffff0000u);
    }
  } else {
    UNROLLED for (int j = 0; j < n; ++j) out.at[j] = float(values.at[j]);
  }
  return out;
}

// What has been seen of some elements: the sum, the greatest key, or the maximum and its number. A
// later NaN wins, and the first of equals.
template <class Cell, bool maximum, int together>
struct Seen {
  static constexpr bool numbered = maximum && std::is_same_v<Cell, float>;

  Vector<Cell, together> value;
  Vector<uint32_t, together> number = {};

  __device__ void join(int i, Cell other, [[maybe_unused]] uint32_t its_number) {
    Cell& own = value.at[i];
    if constexpr (numbered) {
      if (other > own || other != other) own = other, number.at[i] = its_number;
    } else if constexpr (maximum) {
      own = max(own, other);
    } else {
      own += other;
    }
  }
};

template <class T, class Index, bool maximum, bool wide, int together>
__global__ void dense_bins_forward(const T* x, Index* index, T* y, DenseBins bins) {
  constexpr bool flat = std::is_same_v<Index, int64_t>, keyed = maximum && sizeof(T) == 2;
  using Cell = std::conditional_t<keyed, uint32_t, float>;
  using Its = Seen<Cell, maximum, together>;
  DYNAMIC_SHARED(Cell, shared);
  const uint32_t groups = bins.groups.divisor, height = bins.height.divisor,
                 width = bins.width.divisor, step = groups * apart(together);
  Cell* const of_rows = shared + bins.places * step;  // [columns][H][groups][together]
  uint32_t* const numbers = reinterpret_cast<uint32_t*>(of_rows + bins.columns * height * step);
  Range* const of_columns =
      reinterpret_cast<Range*>(numbers + (Its::numbered ? bins.columns * height * step : 0));
  const Tile<together> tile(bins);

  for (uint32_t i = threadIdx.x; i < bins.places * groups; i += blockDim.x) {
    const Place at(bins, i);
    const Planes<together> planes(bins, tile, at.group);
    if (planes.count <= 0) continue;
    const T* from =
        x + (tile.image * bins.size + planes.first * bins.plane + at.place * bins.place);
    const auto loaded = load_planes<together>(from, bins.plane, wide, planes.count);
    const auto floats = to_floats(loaded);
    Vector<Cell, together> values;
    UNROLLED for (int j = 0; j < together; ++j) {
      if constexpr (keyed)
        values.at[j] = Key::of(floats.at[j], at.place);
      else
        values.at[j] = floats.at[j];
    }
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
    Its seen = {load<together>(shared + from + range.first * step)};
    uint32_t number = flat ? range.first : 0;
    if constexpr (Its::numbered) {
      UNROLLED for (int j = 0; j < together; ++j) seen.number.at[j] = number;
    }
    ROLLED for (uint32_t w = range.first + 1; w < range.last; ++w) {
      const auto values = load<together>(shared + from + w * step);
      ++number;
      UNROLLED for (int j = 0; j < together; ++j) seen.join(j, values.at[j], number);
    }
    store(of_rows + i * apart(together), seen.value);
    if constexpr (Its::numbered) store(numbers + i * apart(together), seen.number);
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
    Its seen = {load<together>(of_rows + from + bin.rows.first * step)};
    if constexpr (Its::numbered) {
      seen.number = load<together>(numbers + from + bin.rows.first * step);
      UNROLLED for (int j = 0; j < together; ++j) seen.number.at[j] += row;
    }
    ROLLED for (uint32_t h = bin.rows.first + 1; h < bin.rows.last; ++h) {
      const auto values = load<together>(of_rows + from + h * step);
      Vector<uint32_t, together> its_numbers = {};
      if constexpr (Its::numbered) its_numbers = load<together>(numbers + from + h * step);
      row += line;
      UNROLLED for (int j = 0; j < together; ++j) {
        seen.join(j, values.at[j], row + its_numbers.at[j]);
      }
    }
    const uint32_t to = bin.result(bins, tile, planes);
    const bool vectors = wide && bins.wide_results;
    Vector<T, together> out;
    if constexpr (keyed) {
      bool zeros = false;
      UNROLLED for (int j = 0; j < together; ++j) {
        const float value = Key::value(seen.value.at[j]);
        out.at[j] = T(value);
        zeros = zeros || value == 0;
      }
      if (zeros) {
        const T* from = x + (tile.image * bins.size + planes.first * bins.plane);
        for_planes<together>(planes.count, [&](int j) {
          const uint32_t place = Key::place(seen.value.at[j]);
          if (out.at[j].bits == 0) out.at[j] = from[j * bins.plane + place * bins.place];
        });
      }
    } else {
      UNROLLED for (int j = 0; j < together; ++j) {
        out.at[j] = T(maximum ? seen.value.at[j] : seen.value.at[j] / bin.elements());
      }
    }
    store_planes<together>(y + to, its.plane, vectors, planes.count, out);
    if constexpr (maximum) {
      if (index == nullptr) continue;
      Vector<Index, together> chosen;
      UNROLLED for (int j = 0; j < together; ++j) {
        uint32_t its_number = seen.number.at[j];
        if constexpr (keyed) its_number = bin.number(bins, Key::place(seen.value.at[j]), flat);
        chosen.at[j] = static_cast<Index>(its_number);
      }
      store_planes<together>(index + to, its.plane, vectors, planes.count, chosen);
    }
  }
}

}  // namespace

bool launch_dense_adaptive(const AdaptivePoolForward& args, int64_t stream) {
  const Tensor& x = args.x;
  // Keys have their numbers in them.
  const int64_t words = args.maximum && x.dtype == DType::float32 ? 2 : 1;
  const int64_t columns = columns_of(args.levels);
  const auto bytes_of = [&](int64_t groups, int together) {
    return 4 * groups * apart(together) * (x.size[3] * x.size[4] + words * columns * x.size[3]) +
           static_cast<int64_t>(sizeof(Range)) * columns;
  };
  DenseLaunch its;
  if (!dense_launch(args, x, args.y, bytes_of, its)) return false;
  dispatch_dense_bins(its, x.dtype, [&](auto type, auto wide, auto together) {
    using T = decltype(type);
    const auto run = [&](auto kind, auto maximum) {
      using Index = decltype(kind);
      launch(dense_bins_forward<T, Index, maximum, wide, together>, its.blocks, block_size,
             its.shared, stream, static_cast<const T*>(x.data),
             static_cast<Index*>(args.index.data), static_cast<T*>(args.y.data), its.bins);
    };
    if (!args.maximum)
      run(uint8_t{}, std::false_type{});
    else if (args.index.data == nullptr || args.index.dtype == DType::uint8)
      run(uint8_t{}, std::true_type{});
    else
      run(int64_t{}, std::true_type{});
  });
  return true;
}

}  // namespace pydl::cuda
