// Max pooling of maps that lie alike, by the windows that networks have (pool_dense.h): ../pool.h has
// the definitions, pool.cu the kernels for all others and the least traffic.
//
//   forward    Taps off the map are those next to them on it once more, which changes neither the
//              maximum nor its number, since they have that one's number too.
//   backward   A window gives its gradient to that element of the cell that it chose, if it is one of
//              them. An element adds up in ascending order of its windows, as the others do.
#include "pool_dense.h"

namespace pydl::cuda {
namespace {

template <class T, class Index, int vector, int kernel>
__global__ void dense_max_forward(const T* x, T* y, Index* index, DensePool pool) {
  using A = accumulate_t<T>;
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  constexpr int images = Place<vector>::images;
  const Place<vector> place(pool);
  const Taps<kernel> taps(place, pool);
  int number[taps.count];
  UNROLLED for (int t = 0; t < taps.count; ++t) {
    const int h = taps.h(t), w = taps.w(t);
    number[t] = flat ? h * pool.width + w : (h - taps.first_h) * kernel + (w - taps.first_w);
  }
  Vector<T, vector> value[images][taps.count];
  load_taps<true>(value, x, place, taps, pool);
  const uint32_t to = place.window(pool, place.row, place.column);
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    Vector<T, vector> maximum;
    Vector<Index, vector> its_number;
    UNROLLED for (int j = 0; j < vector; ++j) {
      A best = A(value[i][0].at[j]);
      int chosen = number[0];
      UNROLLED for (int t = 1; t < taps.count; ++t) {
        const A another = A(value[i][t].at[j]);
        if (another > best || another != another) {
          best = another;
          chosen = number[t];
        }
      }
      maximum.at[j] = T(best);
      its_number.at[j] = static_cast<Index>(chosen);
    }
    store(y + (to + i * pool.out_size), maximum);
    if (index != nullptr) store(index + (to + i * pool.out_size), its_number);
  }
}

template <class T, class Index, int vector, int kernel>
__global__ void dense_max_backward(const T* grad_y, const Index* index, T* grad_x, DensePool pool) {
  using A = accumulate_t<T>;
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  constexpr int images = Place<vector>::images;
  const Place<vector> place(pool);
  const Reaching<kernel> windows(place);
  const Cell cell(place, pool);
  Vector<T, vector> gradient[images][windows.count];
  Vector<Index, vector> chosen[images][windows.count];
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    UNROLLED for (int o = 0; o < windows.count; ++o) {
      const uint32_t from = place.window(pool, windows.h(o), windows.w(o)) + i * pool.out_size;
      gradient[i][o] = {};
      UNROLLED for (int j = 0; j < vector; ++j) chosen[i][o].at[j] = static_cast<Index>(-1);
      if (windows.there(o, pool)) {
        gradient[i][o] = load<vector>(grad_y + from);
        chosen[i][o] = load<vector>(index + from);
      }
    }
  }
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    UNROLLED for (int e = 0; e < cell.count; ++e) {
      A sum[vector] = {};
      UNROLLED for (int o = 0; o < windows.count; ++o) {
        const int tap = windows.tap(o, e);
        if (tap < 0) continue;
        const int mine = flat ? cell.h(e) * pool.width + cell.w(e) : tap;
        UNROLLED for (int j = 0; j < vector; ++j) {
          if (chosen[i][o].at[j] == static_cast<Index>(mine)) sum[j] += A(gradient[i][o].at[j]);
        }
      }
      if (!cell.there(e, pool)) continue;
      Vector<T, vector> out;
      UNROLLED for (int j = 0; j < vector; ++j) out.at[j] = T(sum[j]);
      store(grad_x + (place.element(pool, cell.h(e), cell.w(e)) + i * pool.size), out);
    }
  }
}

// Returns function(T{}, Index{}); false for float64, which is left to the general kernels.
template <class Function>
bool dispatch_types(const Tensor& map, const Tensor& index, const Function& function) {
  bool served = false;
  dispatch_floating(map.dtype, "max pooling", [&](auto type) {
    if constexpr (!std::is_same_v<decltype(type), double>)
      served = index.dtype == DType::int64 ? function(type, int64_t{}) : function(type, uint8_t{});
  });
  return served;
}

}  // namespace

bool launch_dense_max_forward(const MaxPoolForward& args, int64_t stream) {
  const auto& [x, y, index, window] = args;
  return dispatch_types(x, index, [&](auto type, auto kind) {
    using T = decltype(type);
    using Index = decltype(kind);
    return dispatch_dense_pool<T>({&x, &y, &index}, window, /*by_cell=*/false,
                                  [&](auto vector, auto kernel, const DensePool& pool) {
                                    launch(dense_max_forward<T, Index, vector, kernel>,
                                           blocks_for(pool.threads), block_size, 0, stream,
                                           static_cast<const T*>(x.data), static_cast<T*>(y.data),
                                           static_cast<Index*>(index.data), pool);
                                  });
  });
}

bool launch_dense_max_backward(const MaxPoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, grad_x, window] = args;
  return dispatch_types(grad_x, index, [&](auto type, auto kind) {
    using T = decltype(type);
    using Index = decltype(kind);
    return dispatch_dense_pool<T>(
        {&grad_x, &grad_y, &index}, window, /*by_cell=*/true,
        [&](auto vector, auto kernel, const DensePool& pool) {
          launch(dense_max_backward<T, Index, vector, kernel>, blocks_for(pool.threads), block_size,
                 0, stream, static_cast<const T*>(grad_y.data),
                 static_cast<const Index*>(index.data), static_cast<T*>(grad_x.data), pool);
        });
  });
}

}  // namespace pydl::cuda
