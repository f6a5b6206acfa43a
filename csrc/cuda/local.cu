// Locally connected layers: ../local.h has the definitions.
//
//   y[n, f, o]                 = bias[f, o] + sum over c, t of x[n, c, i] * weight[f, c T + t, o]
//   grad_x[n, c, i]            = sum over f, t of grad_y[n, f, o] * weight[f, c T + t, o]
//   grad_weight[f, c T + t, o] = sum over n of grad_y[n, f, o] * x[n, c, i]
//
// where i = o * stride - padding + t * dilation on each of three axes and T is the number of taps.
// A thread owns one element of the result, threads are numbered with the position innermost
// whatever the layouts, as the weight does: a warp reads 32 neighbours of the weight, which is by
// far the largest tensor.
//
// Least traffic: the weight, F * C * T * positions elements, once. Every element of it is used by N
// images only, so with few images the layer runs at the speed of memory whatever its arithmetic, 2
// N operations per element. Here the images run in different blocks and meet the weight in L2 at
// best: whether a thread should take several images is not measured yet.
#include "../local.h"
#include "element.h"

namespace pydl::cuda {
namespace {

// The input coordinate that tap `tap` of an axis reads for output `output`.
__device__ int64_t input_of(int64_t output, int64_t tap, const LocalWindow& window, int axis) {
  return output * window.stride[axis] - window.padding[axis] + tap * window.dilation[axis];
}

// The output whose tap `tap` of an axis falls on input coordinate `at`; negative where there is
// none.
__device__ int64_t output_of(int64_t at, int64_t tap, const LocalWindow& window, int axis,
                             int64_t outputs) {
  const int64_t reach = at + window.padding[axis] - tap * window.dilation[axis];
  const int64_t output = quotient(reach, window.stride[axis]);
  return output * window.stride[axis] == reach && output < outputs ? output : -1;
}

template <class T>
__global__ void forward(View<const T> x, View<const T> weight, View<const T> bias, View<T> y,
                        LocalWindow window, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, f, od, oh, ow] = element_of(number, y.size, false);
  A sum = bias.data != nullptr ? A(bias.at(0, f, od, oh, ow)) : A(0);
  const T* own = &weight.at(f, 0, od, oh, ow);  // [C * taps]
  for (int64_t c = 0; c < x.size[1]; ++c) {
    A part = 0;  // one sum per channel: short sums round less than one long one
    for (int64_t kd = 0; kd < window.kernel[0]; ++kd) {
      const int64_t d = input_of(od, kd, window, 0);
      for (int64_t kh = 0; kh < window.kernel[1]; ++kh) {
        const int64_t h = input_of(oh, kh, window, 1);
        for (int64_t kw = 0; kw < window.kernel[2]; ++kw, own += weight.stride[1]) {
          const int64_t w = input_of(ow, kw, window, 2);
          if (!inside(d, x.size[2]) || !inside(h, x.size[3]) || !inside(w, x.size[4])) continue;
          part += A(x.at(n, c, d, h, w)) * A(*own);
        }
      }
    }
    sum += part;
  }
  y.at(n, f, od, oh, ow) = T(sum);
}

template <class T>
__global__ void input_gradient(View<const T> grad_y, View<const T> weight, View<T> grad_x,
                               LocalWindow window, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, false);
  const int64_t taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
  A sum = 0;
  for (int64_t kd = 0; kd < window.kernel[0]; ++kd) {
    const int64_t od = output_of(d, kd, window, 0, grad_y.size[2]);
    if (od < 0) continue;
    for (int64_t kh = 0; kh < window.kernel[1]; ++kh) {
      const int64_t oh = output_of(h, kh, window, 1, grad_y.size[3]);
      if (oh < 0) continue;
      for (int64_t kw = 0; kw < window.kernel[2]; ++kw) {
        const int64_t ow = output_of(w, kw, window, 2, grad_y.size[4]);
        if (ow < 0) continue;
        const int64_t tap = (kd * window.kernel[1] + kh) * window.kernel[2] + kw;
        A part = 0;
        for (int64_t f = 0; f < grad_y.size[1]; ++f)
          part += A(grad_y.at(n, f, od, oh, ow)) * A(weight.at(f, c * taps + tap, od, oh, ow));
        sum += part;
      }
    }
  }
  grad_x.at(n, c, d, h, w) = T(sum);
}

