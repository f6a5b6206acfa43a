// Bias, residual and activation of a map: ../bias_act.h has the definitions.
//
//   forward    y = activation(x + bias[c] + residual)
//   backward   grad_x = grad_y * activation'(saved)
//
// Where the maps lie alike a thread owns vectors of them (dense.h), else one element, in the order
// of the result's memory; so a warp reads and writes neighbours. relu's gradient is a choice, not a
// product: where saved <= 0 it is 0 whatever grad_y is.
//
// Least traffic: x and the residual in, y out; grad_y and saved in, grad_x out. Arithmetic is an
// addition or two and, for silu, an exponential and a division: nothing next to the traffic. It is
// a pass of its own only where no convolution stands before it to do this in its own epilogue.
#include "../bias_act.h"
#include "activation.h"
#include "dense.h"
#include "element.h"

namespace pydl::cuda {
namespace {

template <class Function>
__device__ __forceinline__ void with_any(Activation activation, const Function& function) {
  with_activation<Activation::none, Activation::relu, Activation::leaky_relu, Activation::silu>(
      activation, function);
}

template <class A>
__device__ __forceinline__ A passed_back(A gradient, A z, const Epilogue& epilogue) {
  const bool none = epilogue.activation == Activation::relu && z <= 0;
  return none ? A(0) : gradient * slope_of_activation(z, epilogue);
}

template <class T, int width>
__global__ void dense_forward(const T* x, const T* bias, const T* residual, T* y, Epilogue epilogue,
                              Dense dense) {
  using A = accumulate_t<T>;
  const Own<width> own(dense);
  if (!own.inside) return;
  Vector<T, width> value[Dense::periods], other[Dense::periods], level = {};
  UNROLLED for (int i = 0; i < Dense::periods; ++i) {
    if (!own.has(i)) break;
    value[i] = load<width>(x + own[i]);
    if (residual != nullptr) other[i] = load<width>(residual + own[i]);
  }
  if (bias != nullptr)
    own.with_channels([&]<int n>(std::integral_constant<int, n>, uint32_t c) {
      level = repeated<width>(load<n>(bias + c));
    });
  with_any(epilogue.activation, [&]<Activation activation>(Is<activation>) {
    UNROLLED for (int i = 0; i < Dense::periods; ++i) {
      if (!own.has(i)) break;
      UNROLLED for (int j = 0; j < width; ++j) {
        A z = A(value[i].at[j]);
        if (bias != nullptr) z += A(level.at[j]);
        if (residual != nullptr) z += A(other[i].at[j]);
        value[i].at[j] = T(activated(z, {activation, epilogue.slope}));
      }
      store(y + own[i], value[i]);
    }
  });
}

template <class T, int width>
__global__ void dense_backward(const T* grad_y, const T* saved, T* grad_x, Epilogue epilogue,
                               Dense dense) {
  using A = accumulate_t<T>;
  const Own<width> own(dense);
  Vector<T, width> gradient[Dense::periods], z[Dense::periods];
  UNROLLED for (int i = 0; i < Dense::periods; ++i) {
    if (!own.has(i)) break;
    gradient[i] = load<width>(grad_y + own[i]);
    z[i] = load<width>(saved + own[i]);
  }
  with_any(epilogue.activation, [&]<Activation activation>(Is<activation>) {
    UNROLLED for (int i = 0; i < Dense::periods; ++i) {
      if (!own.has(i)) break;
      UNROLLED for (int j = 0; j < width; ++j) {
        const A passed =
            passed_back(A(gradient[i].at[j]), A(z[i].at[j]), {activation, epilogue.slope});
        gradient[i].at[j] = T(passed);
      }
      store(grad_x + own[i], gradient[i]);
    }
  });
}

template <class T>
__global__ void forward(View<const T> x, View<const T> bias, View<const T> residual, View<T> y,
                        Epilogue epilogue, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, y.size, channels_last);
  A z = A(x.at(n, c, d, h, w));
  if (bias.data != nullptr) z += A(bias.at(0, c, 0, 0, 0));
  if (residual.data != nullptr) z += A(residual.at(n, c, d, h, w));
  y.at(n, c, d, h, w) = T(activated(z, epilogue));
}

template <class T>
__global__ void backward(View<const T> grad_y, View<const T> saved, View<T> grad_x,
                         Epilogue epilogue, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  const A gradient = A(grad_y.at(n, c, d, h, w)), z = A(saved.at(n, c, d, h, w));
  grad_x.at(n, c, d, h, w) = T(passed_back(gradient, z, epilogue));
}

void check_like(const Tensor& a, const Tensor& b, const char* what) {
  check(a.dtype == b.dtype && same_size(a, b), "the activation expects ", what,
        " of the result's size and dtype");
}

}  // namespace

void bias_act_forward(const BiasActForward& args, int64_t stream) {
  const auto& [x, bias, residual, y, epilogue] = args;
  check_like(x, y, "an input");
  if (residual.data != nullptr) check_like(residual, y, "a residual");
  check(bias.data == nullptr || (bias.dtype == y.dtype && bias.size[1] == y.size[1]),
        "the activation expects a bias of the input's dtype with ", y.size[1], " values");
  if (y.numel() == 0) return;
  dispatch_floating(y.dtype, "the activation", [&](auto type) {
    using T = decltype(type);
    const bool served = dispatch_dense<T>(
        {&y, &x, &residual}, {&bias}, y.channels_last(), [&](auto width, const Dense& dense) {
          launch(dense_forward<T, width>, blocks_for(dense.threads), block_size, 0, stream,
                 static_cast<const T*>(x.data), static_cast<const T*>(bias.data),
                 static_cast<const T*>(residual.data), static_cast<T*>(y.data), epilogue, dense);
        });
    if (served) return;
    launch(forward<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x),
           View<const T>(bias), View<const T>(residual), View<T>(y), epilogue, y.channels_last(),
           y.numel());
  });
}

void bias_act_backward(const BiasActBackward& args, int64_t stream) {
  const auto& [grad_y, saved, grad_x, epilogue] = args;
  check_like(grad_y, grad_x, "a gradient");
  check_like(saved, grad_x, "a saved sum");
  if (grad_x.numel() == 0) return;
  dispatch_floating(grad_x.dtype, "the activation", [&](auto type) {
    using T = decltype(type);
    const bool served = dispatch_dense<T>(
        {&grad_x, &grad_y, &saved}, {}, grad_x.channels_last(),
        [&](auto width, const Dense& dense) {
          launch(dense_backward<T, width>, blocks_for(dense.threads), block_size, 0, stream,
                 static_cast<const T*>(grad_y.data), static_cast<const T*>(saved.data),
                 static_cast<T*>(grad_x.data), epilogue, dense);
        });
    if (served) return;
    launch(backward<T>, blocks_for(grad_x.numel()), block_size, 0, stream, View<const T>(grad_y),
           View<const T>(saved), View<T>(grad_x), epilogue, grad_x.channels_last(), grad_x.numel());
  });
}

}  // namespace pydl::cuda
