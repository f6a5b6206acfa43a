// Convolution and its three gradients, straight from the definition in ../conv.h:
//
//   y[n, f, o]           = activation(bias[f] + residual[n, f, o]
//                                     + sum over c, t of x[n, c, i] * weight[f, c, t])
//   grad_x[n, c, i]      = sum over f, t of grad_y[n, f, o] * weight[f, c, t]
//   grad_weight[f, c, t] = sum over n, o of grad_y[n, f, o] * x[n, c, i]
//   grad_bias[f]         = sum over n, o of grad_y[n, f, o]
//
// where i = o * stride - padding + t * dilation on each of three axes, terms without such an o or i
// do not exist, and c and f belong to one group. These are the direct kernels: no rearranged copy
// of x, nothing staged in shared memory but the partial sums of the last two, any stride, padding,
// dilation and group. A faster kernel is measured against these and checked by them.
//
// Forward, grad_x: a thread owns one element of the output. It walks the taps outside, so that the
// bounds (and, for grad_x, whether stride divides) are looked at once per tap, and the channels
// inside: two loads and a multiply-add. Where w is innermost, a warp reads neighbouring x and one
// and the same weight; in channels last one x and 32 filters' weights, whose lines later channels
// use up.
//
// grad_weight, grad_bias: a block owns a few elements and its threads share out the
// N * OD * OH * OW terms. Each thread strides through the terms in ascending order, then the block
// adds up by halves in shared memory: an order that depends on the shape alone, so results repeat
// bit for bit, in every layout the same.
//
// Arithmetic that cannot be avoided: 2 * N * F * OD * OH * OW * C/G * KD * KH * KW operations for y
// and for each of the two big gradients. Least traffic: each tensor once. The caches stand between
// the two: forward loads two values for each multiply-add, so it runs at the rate of L1, a small
// fraction of the arithmetic's.
#include "activation.h"
#include "conv_kernels.h"
#include "element.h"

namespace pydl::cuda {
namespace {

// start + the sum over i of a[i] * b[i]. The terms join in parts of 64, and the parts the sum: two
// short sums round less than one long one. Its callers, too, add up a row of taps, the rows of a
// plane and the planes.
template <class T>
__device__ accumulate_t<T> dot(accumulate_t<T> start, const T* a, int64_t a_stride, const T* b,
                               int64_t b_stride, int64_t count) {
  using A = accumulate_t<T>;
  constexpr int64_t most = 64;
  A sum = 0;
  for (int64_t from = 0; from < count; from += most) {
    const int64_t to = min(from + most, count);
    for (int64_t i = from; i < to; ++i) start += A(a[i * a_stride]) * A(b[i * b_stride]);
    sum += start;
    start = 0;
  }
  return sum + start;
}

template <class T>
__global__ void forward(View<const T> x, View<const T> weight, View<const T> bias,
                        View<const T> residual, View<T> y, ConvWindow window, Epilogue epilogue,
                        bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, f, od, oh, ow] = element_of(number, y.size, channels_last);
  const int64_t channels = weight.size[1];
  const int64_t group = quotient(f, quotient(y.size[1], window.groups));
  const T* map = &x.at(n, group * channels, 0, 0, 0);  // [C/G, D, H, W]
  const T* filter = &weight.at(f, 0, 0, 0, 0);         // [C/G, KD, KH, KW]

