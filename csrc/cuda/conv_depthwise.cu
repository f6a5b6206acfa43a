// Convolution with one channel per group, F = m C filters:
//
//   y[n, f, o]        = activation(bias[f] + residual[n, f, o]
//                                  + sum over t of x[n, f / m, i] * weight[f, t])
//   grad_x[n, c, i]   = sum over f in [m c, m c + m), t of grad_y[n, f, o] * weight[f, t]
//   grad_weight[f, t] = sum over n, o of grad_y[n, f, o] * x[n, f / m, i]
//
// where i = o * stride - padding + t * dilation on each of three axes. There is nothing to multiply
// by matrices: 2 * taps operations per output, so the traffic counts, at least x and y once.
//
// Forward, grad_x: one kernel, out[k] = sum of source * weight over a window; the data gradient of
// a strided layer is one launch for every class of residues (conv_window.h). A thread owns 4
// outputs along W: a weight is loaded once for them, and for 3 taps of neighbours the row of source
// that they share goes through registers. In channels last, where pointers and strides allow, it
// owns those of 16 bytes of neighbouring channels, all loads and stores 16 bytes; else of one
// channel. Neighbouring threads own neighbouring memory: strips of a row, or channels.
//
// grad_weight: a block owns some filters, 9 taps and one split of the pixels; threads walk the
// pixels and keep 9 sums each, so that a gradient is loaded once for 9 products. In channels last a
// warp is 32 filters of one pixel, else one filter's neighbouring pixels. The block adds up by
// halves in shared memory, a second kernel adds the splits in ascending order; both orders depend
// on the shape alone.
#include <algorithm>

#include "activation.h"
#include "conv_kernels.h"
#include "conv_window.h"

