// Average pooling of maps that lie alike, by the windows that networks have (pool_dense.h): ../pool.h
// has the definitions, pool.cu the kernels for all others and the least traffic.
//
// Sums are in the order of the others: of taps forward, of windows backward, both ascending.
#include "pool_dense.h"

namespace pydl::cuda {
namespace {

// What windows are divided by.
struct Divided {
  int by;  // 0: what they count
  bool count_include_pad;

  // counted_taps() in 32 bits.
  template <int kernel>
  __device__ int counted(int output, int padding, int size) const {
    const int start = output * DensePool::stride - padding;
    const int extension = count_include_pad ? padding : 0;
    return min(start + kernel, size + extension) - max(start, -extension);
  }
  template <int kernel>
  __device__ int divisor(int oh, int ow, const DensePool& pool) const {
    if (by != 0) return by;
    return counted<kernel>(oh, pool.padding_h, pool.height) *
           counted<kernel>(ow, pool.padding_w, pool.width);
  }
};

template <class T, int vector, int kernel>
__global__ void dense_avg_forward(const T* x, T* y, Divided divided, DensePool pool) {
  using A = accumulate_t<T>;
  constexpr int images = Place<vector>::images;
  const Place<vector> place(pool);
  const Taps<kernel> taps(place, pool);
  Vector<T, vector> value[images][taps.count];
  load_taps<false>(value, x, place, taps, pool);
  const A divisor = static_cast<A>(divided.divisor<kernel>(place.row, place.column, pool));
  const uint32_t to = place.window(pool, place.row, place.column);
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    Vector<T, vector> average;
    UNROLLED for (int j = 0; j < vector; ++j) {
      A sum = 0;
      UNROLLED for (int t = 0; t < taps.count; ++t) sum += A(value[i][t].at[j]);
      average.at[j] = T(sum / divisor);
    }
    store(y + (to + i * pool.out_size), average);
  }
}

template <class T, int vector, int kernel>
__global__ void dense_avg_backward(const T* grad_y, T* grad_x, Divided divided, DensePool pool) {
  using A = accumulate_t<T>;
  constexpr int images = Place<vector>::images;
  const Place<vector> place(pool);
  const Reaching<kernel> windows(place);
  const Cell cell(place, pool);
  Vector<T, vector> gradient[images][windows.count];
  A divisor[windows.count];
  UNROLLED for (int o = 0; o < windows.count; ++o) {
    const int oh = windows.h(o), ow = windows.w(o);
    const bool there = windows.there(o, pool);
    divisor[o] = there ? static_cast<A>(divided.divisor<kernel>(oh, ow, pool)) : A(1);
    UNROLLED for (int i = 0; i < images; ++i) {
      const uint32_t from = place.window(pool, oh, ow) + i * pool.out_size;
      gradient[i][o] = {};
      if (there && place.has(i)) gradient[i][o] = load<vector>(grad_y + from);
    }
  }
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    A sum[cell.count][vector] = {};
    UNROLLED for (int o = 0; o < windows.count; ++o) {
      UNROLLED for (int j = 0; j < vector; ++j) {
        const A share = A(gradient[i][o].at[j]) / divisor[o];
        UNROLLED for (int e = 0; e < cell.count; ++e) {
          if (windows.tap(o, e) >= 0) sum[e][j] += share;
        }
      }
    }
    UNROLLED for (int e = 0; e < cell.count; ++e) {
      if (!cell.there(e, pool)) continue;
      Vector<T, vector> out;
      UNROLLED for (int j = 0; j < vector; ++j) out.at[j] = T(sum[e][j]);
      store(grad_x + (place.element(pool, cell.h(e), cell.w(e)) + i * pool.size), out);
    }
  }
}

// Returns function(T{}); false for float64, which is left to the general kernels.
template <class Function>
bool dispatch_type(const Tensor& map, const Function& function) {
  bool served = false;
  dispatch_floating(map.dtype, "average pooling", [&](auto type) {
    if constexpr (!std::is_same_v<decltype(type), double>) served = function(type);
  });
  return served;
}

}  // namespace

bool launch_dense_avg_forward(const AvgPoolForward& args, int64_t stream) {
  const auto& [x, y, window, count_include_pad, divisor] = args;
  const Divided divided = {static_cast<int>(divisor), count_include_pad};
  return divided.by == divisor && dispatch_type(x, [&](auto type) {
           using T = decltype(type);
           return dispatch_dense_pool<T>({&x, &y}, window, /*by_cell=*/false,
                                         [&](auto vector, auto kernel, const DensePool& pool) {
                                           launch(dense_avg_forward<T, vector, kernel>,
                                                  blocks_for(pool.threads), block_size, 0, stream,
                                                  static_cast<const T*>(x.data),
                                                  static_cast<T*>(y.data), divided, pool);
                                         });
         });
}

bool launch_dense_avg_backward(const AvgPoolBackward& args, int64_t stream) {
  const auto& [grad_y, grad_x, window, count_include_pad, divisor] = args;
  const Divided divided = {static_cast<int>(divisor), count_include_pad};
  return divided.by == divisor && dispatch_type(grad_x, [&](auto type) {
           using T = decltype(type);
           return dispatch_dense_pool<T>({&grad_x, &grad_y}, window, /*by_cell=*/true,
                                         [&](auto vector, auto kernel, const DensePool& pool) {
                                           launch(dense_avg_backward<T, vector, kernel>,
                                                  blocks_for(pool.threads), block_size, 0, stream,
                                                  static_cast<const T*>(grad_y.data),
                                                  static_cast<T*>(grad_x.data), divided, pool);
                                         });
         });
}

}  // namespace pydl::cuda
