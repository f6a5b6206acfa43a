// Adaptive and pyramid pooling: ../pool_adaptive.h has the definitions.
//
//   average   y[o]      = sum of x over bin o / elements of bin o
//             grad_x[i] = sum of grad_y[o] / elements of bin o over the bins o that hold i
//   maximum   y[o]      = max of x over bin o
//             index[o]  = where that is
//             grad_x[i] = sum of grad_y[o] over the bins o that chose i
//
// Forward, a thread owns a bin of a plane; a bin of 32 elements or more has several threads, up to
// 32, each of which takes every so many-th element, eight at a time, so that it waits once for their
// loads. They join by halves, in an order that depends on the shape alone. Where w is innermost they
// are neighbours, channels last they are as many threads apart as the block has bins, so that a warp
// reads neighbours either way. Backward, a thread owns an element of grad_x and gathers: element i
// of an axis lies in the bins
//
//   [floor(i * bins / size), ceil((i + 1) * bins / size))
//
// one or two of them where there are fewer bins than elements, and asks them in ascending order.
// The small bins of a plane, of all levels, are neighbouring threads, and so are the large ones, in a
// launch of their own: a pyramid of a map that fits into L2 reads it from memory once. Least traffic:
// forward x read and y (and index) written once, backward the other way round. Maps of H and W that
// lie alike and are small have kernels of their own, pool_adaptive_dense.h.
#include <cmath>

#include "element.h"
#include "pool_adaptive_kernels.h"

namespace pydl::cuda {
namespace {

constexpr int warp_size = 32;

struct Levels {
  LevelPlace level[kMostLevels];
  int64_t count, bins;  // levels, and bins of all of them
};

struct Run {
  int64_t first, last;
};

__device__ Run bin_of(int64_t o, int64_t size, int64_t bins) {
  if (bins == 1 || size == 1) return {0, size};
  return {quotient(o * size, bins), quotient((o + 1) * size + bins - 1, bins)};
}

// The bins that hold an element: the same question with the two sizes exchanged.
__device__ Run bins_over(int64_t at, int64_t size, int64_t bins) { return bin_of(at, bins, size); }

__device__ int64_t longest(int64_t size, int64_t bins) {
  const int64_t rest = size - quotient(size, bins) * bins;
  if (rest == 0) return quotient(size, bins);
  return quotient(size, bins) + (quotient(bins, rest) * rest == bins ? 1 : 2);
}

__device__ int64_t offset_of(const LevelPlace& place, int64_t n, int64_t c, int64_t d, int64_t h,
                             int64_t w) {
  return place.offset + n * place.stride[0] + c * place.stride[1] + d * place.stride[2] +
         h * place.stride[3] + w * place.stride[4];
}

// A bin of a plane, and what it covers.
struct Bin {
  int64_t n, c, level, od, oh, ow;
  Run d, h, w;

