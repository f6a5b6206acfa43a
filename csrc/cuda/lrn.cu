// Local response normalisation across channels: ../lrn.h has the equations.
//
//   forward    scale[c]  = k + alpha / size * sum of x[c']^2 over the window of c
//              y[c]      = x[c] * scale[c]^-beta
//   backward   own[c]    = grad_y[c] * scale[c]^-beta
//              term[c]   = own[c] * x[c] / scale[c]
//              grad_x[c] = own[c]
//                          - 2 * alpha * beta / size * x[c] * sum of term[c']
//                            over the transposed window of c
//
// Every position (n, d, h, w) is a column of C values by itself. A thread owns one position and a
// strip of neighbouring channels, one sum for each in registers. It walks the channels that any
// window of the strip reaches, once and upwards, and adds each value to the sums whose windows hold
// it: size + strip - 1 values serve `strip` outputs, whatever the window's size. Backward makes
// each term on the way, from a scale recomputed with `size` further loads.
//
// A running sum (add the value that enters, subtract the one that leaves) would load less, but a
// large value that leaves takes the small ones' digits along, and a NaN or an infinity never
// leaves. These sums are fresh, their order fixed.
//
// The strip is 8 channels where w is innermost: neighbouring threads are neighbouring positions,
// every load coalesces, and the window's overlap is read from L1. In channels last it is 1 channel:
// neighbouring threads are neighbouring channels, and the same overlap lies between the threads of
// a warp.
//
// Least traffic: forward reads x and writes y, 8 bytes per element in float32; backward reads two
// and writes one, 12 bytes. Arithmetic is about 5 operations for each element of a window, far
// below what the traffic leaves time for.
#include "element.h"
#include "lrn_kernels.h"

