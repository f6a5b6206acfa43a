// Power-average pooling: ../pool_lp.h has the definition.
//
//   forward    y[o]      = (k / count[o] * sum of x[i]^p over window o)^(1 / p)
//   backward   grad_x[i] = x[i]^(p - 1) * sum of grad_y[o] * k / count[o] * y[o]^(1 - p)
//                          over the windows o that hold i and have y[o] != 0
//
// A thread owns one element of the output, y forward and grad_x backward, and backward gathers, in
// ascending order of the windows. Least traffic: forward x read and y written once, backward x, y
// and grad_y read and grad_x written once; PyTorch's chain of eight operators moves about 30 bytes
// per element of x. Arithmetic for p = 2: a product and an addition per tap, a root per output. For
// p = 2 the windows that networks have are those of pool_lp_dense.cu, where the maps lie alike.
#include <cmath>

#include "../pool_lp.h"
#include "pool_window.h"

namespace pydl::cuda {

// Pool, and say so (pool_lp_dense.cu).
bool launch_dense_lp(const LpPoolForward& args, int64_t stream);
bool launch_dense_lp(const LpPoolBackward& args, int64_t stream);

namespace {

// x^p: by multiplication for p = 1 and 2, which every known network has.
template <int known, class A>
__device__ A power(A x, A p) {
  if constexpr (known == 1) return x;
  if constexpr (known == 2) return x * x;
  return pow(x, p);
}

template <int known, class T>
__global__ void lp_forward(View<const T> x, View<T> y, PoolWindow window, double p,
                           bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, od, oh, ow] = element_of(number, y.size, channels_last);
  const T* plane = &x.at(n, c, 0, 0, 0);  // [D, H, W]

  const Tap first_d = first_tap(window, 0, od), first_h = first_tap(window, 1, oh),
            first_w = first_tap(window, 2, ow);
  A sum = 0;
  for (Tap d = first_d; d.number < window.kernel[0] && d.at < x.size[2]; d.advance(1)) {
    for (Tap h = first_h; h.number < window.kernel[1] && h.at < x.size[3]; h.advance(1)) {
      const T* row = plane + d.at * x.stride[2] + h.at * x.stride[3];  // [W]
      for (Tap w = first_w; w.number < window.kernel[2] && w.at < x.size[4]; w.advance(1)) {
        sum += power<known>(A(row[w.at * x.stride[4]]), A(p));
      }
    }
  }
  const int64_t inside = counted_taps(window, 0, od, x.size[2], false) *
                         counted_taps(window, 1, oh, x.size[3], false) *
                         counted_taps(window, 2, ow, x.size[4], false);
  const int64_t taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
  if (inside != taps) sum *= static_cast<A>(taps) / static_cast<A>(inside);
  if constexpr (known == 0) sum = pow(sum, A(1 / p));
  if constexpr (known == 2) sum = sqrt(sum);
  y.at(n, c, od, oh, ow) = T(sum);
}

template <int known, class T>
__global__ void lp_backward(View<const T> grad_y, View<const T> x, View<const T> y, View<T> grad_x,
                            PoolWindow window, double p, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  const T* gradients = &grad_y.at(n, c, 0, 0, 0);  // [OD, OH, OW]
  const T* roots = &y.at(n, c, 0, 0, 0);           // [OD, OH, OW]

  const Windows over_d = windows_over(window, 0, d, y.size[2]);
  const Windows over_h = windows_over(window, 1, h, y.size[3]);
  const Windows over_w = windows_over(window, 2, w, y.size[4]);
  const int64_t taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
  A sum = 0;
  for (int64_t od = over_d.first; od <= over_d.last; ++od) {
    const int64_t inside_d = counted_taps(window, 0, od, x.size[2], false);
    for (int64_t oh = over_h.first; oh <= over_h.last; ++oh) {
      const int64_t inside_dh = inside_d * counted_taps(window, 1, oh, x.size[3], false);
      const T* gradient_row = gradients + od * grad_y.stride[2] + oh * grad_y.stride[3];  // [OW]
      const T* root_row = roots + od * y.stride[2] + oh * y.stride[3];                    // [OW]
      ROLLED
      for (int64_t ow = over_w.first; ow <= over_w.last; ++ow) {
        const int64_t inside = inside_dh * counted_taps(window, 2, ow, x.size[4], false);
        A share = A(gradient_row[ow * grad_y.stride[4]]);
        if (inside != taps) share *= static_cast<A>(taps) / static_cast<A>(inside);
        const A root = A(root_row[ow * y.stride[4]]);
        if constexpr (known == 0) share *= pow(root, A(1 - p));
        if constexpr (known == 2) share /= root;
        if (root != 0) sum += share;
      }
    }
  }
  const A value = A(x.at(n, c, d, h, w));
  if constexpr (known == 0) sum *= pow(value, A(p - 1));
  if constexpr (known == 2) sum *= value;
  grad_x.at(n, c, d, h, w) = T(sum);
}

void check_lp(const Tensor& x, const Tensor& y, const PoolWindow& window, double p) {
  check_pool(x, y, window);
  for (int axis = 0; axis < 3; ++axis) {
    check(window.padding[axis] == 0 && window.dilation[axis] == 1,
          "Lp pooling expects windows without padding or dilation");
  }
  check(std::isfinite(p) && p != 0, "Lp pooling expects a finite norm_type other than 0, got ", p);
}

// Calls function(constant, T{}) with 1 or 2 where that is p, else with 0.
template <class Function>
void dispatch_lp(DType dtype, double p, Function&& function) {
  dispatch_floating(dtype, "Lp pooling", [&](auto type) {
    if (p == 1) return function(std::integral_constant<int, 1>{}, type);
    if (p == 2) return function(std::integral_constant<int, 2>{}, type);
    function(std::integral_constant<int, 0>{}, type);
  });
}

}  // namespace

void lp_pool_forward(const LpPoolForward& args, int64_t stream) {
  const auto& [x, y, window, p] = args;
  check_lp(x, y, window, p);
  if (y.numel() == 0 || launch_dense_lp(args, stream)) return;
  dispatch_lp(x.dtype, p, [&](auto known, auto type) {
    using T = decltype(type);
    launch(lp_forward<decltype(known)::value, T>, blocks_for(y.numel()), block_size, 0, stream,
           View<const T>(x), View<T>(y), window, p, y.channels_last(), y.numel());
  });
}

void lp_pool_backward(const LpPoolBackward& args, int64_t stream) {
  const auto& [grad_y, x, y, grad_x, window, p] = args;
  check_lp(x, y, window, p);
  check(grad_y.dtype == y.dtype && same_size(grad_y, y) && grad_x.dtype == x.dtype &&
            same_size(grad_x, x),
        "Lp pooling expects gradients like what they are of");
  if (grad_x.numel() == 0 || launch_dense_lp(args, stream)) return;
  dispatch_lp(x.dtype, p, [&](auto known, auto type) {
    using T = decltype(type);
    launch(lp_backward<decltype(known)::value, T>, blocks_for(grad_x.numel()), block_size, 0,
           stream, View<const T>(grad_y), View<const T>(x), View<const T>(y), View<T>(grad_x),
           window, p, grad_x.channels_last(), grad_x.numel());
  });
}

}  // namespace pydl::cuda