  // The bins are numbered level by level, in channels last with the channel innermost.
  __device__ Bin(int64_t number, const int64_t (&size)[5], const Levels& levels,
                 bool channels_last) {
    if (channels_last) c = take(number, size[1]);
    int64_t bin = take(number, levels.bins);
    if (!channels_last) c = take(number, size[1]);
    n = number;
    level = 0;
    while (bin >= levels.level[level].bins[0] * levels.level[level].bins[1] *
                      levels.level[level].bins[2]) {
      bin -=
          levels.level[level].bins[0] * levels.level[level].bins[1] * levels.level[level].bins[2];
      ++level;
    }
    const LevelPlace& place = levels.level[level];
    ow = take(bin, place.bins[2]), oh = take(bin, place.bins[1]), od = bin;
    d = bin_of(od, size[2], place.bins[0]);
    h = bin_of(oh, size[3], place.bins[1]);
    w = bin_of(ow, size[4], place.bins[2]);
  }
  __device__ int64_t elements() const {
    return (d.last - d.first) * (h.last - h.first) * (w.last - w.first);
  }
  __device__ int64_t offset_in(const Levels& levels) const {
    return offset_of(levels.level[level], n, c, od, oh, ow);
  }
  // The index of a maximum at (d, h, w) of the plane.
  template <class Index>
  __device__ Index index_of(int64_t at_d, int64_t at_h, int64_t at_w, const int64_t (&size)[5],
                            const Levels& levels) const {
    if constexpr (std::is_same_v<Index, int64_t>) {
      return (at_d * size[3] + at_h) * size[4] + at_w;
    } else {
      const int64_t* bins = levels.level[level].bins;
      const int64_t row = (at_d - d.first) * longest(size[3], bins[1]) + at_h - h.first;
      return static_cast<Index>(row * longest(size[4], bins[2]) + at_w - w.first);
    }
  }
};

template <class T, class Index, bool maximum>
__global__ void bins_forward(View<const T> x, T* y, Index* index, Levels y_levels,
                             Levels index_levels, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const Bin bin(number, x.size, y_levels, channels_last);
  const T* plane = &x.at(bin.n, bin.c, 0, 0, 0);  // [D, H, W]

  A result = maximum ? -A(INFINITY) : A(0);
  int64_t best_d = bin.d.first, best_h = bin.h.first, best_w = bin.w.first;
  for (int64_t d = bin.d.first; d < bin.d.last; ++d) {
    for (int64_t h = bin.h.first; h < bin.h.last; ++h) {
      const T* row = plane + d * x.stride[2] + h * x.stride[3];  // [W]
      A of_row = 0;
      for (int64_t w = bin.w.first; w < bin.w.last; ++w) {
        const A value = A(row[w * x.stride[4]]);
        if constexpr (maximum) {
          if (value > result || value != value) {
            result = value;
            best_d = d, best_h = h, best_w = w;
          }
        } else {
          of_row += value;
        }
      }
      if constexpr (!maximum) result += of_row;
    }
  }
  if constexpr (!maximum) result /= static_cast<A>(bin.elements());
  y[bin.offset_in(y_levels)] = T(result);
  if (!maximum || index == nullptr) return;
  index[bin.offset_in(index_levels)] =
      bin.index_of<Index>(best_d, best_h, best_w, x.size, y_levels);
}

// The elements of a bin, of which each of so many threads takes every so many-th: by additions.
struct Walk {
  int64_t offset;  // in the plane
  int64_t rows, columns, h, w, ahead, carry_w, carry_h;
  int threads;

  template <class T>
  __device__ Walk(const View<T>& x, const Bin& bin, int first, int threads)
      : rows(bin.h.last - bin.h.first),
        columns(bin.w.last - bin.w.first),
        h(0),
        w(first),
        threads(threads) {
    offset =
        bin.d.first * x.stride[2] + bin.h.first * x.stride[3] + (bin.w.first + first) * x.stride[4];
    ahead = threads * x.stride[4];
    carry_w = x.stride[3] - columns * x.stride[4];
    carry_h = x.stride[2] - rows * x.stride[3];
    if (carry_w == 0) columns *= rows, rows = 1, carry_w = carry_h, carry_h = 0;
    wrap();
  }
  __device__ void advance() {
    w += threads;
    offset += ahead;
    wrap();
  }
  __device__ void wrap() {
    while (w >= columns) {
      w -= columns;
      offset += carry_w;
      if (++h == rows) h = 0, offset += carry_h;
    }
  }
};

// A value of a bin and where it is in it. A later NaN wins, and the first of equals.
template <class A>
struct Best {
  A value;
  int64_t place;