namespace pydl::cuda {
namespace {

template <class A>
struct Lrn {
  int size;         // of the window, at most 2 C + 1: a wider one holds no more
  A alpha_by_size;  // alpha / size, of the size that was asked for
  A beta, k;
};

// scale^-beta
template <class A>
__device__ A inverse_power(A scale, A beta) {
  if (beta == A(0.75)) return three_quarters(reciprocal_sqrt(scale));
  return std::pow(scale, -beta);
}

// The part of [0, channels) that a window reaches from `below` under `from` to `above` over `to`.
struct Channels {
  int first, last;
  __device__ Channels(int from, int below, int to, int above, int channels)
      : first(max(from - below, 0)), last(min(to + above, channels - 1)) {}
};

template <class T, int strip>
__global__ void forward(View<const T> x, View<T> y, Lrn<accumulate_t<T>> lrn, int64_t items) {
  using A = accumulate_t<T>;
  const int64_t item = thread_number();
  if (item >= items) return;
  const int channels = static_cast<int>(x.size[1]);
  const int64_t strips[5] = {x.size[0], (channels + strip - 1) / strip, x.size[2], x.size[3],
                             x.size[4]};
  const auto [n, s, d, h, w] = element_of(item, strips, strip == 1);
  const int start = static_cast<int>(s) * strip;
  const T* x_column = &x.at(n, 0, d, h, w);  // [C]
  T* y_column = &y.at(n, 0, d, h, w);        // [C]

  const int below = lrn.size / 2, above = (lrn.size - 1) / 2;
  const Channels reach(start, below, start + strip - 1, above, channels);
  A sum[strip] = {};
  for (int c = reach.first; c <= reach.last; ++c) {
    const A value = x_column[c * x.stride[1]];
    for (int j = 0; j < strip; ++j) {
      // Whether the window of channel start + j holds c.
      if (static_cast<unsigned>(c - start - j + below) < static_cast<unsigned>(lrn.size))
        sum[j] += value * value;
    }
  }
  for (int j = 0; j < strip; ++j) {
    const int c = start + j;
    if (c >= channels) break;
    const A scale = lrn.k + lrn.alpha_by_size * sum[j];
    y_column[c * y.stride[1]] = T(A(x_column[c * x.stride[1]]) * inverse_power(scale, lrn.beta));
  }
}

template <class T, int strip>
__global__ void backward(View<const T> grad_y, View<const T> x, View<T> grad_x,
                         Lrn<accumulate_t<T>> lrn, int64_t items) {
  using A = accumulate_t<T>;
  const int64_t item = thread_number();
  if (item >= items) return;
  const int channels = static_cast<int>(x.size[1]);
  const int64_t strips[5] = {x.size[0], (channels + strip - 1) / strip, x.size[2], x.size[3],
                             x.size[4]};
  const auto [n, s, d, h, w] = element_of(item, strips, strip == 1);
  const int start = static_cast<int>(s) * strip;
  const T* grad_y_column = &grad_y.at(n, 0, d, h, w);  // [C]
  const T* x_column = &x.at(n, 0, d, h, w);            // [C]
  T* grad_x_column = &grad_x.at(n, 0, d, h, w);        // [C]

  const int below = lrn.size / 2, above = (lrn.size - 1) / 2;
  // Channel c lies in the windows of those c' that reach it: `above` under it to `below` over it.
  const Channels reach(start, above, start + strip - 1, below, channels);
  A own[strip] = {}, sum[strip] = {};
  for (int c = reach.first; c <= reach.last; ++c) {
    const Channels window(c, below, c, above, channels);
    A squares = 0;
    for (int i = window.first; i <= window.last; ++i) {
      const A value = x_column[i * x.stride[1]];
      squares += value * value;
    }
    const A scale = lrn.k + lrn.alpha_by_size * squares;
    const A scaled = A(grad_y_column[c * grad_y.stride[1]]) * inverse_power(scale, lrn.beta);
    const A term = scaled * (A(x_column[c * x.stride[1]]) / scale);
    for (int j = 0; j < strip; ++j) {
      if (static_cast<unsigned>(c - start - j + above) < static_cast<unsigned>(lrn.size))
        sum[j] += term;
      if (c == start + j) own[j] = scaled;
    }
  }
  const A factor = 2 * lrn.beta * lrn.alpha_by_size;
  for (int j = 0; j < strip; ++j) {
    const int c = start + j;
    if (c >= channels) break;
    grad_x_column[c * grad_x.stride[1]] =
        T(own[j] - factor * A(x_column[c * x.stride[1]]) * sum[j]);
  }
}

// Calls launch_strip with the element type and the strip, the window's numbers and the number of
// threads, unless the maps are those of lrn_dense.cu.
template <class Arguments, class Launch>
void dispatch(const Arguments& args, const Tensor& output, int64_t stream, Launch&& launch_strip) {
  const int64_t channels = args.x.size[1];
  check(args.size >= 1, "LRN expects a window of at least 1 channel, got ", args.size);
  check(channels <= 1 << 29, "LRN expects at most ", 1 << 29, " channels, got ", channels);
  check(same_size(args.x, output), "LRN expects tensors of one size");
  check(args.x.dtype == output.dtype, "LRN expects tensors of one dtype");
  if (output.numel() == 0 || launch_dense_lrn(args, stream)) return;
  const int64_t columns = output.numel() / channels;
  dispatch_floating(args.x.dtype, "LRN", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const Lrn<A> lrn{static_cast<int>(args.size > 2 * channels ? 2 * channels + 1 : args.size),
                     static_cast<A>(args.alpha / static_cast<double>(args.size)),
                     static_cast<A>(args.beta), static_cast<A>(args.k)};
    if (output.channels_last()) {
      launch_strip(type, std::integral_constant<int, 1>{}, lrn, columns * channels);
    } else {
      launch_strip(type, std::integral_constant<int, 8>{}, lrn, columns * ((channels + 7) / 8));
    }
  });
}

}  // namespace

void lrn_forward(const LrnForward& args, int64_t stream) {
  dispatch(args, args.y, stream, [&](auto type, auto strip, const auto& lrn, int64_t items) {
    using T = decltype(type);
    launch(forward<T, strip>, blocks_for(items), block_size, 0, stream, View<const T>(args.x),
           View<T>(args.y), lrn, items);
  });
}

void lrn_backward(const LrnBackward& args, int64_t stream) {
  check(same_size(args.x, args.grad_y), "LRN expects tensors of one size");
  check(args.x.dtype == args.grad_y.dtype, "LRN expects tensors of one dtype");
  dispatch(args, args.grad_x, stream, [&](auto type, auto strip, const auto& lrn, int64_t items) {
    using T = decltype(type);
    launch(backward<T, strip>, blocks_for(items), block_size, 0, stream, View<const T>(args.grad_y),
           View<const T>(args.x), View<T>(args.grad_x), lrn, items);
  });
}

}  // namespace pydl::cuda