template <class T>
__global__ void weight_gradient(View<const T> grad_y, View<const T> x, View<T> grad_weight,
                                LocalWindow window, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [f, row, od, oh, ow] = element_of(number, grad_weight.size, false);
  int64_t c = row;
  const int64_t kw = take(c, window.kernel[2]), kh = take(c, window.kernel[1]),
                kd = take(c, window.kernel[0]);
  const int64_t d = input_of(od, kd, window, 0), h = input_of(oh, kh, window, 1),
                w = input_of(ow, kw, window, 2);
  A sum = 0;
  if (inside(d, x.size[2]) && inside(h, x.size[3]) && inside(w, x.size[4])) {
    for (int64_t n = 0; n < x.size[0]; ++n)
      sum += A(grad_y.at(n, f, od, oh, ow)) * A(x.at(n, c, d, h, w));
  }
  grad_weight.at(f, row, od, oh, ow) = T(sum);
}

void check_local(const Tensor& x, const Tensor& weight, const Tensor& y,
                 const LocalWindow& window) {
  check(x.dtype == weight.dtype && x.dtype == y.dtype,
        "a locally connected layer expects tensors of one dtype");
  const int64_t taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
  check(weight.size[1] == x.size[1] * taps, "a locally connected layer of ", x.size[1],
        " channels and ", taps, " taps expects ", x.size[1] * taps, " weights a filter, got ",
        weight.size[1]);
  check(y.size[0] == x.size[0] && y.size[1] == weight.size[0], "a locally connected layer of ",
        x.size[0], " maps with ", weight.size[0], " filters gives as many, got ", y.size[0], " x ",
        y.size[1]);
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t stride = window.stride[axis], padding = window.padding[axis],
                  dilation = window.dilation[axis];
    check(stride >= 1 && dilation >= 1 && padding >= 0,
          "a locally connected layer expects stride and dilation of at least 1 and no negative "
          "padding, got ",
          stride, ", ", dilation, " and ", padding);
    const int64_t size = x.size[axis + 2], outputs = y.size[axis + 2];
    const int64_t room = size + 2 * padding - (window.kernel[axis] - 1) * dilation - 1;
    check(room >= 0 && outputs == room / stride + 1 && weight.size[axis + 2] == outputs,
          "a locally connected layer over ", size, " elements with kernel ", window.kernel[axis],
          ", stride ", stride, ", padding ", padding, " and dilation ", dilation, " does not give ",
          outputs, " with weights for ", weight.size[axis + 2]);
  }
}

}  // namespace

void local_forward(const LocalForward& args, int64_t stream) {
  const auto& [x, weight, bias, y, window] = args;
  check_local(x, weight, y, window);
  check(bias.data == nullptr ||
            (bias.dtype == y.dtype && bias.size[1] == y.size[1] && bias.size[2] == y.size[2] &&
             bias.size[3] == y.size[3] && bias.size[4] == y.size[4]),
        "a locally connected layer expects a bias like one map of its result");
  if (y.numel() == 0) return;
  dispatch_floating(y.dtype, "a locally connected layer", [&](auto type) {
    using T = decltype(type);
    launch(forward<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x),
           View<const T>(weight), View<const T>(bias), View<T>(y), window, y.numel());
  });
}

void local_grad_input(const LocalGradInput& args, int64_t stream) {
  const auto& [grad_y, weight, grad_x, window] = args;
  check_local(grad_x, weight, grad_y, window);
  if (grad_x.numel() == 0) return;
  dispatch_floating(grad_x.dtype, "a locally connected layer", [&](auto type) {
    using T = decltype(type);
    launch(input_gradient<T>, blocks_for(grad_x.numel()), block_size, 0, stream,
           View<const T>(grad_y), View<const T>(weight), View<T>(grad_x), window, grad_x.numel());
  });
}

void local_grad_weight(const LocalGradWeight& args, int64_t stream) {
  const auto& [grad_y, x, grad_weight, window] = args;
  check_local(x, grad_weight, grad_y, window);
  if (grad_weight.numel() == 0) return;
  dispatch_floating(x.dtype, "a locally connected layer", [&](auto type) {
    using T = decltype(type);
    launch(weight_gradient<T>, blocks_for(grad_weight.numel()), block_size, 0, stream,
           View<const T>(grad_y), View<const T>(x), View<T>(grad_weight), window,
           grad_weight.numel());
  });
}

}  // namespace pydl::cuda