namespace pydl::cuda {
namespace {

constexpr int strip = 4;  // outputs of a thread along W
constexpr int strip_threads = 128;

template <class T>
struct Strips {
  const T *source, *weight, *bias, *residual;
  T* out;
  int64_t source_stride[5], filter_stride, tap_stride[3], bias_stride;
  int64_t residual_stride[5], out_stride[5];
  int64_t channels, strips, count;  // of out; in a row of it; threads
  int outputs[3], size[3], step[3], start[3], dilation[3], taps[3];
  int repeat, share;  // filters that join one channel of out; that read one channel of source
  bool channels_inside;
  Epilogue epilogue;
};

// Neighbours in memory, moved as one.
template <class T, int length>
struct alignas(sizeof(T) * length) Pack {
  T values[length];
};

// kernel > 0: that many taps along W, neighbours, ascending or descending, and this step.
template <class T, int length, int kernel, int step>
__global__ void __launch_bounds__(strip_threads, 3) strips(Strips<T> p) {
  using A = accumulate_t<T>;
  using Packed = Pack<T, length>;
  int64_t rest = thread_number();
  if (rest >= p.count) return;
  int64_t channel = 0;
  if (p.channels_inside) channel = take(rest, p.channels / length) * length;
  const int64_t first = take(rest, p.strips) * strip;
  const int64_t oh = take(rest, p.outputs[1]), od = take(rest, p.outputs[0]);
  if (!p.channels_inside) channel = take(rest, p.channels);
  const int64_t n = rest;

  const Packed zero = {};
  A sums[strip][length] = {};
  for (int j = 0; j < p.repeat; ++j) {
    const int64_t filter = channel * p.repeat + j;
    const T* map =
        p.source + n * p.source_stride[0] + quotient(filter, p.share) * p.source_stride[1];
    for (int kd = 0; kd < p.taps[0]; ++kd) {
      const int64_t d = od * p.step[0] + p.start[0] + kd * p.dilation[0];
      if (!inside(d, p.size[0])) continue;
      for (int kh = 0; kh < p.taps[1]; ++kh) {
        const int64_t h = oh * p.step[1] + p.start[1] + kh * p.dilation[1];
        if (!inside(h, p.size[1])) continue;
        const T* row = map + d * p.source_stride[2] + h * p.source_stride[3];  // [W, length]
        const T* taps = p.weight + filter * p.filter_stride + kd * p.tap_stride[0] +
                        kh * p.tap_stride[1];  // [length, KW]
        const auto load = [&](int64_t w) {
          return inside(w, p.size[2])
                     ? *reinterpret_cast<const Packed*>(row + w * p.source_stride[4])
                     : zero;
        };
        const auto add = [&](int i, const Packed& values, const Packed& weights) {
          UNROLLED
          for (int c = 0; c < length; ++c) sums[i][c] += A(values.values[c]) * A(weights.values[c]);
        };
        const auto weights_of = [&](int kw) {
          Packed weights;
          UNROLLED
          for (int c = 0; c < length; ++c)
            weights.values[c] = taps[c * p.filter_stride + kw * p.tap_stride[2]];
          return weights;
        };
        if constexpr (kernel > 0) {
          const bool descending = p.dilation[2] < 0;
          const int64_t from = first * step + p.start[2] - (descending ? kernel - 1 : 0);
          Packed values[(strip - 1) * step + kernel];
          UNROLLED
          for (int i = 0; i < (strip - 1) * step + kernel; ++i) values[i] = load(from + i);
          UNROLLED
          for (int at = 0; at < kernel; ++at) {
            const Packed weights = weights_of(descending ? kernel - 1 - at : at);
            UNROLLED
            for (int i = 0; i < strip; ++i) add(i, values[i * step + at], weights);
          }
        } else {
          for (int kw = 0; kw < p.taps[2]; ++kw) {
            const Packed weights = weights_of(kw);
            UNROLLED
            for (int i = 0; i < strip; ++i)
              add(i, load((first + i) * p.step[2] + p.start[2] + kw * p.dilation[2]), weights);
          }
        }
      }
    }
  }

  UNROLLED
  for (int i = 0; i < strip; ++i) {
    const int64_t ow = first + i;
    if (ow >= p.outputs[2]) continue;
    const auto offset = [&](const int64_t (&stride)[5]) {
      return n * stride[0] + channel * stride[1] + od * stride[2] + oh * stride[3] + ow * stride[4];
    };
    Packed residual = {}, values;
    if (p.residual != nullptr)
      residual = *reinterpret_cast<const Packed*>(p.residual + offset(p.residual_stride));
    UNROLLED
    for (int c = 0; c < length; ++c) {
      A z = sums[i][c] + A(residual.values[c]);
      if (p.bias != nullptr) z += A(p.bias[(channel + c) * p.bias_stride]);
      values.values[c] = T(activated(z, p.epilogue));
    }
    *reinterpret_cast<Packed*>(p.out + offset(p.out_stride)) = values;
  }
}

template <class T>
bool whole_packs(const T* data, const int64_t (&stride)[5]) {
  constexpr int64_t length = 16 / sizeof(T);
  bool whole = reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride[1] == 1;
  for (int axis : {0, 2, 3, 4}) whole = whole && stride[axis] % length == 0;
  return whole;
}

template <class T, int length>
void launch_strips(const Strips<T>& p, int64_t stream) {
  const int64_t blocks = blocks_for(p.count, strip_threads);
  const bool neighbours = p.taps[2] == 3 && (p.dilation[2] == 1 || p.dilation[2] == -1);
  if (neighbours && p.step[2] == 1)
    launch(strips<T, length, 3, 1>, blocks, strip_threads, 0, stream, p);
  else if (neighbours && p.step[2] == 2)
    launch(strips<T, length, 3, 2>, blocks, strip_threads, 0, stream, p);
  else
    launch(strips<T, length, 0, 0>, blocks, strip_threads, 0, stream, p);
}

template <class T>
void run_strips(Strips<T> p, int64_t batch, int64_t stream) {
  constexpr int64_t length = 16 / sizeof(T);
  p.strips = blocks_for(p.outputs[2], strip);
  p.count = batch * p.outputs[0] * p.outputs[1] * p.strips * p.channels;
  const bool packs = p.repeat == 1 && p.share == 1 && p.channels % length == 0 &&
                     whole_packs<T>(p.source, p.source_stride) &&
                     whole_packs<T>(p.out, p.out_stride) &&
                     (p.residual == nullptr || whole_packs<T>(p.residual, p.residual_stride));
  if (!packs) return launch_strips<T, 1>(p, stream);
  p.channels_inside = true;
  p.count /= length;
  launch_strips<T, length>(p, stream);
}

template <class T>
Strips<T> strips_of(const Tensor& source, const Tensor& weight, const Tensor& out) {
  Strips<T> p = {};
  p.source = static_cast<const T*>(source.data);
  p.weight = static_cast<const T*>(weight.data);
  p.out = static_cast<T*>(out.data);
  for (int axis = 0; axis < 5; ++axis) {
    p.source_stride[axis] = source.stride[axis];
    p.out_stride[axis] = out.stride[axis];
  }
  p.filter_stride = weight.stride[0];
  for (int axis = 0; axis < 3; ++axis) p.size[axis] = static_cast<int>(source.size[axis + 2]);
  p.channels = out.size[1];
  p.channels_inside = out.channels_last();
  p.repeat = p.share = 1;
  return p;
}

constexpr int taps_a_pass = 9;

template <class T>
struct TapSums {
  const T *grad_y, *x;
  accumulate_t<T>* parts;  // [splits, F, taps]
  int64_t grad_y_stride[5], x_stride[5];
  int64_t filters, tiles, passes, pixels, pixels_a_split;
  int outputs[3], size[3], stride[3], start[3], dilation[3], taps[3];
  int share;           // filters that read one channel
  int step_digits[4];  // as many pixels as the block takes at a time, as (n, o)
};

// lanes: filters side by side in a block, a multiple of a warp's or 1.
template <class T, int lanes>
__global__ void __launch_bounds__(block_size) tap_sums(TapSums<T> p) {
  using A = accumulate_t<T>;
  SHARED(A, partial, [taps_a_pass][block_size]);
  const int t = threadIdx.x;
  int64_t split = blockIdx.x;
  const int64_t f = take(split, p.tiles) * lanes + t % lanes;
  const int64_t first_tap = take(split, p.passes) * taps_a_pass;
  const int64_t taps = static_cast<int64_t>(p.taps[0]) * p.taps[1] * p.taps[2];

  int at[taps_a_pass][3];  // of the tap, relative to the pixel's first input
  UNROLLED
  for (int i = 0; i < taps_a_pass; ++i) {
    int64_t tap = min(first_tap + i, taps - 1);
    for (int axis = 2; axis >= 0; --axis)
      at[i][axis] = p.start[axis] + static_cast<int>(take(tap, p.taps[axis])) * p.dilation[axis];
  }
  A sums[taps_a_pass] = {};
  if (f < p.filters) {
    const T* gradients = p.grad_y + f * p.grad_y_stride[1];
    const T* map = p.x + quotient(f, p.share) * p.x_stride[1];
    int64_t number = split * p.pixels_a_split + t / lanes;
    const int64_t end = min((split + 1) * p.pixels_a_split, p.pixels);
    Pixel pixel = pixel_of(number, p.outputs);
    for (; number < end; number += block_size / lanes) {
      int64_t from = pixel.n * p.grad_y_stride[0];
      for (int axis = 0; axis < 3; ++axis) from += pixel.o[axis] * p.grad_y_stride[axis + 2];
      const A gradient = A(gradients[from]);
      UNROLLED
      for (int i = 0; i < taps_a_pass; ++i) {
        bool there = true;
        int64_t offset = pixel.n * p.x_stride[0];
        UNROLLED
        for (int axis = 0; axis < 3; ++axis) {
          const int place = pixel.o[axis] * p.stride[axis] + at[i][axis];
          there = there && inside(place, p.size[axis]);
          offset += place * p.x_stride[axis + 2];
        }
        if (there) sums[i] += gradient * A(map[offset]);
      }
      pixel.advance(p.step_digits, p.outputs);
    }
  }
  UNROLLED
  for (int i = 0; i < taps_a_pass; ++i) partial[i][t] = sums[i];
  __syncthreads();
  for (int half = block_size / 2; half >= lanes; half /= 2) {
    if (t < half) {
      for (int i = 0; i < taps_a_pass; ++i) partial[i][t] += partial[i][t + half];
    }
    __syncthreads();
  }
  if (t >= lanes || f >= p.filters) return;
  for (int i = 0; i < taps_a_pass; ++i) {
    if (first_tap + i < taps)
      p.parts[(split * p.filters + f) * taps + first_tap + i] = partial[i][t];
  }
}

// How the pixels are split: from the sizes and the layout alone.
struct Splits {
  int lanes;
  int64_t taps, tiles, passes, pixels, splits, pixels_a_split;
};

constexpr int64_t enough_blocks = 528;  // four on each multiprocessor of the largest machine
constexpr int64_t least_pixels = 16;    // of a thread

Splits splits_of(const ConvGradWeight& args) {
  const auto& w = args.grad_weight.size;
  const auto& g = args.grad_y.size;
  Splits s;
  s.lanes = args.grad_y.channels_last() ? 32 : 1;
  s.taps = w[2] * w[3] * w[4];
  s.tiles = blocks_for(w[0], s.lanes);
  s.passes = blocks_for(s.taps, taps_a_pass);
  s.pixels = g[0] * g[2] * g[3] * g[4];
  const int64_t at_a_time = block_size / s.lanes;
  const int64_t wanted = std::min(blocks_for(enough_blocks, s.tiles * s.passes),
                                  blocks_for(s.pixels, at_a_time * least_pixels));
  s.pixels_a_split = blocks_for(s.pixels, std::max<int64_t>(wanted, 1));
  s.splits = s.pixels == 0 ? 1 : blocks_for(s.pixels, s.pixels_a_split);
  return s;
}

}  // namespace

void conv_forward_depthwise(const ConvForward& args, int64_t stream) {
  if (launch_dense_depthwise(args, stream)) return;
  const auto& [x, weight, bias, y, window, residual, epilogue] = args;
  dispatch_floating(x.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    Strips<T> p = strips_of<T>(x, weight, y);
    p.bias = static_cast<const T*>(bias.data);
    p.bias_stride = bias.stride[1];
    p.residual = static_cast<const T*>(residual.data);
    for (int axis = 0; axis < 5; ++axis) p.residual_stride[axis] = residual.stride[axis];
    p.epilogue = epilogue;
    p.share = static_cast<int>(weight.size[0] / window.groups);
    for (int axis = 0; axis < 3; ++axis) {
      p.outputs[axis] = static_cast<int>(y.size[axis + 2]);
      p.step[axis] = static_cast<int>(window.stride[axis]);
      p.start[axis] = static_cast<int>(-window.padding[axis]);
      p.dilation[axis] = static_cast<int>(window.dilation[axis]);
      p.taps[axis] = static_cast<int>(weight.size[axis + 2]);
      p.tap_stride[axis] = weight.stride[axis + 2];
    }
    run_strips(p, y.size[0], stream);
  });
}