  A sum = bias.data != nullptr ? A(bias.at(0, f, 0, 0, 0)) : A(0);
  for (int64_t kd = 0; kd < weight.size[2]; ++kd) {
    const int64_t d = od * window.stride[0] - window.padding[0] + kd * window.dilation[0];
    if (!inside(d, x.size[2])) continue;
    A plane = 0;
    for (int64_t kh = 0; kh < weight.size[3]; ++kh) {
      const int64_t h = oh * window.stride[1] - window.padding[1] + kh * window.dilation[1];
      if (!inside(h, x.size[3])) continue;
      A row = 0;
      for (int64_t kw = 0; kw < weight.size[4]; ++kw) {
        const int64_t w = ow * window.stride[2] - window.padding[2] + kw * window.dilation[2];
        if (!inside(w, x.size[4])) continue;
        const T* values = map + d * x.stride[2] + h * x.stride[3] + w * x.stride[4];  // [C/G]
        const T* weights = filter + kd * weight.stride[2] + kh * weight.stride[3] +
                           kw * weight.stride[4];  // [C/G]
        row = dot(row, values, x.stride[1], weights, weight.stride[1], channels);
      }
      plane += row;
    }
    sum += plane;
  }
  if (residual.data != nullptr) sum += A(residual.at(n, f, od, oh, ow));
  y.at(n, f, od, oh, ow) = T(activated(sum, epilogue));
}

// The output whose tap `tap` of an axis falls on input coordinate `at`; negative where there is
// none.
__device__ int64_t output_of(int64_t at, int64_t tap, const ConvWindow& window, int axis,
                             int64_t outputs) {
  const int64_t reach = at + window.padding[axis] - tap * window.dilation[axis];
  const int64_t output = window.stride[axis] == 1 ? reach : quotient(reach, window.stride[axis]);
  return output * window.stride[axis] == reach && output < outputs ? output : -1;
}

template <class T>
__global__ void input_gradient(View<const T> grad_y, View<const T> weight, View<T> grad_x,
                               ConvWindow window, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  const int64_t channels = weight.size[1], filters = quotient(grad_y.size[1], window.groups);
  const int64_t group = quotient(c, channels);
  const T* gradients = &grad_y.at(n, group * filters, 0, 0, 0);                // [F/G, OD, OH, OW]
  const T* bank = &weight.at(group * filters, c - group * channels, 0, 0, 0);  // [F/G, KD, KH, KW]

  A sum = 0;
  for (int64_t kd = 0; kd < weight.size[2]; ++kd) {
    const int64_t od = output_of(d, kd, window, 0, grad_y.size[2]);
    if (od < 0) continue;
    A plane = 0;
    for (int64_t kh = 0; kh < weight.size[3]; ++kh) {
      const int64_t oh = output_of(h, kh, window, 1, grad_y.size[3]);
      if (oh < 0) continue;
      A row = 0;
      for (int64_t kw = 0; kw < weight.size[4]; ++kw) {
        const int64_t ow = output_of(w, kw, window, 2, grad_y.size[4]);
        if (ow < 0) continue;
        const T* values = gradients + od * grad_y.stride[2] + oh * grad_y.stride[3] +
                          ow * grad_y.stride[4];  // [F/G]
        const T* weights =
            bank + kd * weight.stride[2] + kh * weight.stride[3] + kw * weight.stride[4];  // [F/G]
        row = dot(row, values, grad_y.stride[1], weights, weight.stride[0], filters);
      }
      plane += row;
    }
    sum += plane;
  }
  grad_x.at(n, c, d, h, w) = T(sum);
}

// partial[i][t] for every thread t of the block is added up into partial[i][0], by halves. All
// threads must call.
template <int sums, class A>
__device__ void add_up(A (&partial)[sums][block_size]) {
  const int t = threadIdx.x;
  __syncthreads();
  for (int half = block_size / 2; half > 0; half /= 2) {
    if (t < half) {
      for (int i = 0; i < sums; ++i) partial[i][t] += partial[i][t + half];
    }
    __syncthreads();
  }
}

// A block owns one tap, one input channel of a group and a tile of that group's filters: the term's
// coordinates, the bounds and the load of x serve them all. Blocks are numbered with the channel
// innermost, so that those that run at the same time read the same parts of x and grad_y, in
// channels last the same 32-byte sectors.
constexpr int filters_per_block = 4;

template <class T>
__global__ void weight_gradient(View<const T> grad_y, View<const T> x, View<T> grad_weight,
                                ConvWindow window) {
  using A = accumulate_t<T>;
  SHARED(A, partial, [filters_per_block][block_size]);
  const int64_t channels = grad_weight.size[1], filters = quotient(grad_y.size[1], window.groups);
  int64_t rest = blockIdx.x;
  const int64_t c = take(rest, channels);
  const int64_t tile = take(rest, quotient(filters + filters_per_block - 1, filters_per_block));
  const int64_t group = take(rest, window.groups);
  const int64_t kw = take(rest, grad_weight.size[4]), kh = take(rest, grad_weight.size[3]),
                kd = rest;
  const int64_t f = group * filters + tile * filters_per_block;
  const int64_t mine =
      min(filters - tile * filters_per_block, static_cast<int64_t>(filters_per_block));

  A sum[filters_per_block] = {};
  const int64_t terms = grad_y.size[0] * grad_y.size[2] * grad_y.size[3] * grad_y.size[4];
  for (int64_t term = threadIdx.x; term < terms; term += block_size) {
    int64_t n = term;
    const int64_t ow = take(n, grad_y.size[4]), oh = take(n, grad_y.size[3]),
                  od = take(n, grad_y.size[2]);
    const int64_t d = od * window.stride[0] - window.padding[0] + kd * window.dilation[0];
    const int64_t h = oh * window.stride[1] - window.padding[1] + kh * window.dilation[1];
    const int64_t w = ow * window.stride[2] - window.padding[2] + kw * window.dilation[2];
    if (!inside(d, x.size[2]) || !inside(h, x.size[3]) || !inside(w, x.size[4])) continue;
    const A value = x.at(n, group * channels + c, d, h, w);
    const T* gradients = &grad_y.at(n, f, od, oh, ow);  // [mine]
    for (int i = 0; i < filters_per_block; ++i) {
      if (i < mine) sum[i] += value * A(gradients[i * grad_y.stride[1]]);
    }
  }
  for (int i = 0; i < filters_per_block; ++i) partial[i][threadIdx.x] = sum[i];
  add_up(partial);
  if (threadIdx.x < mine)
    grad_weight.at(f + threadIdx.x, c, kd, kh, kw) = T(partial[threadIdx.x][0]);
}

// Every `step`-th pixel of a channel of a map, by additions: dividing for each would cost a hundred
// instructions.
struct Walk {
  int64_t d, h, w, offset;
  int64_t step_d, step_h, step_w, step_offset;
  int64_t carry_d, carry_h, carry_w;  // what an axis that is through adds to the offset