  __device__ void join(A other, int64_t its_place) {
    const bool later = its_place > place;
    if (other != other ? value == value || later : other > value || (other == value && !later))
      value = other, place = its_place;
  }
};

template <class T, class Index, bool maximum>
__global__ void large_bins_forward(View<const T> x, T* y, Index* index, Levels y_levels,
                                   Levels index_levels, int threads, bool channels_last,
                                   int64_t count) {
  using A = accumulate_t<T>;
  constexpr int together = 8;
  SHARED(A, values, [block_size]);
  SHARED(int64_t, places, [block_size]);
  const int t = threadIdx.x, bins = block_size / threads;
  const int part = channels_last ? t / bins : t % threads;
  const int64_t number =
      static_cast<int64_t>(blockIdx.x) * bins + (channels_last ? t % bins : t / threads);
  const Bin bin(min(number, count - 1), x.size, y_levels, channels_last);
  const T* plane = &x.at(bin.n, bin.c, 0, 0, 0);  // [D, H, W]
  const int64_t elements = bin.elements();

  A sum = 0;
  Best<A> best = {-A(INFINITY), 0};
  Walk at(x, bin, part, threads);
  for (int64_t e = part; e < elements; e += together * threads) {
    T value[together] = {};
    UNROLLED for (int i = 0; i < together; ++i) {
      if (e + i * threads < elements) value[i] = plane[at.offset];
      at.advance();
    }
    UNROLLED for (int i = 0; i < together; ++i) {
      if constexpr (maximum) {
        if (e + i * threads < elements) best.join(A(value[i]), e + i * threads);
      } else {
        sum += A(value[i]);
      }
    }
  }
  values[t] = maximum ? best.value : sum;
  if constexpr (maximum) places[t] = best.place;
  __syncthreads();
  const int apart = channels_last ? bins : 1;
  for (int half = threads / 2; half > 0; half /= 2) {
    if (part < half) {
      const int other = t + half * apart;
      if constexpr (maximum) {
        best.join(values[other], places[other]);
        values[t] = best.value, places[t] = best.place;
      } else {
        values[t] += values[other];
      }
    }
    __syncthreads();
  }
  if (part > 0 || number >= count) return;
  if constexpr (maximum) {
    y[bin.offset_in(y_levels)] = T(best.value);
    if (index == nullptr) return;
    int64_t d = best.place;
    const int64_t w = take(d, bin.w.last - bin.w.first), h = take(d, bin.h.last - bin.h.first);
    index[bin.offset_in(index_levels)] =
        bin.index_of<Index>(bin.d.first + d, bin.h.first + h, bin.w.first + w, x.size, y_levels);
  } else {
    y[bin.offset_in(y_levels)] = T(values[t] / static_cast<A>(elements));
  }
}

template <class T, class Index, bool maximum>
__global__ void bins_backward(const T* grad_y, const Index* index, View<T> grad_x, Levels levels,
                              Levels index_levels, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  const int64_t* size = grad_x.size + 2;
  A sum = 0;
  for (int64_t level = 0; level < levels.count; ++level) {
    const LevelPlace& place = levels.level[level];
    const Run over_d = bins_over(d, size[0], place.bins[0]),
              over_h = bins_over(h, size[1], place.bins[1]),
              over_w = bins_over(w, size[2], place.bins[2]);
    const int64_t longest_h = maximum && !flat ? longest(size[1], place.bins[1]) : 0,
                  longest_w = maximum && !flat ? longest(size[2], place.bins[2]) : 0;
    for (int64_t od = over_d.first; od < over_d.last; ++od) {
      const Run bin_d = bin_of(od, size[0], place.bins[0]);
      for (int64_t oh = over_h.first; oh < over_h.last; ++oh) {
        const Run bin_h = bin_of(oh, size[1], place.bins[1]);
        ROLLED
        for (int64_t ow = over_w.first; ow < over_w.last; ++ow) {
          const Run bin_w = bin_of(ow, size[2], place.bins[2]);
          const T* grad = grad_y + offset_of(place, n, c, od, oh, ow);
          if constexpr (maximum) {
            const int64_t mine =
                flat ? (d * size[1] + h) * size[2] + w
                     : ((d - bin_d.first) * longest_h + h - bin_h.first) * longest_w + w -
                           bin_w.first;
            if (index[offset_of(index_levels.level[level], n, c, od, oh, ow)] == mine)
              sum += A(*grad);
          } else {
            sum +=
                A(*grad) / static_cast<A>((bin_d.last - bin_d.first) * (bin_h.last - bin_h.first) *
                                          (bin_w.last - bin_w.first));
          }
        }
      }
    }
  }
  grad_x.at(n, c, d, h, w) = T(sum);
}

void add_level(Levels& levels, const LevelPlace& place) {
  levels.level[levels.count++] = place;
  levels.bins += place.count();
}

Levels levels_of(const std::vector<LevelPlace>& places) {
  Levels out = {};
  for (const LevelPlace& place : places) add_level(out, place);
  return out;
}

// How many threads share a bin: each has eight elements or more, and fewer than four are not worth
// their joining.
int threads_of_bin(const Bins& bins, const Tensor& x) {
  int64_t elements = 1;
  for (int axis = 0; axis < 3; ++axis) elements *= longest_bin(x.size[2 + axis], bins[axis]);
  if (elements < 32) return 1;
  return elements < 64 ? 4 : elements < 128 ? 8 : elements < 256 ? 16 : warp_size;
}

// Calls function(T{}, Index{}, maximum) with the types and the kind of a call.
template <class Function>
void dispatch_adaptive(DType dtype, const Tensor& index, bool maximum, Function&& function) {
  dispatch_floating(dtype, "adaptive pooling", [&](auto type) {
    if (!maximum) return function(type, uint8_t{}, std::false_type{});
    if (index.data == nullptr || index.dtype == DType::uint8)
      return function(type, uint8_t{}, std::true_type{});
    function(type, int64_t{}, std::true_type{});
  });
}

}  // namespace

void adaptive_pool_forward(const AdaptivePoolForward& args, int64_t stream) {
  const auto& [x, y, index, levels, pyramid, maximum] = args;
  check_adaptive(x, y, index, levels, pyramid, maximum, /*needs_index=*/false);
  if (y.numel() == 0 || launch_dense_adaptive(args, stream)) return;
  const auto places = places_of(levels, pyramid, y, x.size[1]);
  const auto index_places = places_of(levels, pyramid, index, x.size[1]);
  dispatch_adaptive(x.dtype, index, maximum, [&](auto type, auto kind, auto of_maximum) {
    using T = decltype(type);
    using Index = decltype(kind);
    constexpr bool max = decltype(of_maximum)::value;
    const View<const T> map(x);
    T* const pooled = static_cast<T*>(y.data);
    Index* const indices = static_cast<Index*>(index.data);
    // The small bins, and those that are large enough for several threads each.
    Levels small = {}, small_index = {}, large = {}, large_index = {};
    int threads = warp_size;
    for (size_t l = 0; l < levels.size(); ++l) {
      const int its_threads = threads_of_bin(levels[l], x);
      const bool is_large = its_threads > 1;
      if (is_large && its_threads < threads) threads = its_threads;
      add_level(is_large ? large : small, places[l]);
      add_level(is_large ? large_index : small_index, index_places[l]);
    }
    const int64_t planes = x.size[0] * x.size[1];
    if (large.count > 0)
      launch(large_bins_forward<T, Index, max>,
             blocks_for(planes * large.bins, block_size / threads), block_size, 0, stream, map,
             pooled, indices, large, large_index, threads, x.channels_last(), planes * large.bins);
    if (small.count > 0)
      launch(bins_forward<T, Index, max>, blocks_for(planes * small.bins), block_size, 0, stream,
             map, pooled, indices, small, small_index, x.channels_last(), planes * small.bins);
  });
}

void adaptive_pool_backward(const AdaptivePoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, grad_x, levels, pyramid, maximum] = args;
  check_adaptive(grad_x, grad_y, index, levels, pyramid, maximum, /*needs_index=*/true);
  if (grad_x.numel() == 0 || launch_dense_adaptive(args, stream)) return;
  const Levels grad_levels = levels_of(places_of(levels, pyramid, grad_y, grad_x.size[1]));
  const Levels index_levels = levels_of(places_of(levels, pyramid, index, grad_x.size[1]));
  dispatch_adaptive(grad_x.dtype, index, maximum, [&](auto type, auto kind, auto of_maximum) {
    using T = decltype(type);
    using Index = decltype(kind);
    launch(bins_backward<T, Index, decltype(of_maximum)::value>, blocks_for(grad_x.numel()),
           block_size, 0, stream, static_cast<const T*>(grad_y.data),
           static_cast<const Index*>(index.data), View<T>(grad_x), grad_levels, index_levels,
           grad_x.channels_last(), grad_x.numel());
  });
}

}  // namespace pydl::cuda
