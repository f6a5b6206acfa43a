// Adaptive and pyramid pooling: ../pool_adaptive.h has the definitions.
//
//   average   y[o]      = sum of x over bin o / elements of bin o
//             grad_x[i] = sum of grad_y[o] / elements of bin o over the bins o that hold i
//   maximum   y[o]      = max of x over bin o
//             index[o]  = where that is
//             grad_x[i] = sum of grad_y[o] over the bins o that chose i
//
// A thread owns one element of the output: a bin of a plane forward, an element of grad_x backward.
// Backward gathers: element i of an axis lies in the bins
//
//   [floor(i * bins / size), ceil((i + 1) * bins / size))
//
// one or two of them where there are fewer bins than elements, and asks them in ascending order.
// The bins of all levels of a plane are neighbouring threads, so a pyramid reads its map from
// memory once and then from the caches. Least traffic: forward x read and y (and index) written
// once, backward the other way round.
#include <cmath>

#include "../pool_adaptive.h"
#include "element.h"

namespace pydl::cuda {
namespace {

struct Levels {
  LevelPlace level[kMostLevels];
  int64_t count, bins;  // levels, and bins of all of them
};

struct Run {
  int64_t first, last;
};

__device__ Run bin_of(int64_t o, int64_t size, int64_t bins) {
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

template <class T, class Index, bool maximum>
__global__ void bins_forward(View<const T> x, T* y, Index* index, Levels y_levels,
                             Levels index_levels, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  int64_t number = thread_number();
  if (number >= count) return;
  int64_t n, c, bin, level = 0;
  if (channels_last) c = take(number, x.size[1]);
  bin = take(number, y_levels.bins);
  if (!channels_last) c = take(number, x.size[1]);
  n = number;
  while (bin >= y_levels.level[level].bins[0] * y_levels.level[level].bins[1] *
                    y_levels.level[level].bins[2]) {
    bin -= y_levels.level[level].bins[0] * y_levels.level[level].bins[1] *
           y_levels.level[level].bins[2];
    ++level;
  }
  const LevelPlace& place = y_levels.level[level];
  const int64_t ow = take(bin, place.bins[2]), oh = take(bin, place.bins[1]), od = bin;
  const Run over_d = bin_of(od, x.size[2], place.bins[0]),
            over_h = bin_of(oh, x.size[3], place.bins[1]),
            over_w = bin_of(ow, x.size[4], place.bins[2]);
  const T* plane = &x.at(n, c, 0, 0, 0);  // [D, H, W]

  A result = maximum ? -A(INFINITY) : A(0);
  int64_t best_d = over_d.first, best_h = over_h.first, best_w = over_w.first;
  for (int64_t d = over_d.first; d < over_d.last; ++d) {
    for (int64_t h = over_h.first; h < over_h.last; ++h) {
      const T* row = plane + d * x.stride[2] + h * x.stride[3];  // [W]
      A of_row = 0;
      for (int64_t w = over_w.first; w < over_w.last; ++w) {
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
  if constexpr (!maximum) {
    result /= static_cast<A>((over_d.last - over_d.first) * (over_h.last - over_h.first) *
                             (over_w.last - over_w.first));
  }
  y[offset_of(place, n, c, od, oh, ow)] = T(result);
  if (!maximum || index == nullptr) return;
  int64_t chosen;
  if constexpr (flat) {
    chosen = (best_d * x.size[3] + best_h) * x.size[4] + best_w;
  } else {
    chosen = ((best_d - over_d.first) * longest(x.size[3], place.bins[1]) + best_h - over_h.first) *
                 longest(x.size[4], place.bins[2]) +
             best_w - over_w.first;
  }
  index[offset_of(index_levels.level[level], n, c, od, oh, ow)] = static_cast<Index>(chosen);
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

Levels levels_of(const std::vector<Bins>& levels, bool pyramid, const Tensor& pooled,
                 int64_t channels) {
  Levels out = {};
  for (const LevelPlace& place : places_of(levels, pyramid, pooled, channels)) {
    out.level[out.count++] = place;
    out.bins += place.count();
  }
  return out;
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
  if (y.numel() == 0) return;
  const Levels y_levels = levels_of(levels, pyramid, y, x.size[1]);
  const Levels index_levels = levels_of(levels, pyramid, index, x.size[1]);
  dispatch_adaptive(x.dtype, index, maximum, [&](auto type, auto kind, auto of_maximum) {
    using T = decltype(type);
    using Index = decltype(kind);
    launch(bins_forward<T, Index, decltype(of_maximum)::value>, blocks_for(y.numel()), block_size,
           0, stream, View<const T>(x), static_cast<T*>(y.data), static_cast<Index*>(index.data),
           y_levels, index_levels, x.channels_last(), y.numel());
  });
}

void adaptive_pool_backward(const AdaptivePoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, grad_x, levels, pyramid, maximum] = args;
  check_adaptive(grad_x, grad_y, index, levels, pyramid, maximum, /*needs_index=*/true);
  if (grad_x.numel() == 0) return;
  const Levels grad_levels = levels_of(levels, pyramid, grad_y, grad_x.size[1]);
  const Levels index_levels = levels_of(levels, pyramid, index, grad_x.size[1]);
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