  template <class T>
  __device__ Walk(const View<T>& map, int64_t first, int64_t step) {
    const auto &size = map.size, &stride = map.stride;
    w = take(first, size[4]), h = take(first, size[3]), d = take(first, size[2]);
    step_w = take(step, size[4]), step_h = take(step, size[3]), step_d = take(step, size[2]);
    offset = first * stride[0] + d * stride[2] + h * stride[3] + w * stride[4];
    step_offset = step * stride[0] + step_d * stride[2] + step_h * stride[3] + step_w * stride[4];
    carry_d = stride[0] - size[2] * stride[2];
    carry_h = stride[2] - size[3] * stride[3];
    carry_w = stride[3] - size[4] * stride[4];
  }
  __device__ void advance(const int64_t (&size)[5]) {
    offset += step_offset;
    w += step_w;
    if (w >= size[4]) w -= size[4], ++h, offset += carry_w;
    h += step_h;
    if (h >= size[3]) h -= size[3], ++d, offset += carry_h;
    d += step_d;
    if (d >= size[2]) d -= size[2], offset += carry_d;
  }
};

// Of a map with gaps, or one of more than 2^29 elements: conv_bias_dense.cu serves others. A block
// owns one filter and adds up in double: these sums are the longest of all (N * OD * OH * OW), and a
// single addition for each value loaded is not what they wait for, even where doubles are slow. A
// thread loads eight values, then adds them, so that it waits once for all.
template <class T>
__global__ void bias_gradient(View<const T> grad_y, View<T> grad_bias) {
  using A = accumulate_t<T>;
  constexpr int together = 8;
  SHARED(double, partial, [1][block_size]);
  double sum = 0;
  const int64_t terms = grad_y.size[0] * grad_y.size[2] * grad_y.size[3] * grad_y.size[4];
  if (threadIdx.x < terms) {
    const T* const channel = &grad_y.at(0, blockIdx.x, 0, 0, 0);
    Walk pixel(grad_y, threadIdx.x, block_size);
    for (int64_t term = threadIdx.x; term < terms; term += together * block_size) {
      A value[together] = {};
      UNROLLED for (int i = 0; i < together; ++i) {
        if (term + i * block_size < terms) value[i] = A(channel[pixel.offset]);
        pixel.advance(grad_y.size);
      }
      UNROLLED for (int i = 0; i < together; ++i) sum += value[i];
    }
  }
  partial[0][threadIdx.x] = sum;
  add_up(partial);
  if (threadIdx.x == 0) grad_bias.at(0, blockIdx.x, 0, 0, 0) = T(static_cast<A>(partial[0][0]));
}

}  // namespace

void conv_forward_direct(const ConvForward& args, int64_t stream) {
  const Tensor& y = args.y;
  dispatch_floating(y.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    launch(forward<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(args.x),
           View<const T>(args.weight), View<const T>(args.bias), View<const T>(args.residual),
           View<T>(y), args.window, args.epilogue, y.channels_last(), y.numel());
  });
}

void conv_grad_input_direct(const ConvGradInput& args, int64_t stream) {
  const auto& [grad_y, weight, grad_x, window] = args;
  dispatch_floating(grad_x.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    launch(input_gradient<T>, blocks_for(grad_x.numel()), block_size, 0, stream,
           View<const T>(grad_y), View<const T>(weight), View<T>(grad_x), window,
           grad_x.channels_last(), grad_x.numel());
  });
}

void conv_grad_weight_direct(const ConvGradWeight& args, int64_t stream) {
  const Tensor& weight = args.grad_weight;
  const int64_t tiles =
      blocks_for(weight.size[0] / args.window.groups, filters_per_block) * args.window.groups;
  const int64_t blocks = tiles * (weight.numel() / weight.size[0]);
  dispatch_floating(weight.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    launch(weight_gradient<T>, blocks, block_size, 0, stream, View<const T>(args.grad_y),
           View<const T>(args.x), View<T>(weight), args.window);
  });
}

void conv_grad_bias_direct(const ConvGradBias& args, int64_t stream) {
  const Tensor &grad_y = args.grad_y, &bias = args.grad_bias;
  dispatch_floating(grad_y.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    launch(bias_gradient<T>, bias.size[1], block_size, 0, stream, View<const T>(grad_y),
           View<T>(bias));
  });
}

}  // namespace pydl::cuda