void conv_grad_input_depthwise(const ConvGradInput& args, int64_t stream) {
  if (launch_dense_depthwise(args, stream)) return;
  const auto& [grad_y, weight, grad_x, window] = args;
  dispatch_floating(grad_y.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    for_each_class(window, grad_x, weight, [&](const ResidueClass(&classes)[3]) {
      Strips<T> p = strips_of<T>(grad_y, weight, grad_x);
      p.repeat = static_cast<int>(weight.size[0] / window.groups);
      for (int axis = 0; axis < 3; ++axis) {
        const ResidueClass& c = classes[axis];
        p.outputs[axis] = static_cast<int>(c.outputs);
        p.step[axis] = 1;
        p.start[axis] = static_cast<int>(c.start);
        p.dilation[axis] = static_cast<int>(c.dilation);
        p.taps[axis] = static_cast<int>(c.taps);
        p.weight += c.first_tap * weight.stride[axis + 2];
        p.tap_stride[axis] = c.tap_step * weight.stride[axis + 2];
        p.out += c.first * grad_x.stride[axis + 2];
        p.out_stride[axis + 2] = window.stride[axis] * grad_x.stride[axis + 2];
      }
      run_strips(p, grad_x.size[0], stream);
    });
  });
}

int64_t conv_grad_weight_depthwise_parts(const ConvGradWeight& args) {
  if (dense_depthwise_serves(args)) return dense_depthwise_parts(args);
  const Splits s = splits_of(args);
  return s.splits * args.grad_weight.size[0] * s.taps;
}

