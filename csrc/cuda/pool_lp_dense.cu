// Power-average pooling with p = 2 of maps that lie alike, by the windows that networks have
// (pool_dense.h): ../pool_lp.h has the definitions, pool_lp.cu the kernels for all others and the
// least traffic.
//
// A window's share of the gradient, which all its elements multiply, is computed once for the cell.
// Sums are in the order of the others: of taps forward, of windows backward, both ascending.
#include <cmath>

#include "../pool_lp.h"
#include "pool_dense.h"

namespace pydl::cuda {
namespace {

// What the sum over a window counts for along an axis: 1, or more where ceil mode lets it reach beyond
// the map. These few quotients, and the product of two, are exact.
template <int kernel>
__device__ float weight_along(int output, int size) {
  const int inside = size - output * DensePool::stride;
  float weight = 1;
  UNROLLED for (int taps = kernel - 1; taps > 0; --taps) {
    if (inside <= taps) weight = static_cast<float>(kernel) / static_cast<float>(taps);
  }
  return weight;
}

template <int kernel>
__device__ float weight_of(int oh, int ow, const DensePool& pool) {
  return weight_along<kernel>(oh, pool.height) * weight_along<kernel>(ow, pool.width);
}

template <class T, int vector, int kernel>
__global__ void dense_lp_forward(const T* x, T* y, DensePool pool) {
  constexpr int images = Place<vector>::images;
  const Place<vector> place(pool);
  const Taps<kernel> taps(place, pool);
  Vector<T, vector> value[images][taps.count];
  load_taps<false>(value, x, place, taps, pool);
  const float weight = weight_of<kernel>(place.row, place.column, pool);
  const uint32_t to = place.window(pool, place.row, place.column);
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    Vector<T, vector> root;
    UNROLLED for (int j = 0; j < vector; ++j) {
      float sum = 0;
      UNROLLED for (int t = 0; t < taps.count; ++t) {
        const float one = float(value[i][t].at[j]);
        sum += one * one;
      }
      root.at[j] = T(sqrt(sum * weight));
    }
    store(y + (to + i * pool.out_size), root);
  }
}

template <class T, int vector, int kernel>
__global__ void dense_lp_backward(const T* grad_y, const T* x, const T* y, T* grad_x,
                                  DensePool pool) {
  constexpr int images = Place<vector>::images;
  const Place<vector> place(pool);
  const Reaching<kernel> windows(place);
  const Cell cell(place, pool);
  Vector<T, vector> gradient[images][windows.count], root[images][windows.count];
  Vector<T, vector> value[images][cell.count];
  float weight[windows.count];
  UNROLLED for (int o = 0; o < windows.count; ++o) {
    const int oh = windows.h(o), ow = windows.w(o);
    const bool there = windows.there(o, pool);
    weight[o] = weight_of<kernel>(oh, ow, pool);
    UNROLLED for (int i = 0; i < images; ++i) {
      const uint32_t from = place.window(pool, oh, ow) + i * pool.out_size;
      gradient[i][o] = {}, root[i][o] = {};
      if (there && place.has(i)) {
        gradient[i][o] = load<vector>(grad_y + from);
        root[i][o] = load<vector>(y + from);
      }
    }
  }
  UNROLLED for (int i = 0; i < images; ++i) {
    UNROLLED for (int e = 0; e < cell.count; ++e) {
      const uint32_t from = place.element(pool, cell.h(e), cell.w(e)) + i * pool.size;
      if (cell.there(e, pool) && place.has(i)) value[i][e] = load<vector>(x + from);
    }
  }
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    float sum[cell.count][vector] = {};
    UNROLLED for (int o = 0; o < windows.count; ++o) {
      UNROLLED for (int j = 0; j < vector; ++j) {
        const float its_root = float(root[i][o].at[j]);
        const float share = float(gradient[i][o].at[j]) * weight[o] / its_root;
        UNROLLED for (int e = 0; e < cell.count; ++e) {
          if (windows.tap(o, e) >= 0 && its_root != 0) sum[e][j] += share;
        }
      }
    }
    UNROLLED for (int e = 0; e < cell.count; ++e) {
      if (!cell.there(e, pool)) continue;
      Vector<T, vector> out;
      UNROLLED for (int j = 0; j < vector; ++j) {
        out.at[j] = T(sum[e][j] * float(value[i][e].at[j]));
      }
      store(grad_x + (place.element(pool, cell.h(e), cell.w(e)) + i * pool.size), out);
    }
  }
}

// Returns function(T{}); false for float64 and other powers, which are left to the general kernels.
template <class Function>
bool dispatch_type(const Tensor& map, double p, const Function& function) {
  bool served = false;
  dispatch_floating(map.dtype, "Lp pooling", [&](auto type) {
    if constexpr (!std::is_same_v<decltype(type), double>) served = p == 2 && function(type);
  });
  return served;
}

}  // namespace

bool launch_dense_lp(const LpPoolForward& args, int64_t stream) {
  const Tensor &x = args.x, &y = args.y;
  return dispatch_type(x, args.norm_type, [&](auto type) {
    using T = decltype(type);
    return dispatch_dense_pool<T>(
        {&x, &y}, args.window, /*by_cell=*/false,
        [&](auto vector, auto kernel, const DensePool& pool) {
          launch(dense_lp_forward<T, vector, kernel>, blocks_for(pool.threads), block_size, 0,
                 stream, static_cast<const T*>(x.data), static_cast<T*>(y.data), pool);
        });
  });
}

bool launch_dense_lp(const LpPoolBackward& args, int64_t stream) {
  const Tensor &grad_y = args.grad_y, &x = args.x, &y = args.y, &grad_x = args.grad_x;
  return dispatch_type(grad_x, args.norm_type, [&](auto type) {
    using T = decltype(type);
    return dispatch_dense_pool<T>(
        {&grad_x, &grad_y, &x, &y}, args.window, /*by_cell=*/true,
        [&](auto vector, auto kernel, const DensePool& pool) {
          launch(dense_lp_backward<T, vector, kernel>, blocks_for(pool.threads), block_size, 0,
                 stream, static_cast<const T*>(grad_y.data), static_cast<const T*>(x.data),
                 static_cast<const T*>(y.data), static_cast<T*>(grad_x.data), pool);
        });
  });
}

}  // namespace pydl::cuda