void conv_grad_weight_depthwise(const ConvGradWeight& args, int64_t stream) {
  if (dense_depthwise_serves(args)) return launch_dense_depthwise(args, stream);
  const auto& [grad_y, x, grad_weight, window, parts] = args;
  const Splits s = splits_of(args);
  dispatch_floating(x.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    TapSums<T> p = {};
    p.grad_y = static_cast<const T*>(grad_y.data);
    p.x = static_cast<const T*>(x.data);
    p.parts = static_cast<accumulate_t<T>*>(parts.data);
    for (int axis = 0; axis < 5; ++axis) {
      p.grad_y_stride[axis] = grad_y.stride[axis];
      p.x_stride[axis] = x.stride[axis];
    }
    p.filters = grad_weight.size[0];
    p.tiles = s.tiles;
    p.passes = s.passes;
    p.pixels = s.pixels;
    p.pixels_a_split = s.pixels_a_split;
    p.share = static_cast<int>(grad_weight.size[0] / window.groups);
    for (int axis = 0; axis < 3; ++axis) {
      p.outputs[axis] = static_cast<int>(grad_y.size[axis + 2]);
      p.size[axis] = static_cast<int>(x.size[axis + 2]);
      p.stride[axis] = static_cast<int>(window.stride[axis]);
      p.start[axis] = static_cast<int>(-window.padding[axis]);
      p.dilation[axis] = static_cast<int>(window.dilation[axis]);
      p.taps[axis] = static_cast<int>(grad_weight.size[axis + 2]);
    }
    digits_of(block_size / s.lanes, p.outputs, p.step_digits);
    launch(s.lanes == 1 ? tap_sums<T, 1> : tap_sums<T, 32>, s.tiles * s.passes * s.splits,
           block_size, 0, stream, p);
    launch(add_splits<T>, blocks_for(grad_weight.numel()), block_size, 0, stream,
           static_cast<const accumulate_t<T>*>(p.parts), View<T>(grad_weight), s.splits, s.taps,
           int64_t{1}, grad_weight.numel());
  });
}

}  // namespace pydl::cuda
