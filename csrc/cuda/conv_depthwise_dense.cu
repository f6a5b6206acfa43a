// Convolution with one channel per group by the windows that networks have, 3 x 3 with stride 1 or
// 2, of maps that lie alike, as many filters as channels: conv_depthwise.cu has the equations and the
// kernels for all others.
//
// Forward and grad_x (stride 1, the window turned around): a thread owns a strip of outputs along H,
// of 16 bytes of channels or, where w is innermost, of one. It walks down the rows of source; each
// number loaded is converted once and goes into the sums of all outputs of the strip that it has a
// part in, and the nine weights stay in registers. Neighbouring threads own neighbouring memory,
// columns or channels.
//
// grad_weight: a block owns one filter, or in channels last those of a warp's lanes, and one split of
// the strips. A thread walks down strips of grad_y, whose rows meet the three rows of x that it has in
// registers; so a number is loaded once in a strip for three products. Warps add up by halves, the
// block's warps in ascending order, and so do the splits in a kernel of their own; all orders depend
// on the shape and the layout alone.
//
// Offsets are 32 bits wide, and the divisions are those of dense.h.
#include <algorithm>

#include "activation.h"
#include "conv_kernels.h"
#include "conv_window.h"
#include "dense.h"

namespace pydl::cuda {
namespace {

constexpr int kernel = 3, taps = kernel * kernel;
constexpr int strip_threads = 128;
constexpr int warp_size = 32;

// A map of planes or, in channels last, of images.
struct Lines {
  int height, width;
  uint32_t image, row, pixel;  // offsets to the next

  Lines() = default;
  Lines(const Tensor& map, bool channels_last)
      : height(static_cast<int>(map.size[3])),
        width(static_cast<int>(map.size[4])),
        image(height * width * static_cast<uint32_t>(channels_last ? map.size[1] : 1)),
        row(width * static_cast<uint32_t>(channels_last ? map.size[1] : 1)),
        pixel(static_cast<uint32_t>(channels_last ? map.size[1] : 1)) {}
};

__device__ inline bool within(int at, int size) {
  return static_cast<uint32_t>(at) < static_cast<uint32_t>(size);
}

template <class T>
struct DenseStrips {
  const T *source, *weight, *bias, *residual;
  T* out;
  Lines from, to;
  int padding_h, padding_w;
  // Threads are numbered through [images][strips][columns][vectors of channels].
  Divisor of_image, of_strip, of_column, channels;
  uint32_t threads;
  Epilogue epilogue;
};

// Three neighbours of a row, zeros where there are none.
template <int vector, class T>
__device__ __forceinline__ void load_row(Vector<T, vector> (&values)[kernel], const T* row,
                                         uint32_t pixel, int first, int width, bool there) {
  UNROLLED for (int k = 0; k < kernel; ++k) {
    values[k] = {};
    if (there && within(first + k, width)) values[k] = load<vector>(row + k * pixel);
  }
}

template <class T, int vector, int stride, int rows, bool turned>
__global__ void __launch_bounds__(strip_threads, vector > 1 ? 2 : 8)
    dense_strips(DenseStrips<T> p) {
  uint32_t rest = static_cast<uint32_t>(thread_number());
  if (rest >= p.threads) return;
  const auto take = [&rest](const Divisor& size) {
    const uint32_t number = size.quotient(rest);
    rest -= number * size.divisor;
    return number;
  };
  const uint32_t image = take(p.of_image);
  const int first = static_cast<int>(take(p.of_strip)) * rows;
  const int column = static_cast<int>(take(p.of_column));
  const uint32_t inside = rest * vector;
  const uint32_t pixel = vector > 1 ? p.from.pixel : 1;
  const uint32_t channel =
      vector > 1 ? inside : image - p.channels.quotient(image) * p.channels.divisor;

  float weight[taps][vector];  // [KH * KW][channels], in memory the other way round
  UNROLLED for (int i = 0; i < taps; ++i) {
    const auto loaded = load<vector>(p.weight + channel * taps + i * vector);
    UNROLLED for (int j = 0; j < vector; ++j) {
      const int at = i * vector + j, tap = at % taps;
      weight[turned ? taps - 1 - tap : tap][at / taps] = float(loaded.at[j]);
    }
  }
  const int first_h = first * stride - p.padding_h, first_w = column * stride - p.padding_w;
  const T* const source =
      p.source + (static_cast<int>(image * p.from.image + inside) +
                  first_h * static_cast<int>(p.from.row) + first_w * static_cast<int>(pixel));
  float sums[rows][vector] = {};
  UNROLLED for (int r = 0; r < (rows - 1) * stride + kernel; ++r) {
    Vector<T, vector> values[kernel];
    load_row(values, source + r * static_cast<int>(p.from.row), pixel, first_w, p.from.width,
             within(first_h + r, p.from.height));
    UNROLLED for (int k = 0; k < kernel; ++k) {
      UNROLLED for (int j = 0; j < vector; ++j) {
        const float value = float(values[k].at[j]);
        UNROLLED for (int o = 0; o < rows; ++o) {
          const int kh = r - o * stride;
          if (kh >= 0 && kh < kernel) sums[o][j] += value * weight[kh * kernel + k][j];
        }
      }
    }
  }

  const uint32_t to = image * p.to.image + inside + first * p.to.row + column * p.to.pixel;
  Vector<T, vector> bias = {};
  if (p.bias != nullptr) bias = load<vector>(p.bias + channel);
  with_activation<Activation::none, Activation::relu, Activation::leaky_relu, Activation::silu>(
      p.epilogue.activation, [&]<Activation activation>(Is<activation>) {
        UNROLLED for (int o = 0; o < rows; ++o) {
          if (first + o >= p.to.height) break;
          Vector<T, vector> residual = {}, out;
          if (p.residual != nullptr) residual = load<vector>(p.residual + to + o * p.to.row);
          UNROLLED for (int j = 0; j < vector; ++j) {
            const float z = sums[o][j] + float(residual.at[j]) + float(bias.at[j]);
            out.at[j] = T(activated(z, {activation, p.epilogue.slope}));
          }
          store(p.out + to + o * p.to.row, out);
        }
      });
}

// Whether the maps lie alike and a thread's channels are whole vectors.
template <class T, int vector>
bool lie_alike(std::initializer_list<const Tensor*> maps,
               std::initializer_list<const Tensor*> weights, const Tensor& like) {
  const bool channels_last = like.channels_last();
  bool alike = like.dtype != DType::float64, aligned = like.size[1] % vector == 0;
  const auto look = [&](const Tensor& tensor, bool last) {
    if (tensor.data == nullptr) return;
    alike = alike && is_dense(tensor, last) && tensor.size[2] == 1 && tensor.numel() <= 1 << 29;
    aligned = aligned && reinterpret_cast<uintptr_t>(tensor.data) % (vector * sizeof(T)) == 0;
  };
  for (const Tensor* map : maps) look(*map, channels_last);
  for (const Tensor* weight : weights) look(*weight, false);
  return alike && (aligned || !channels_last);
}

bool usual_window(const ConvWindow& window, const Tensor& weight, int64_t channels) {
  return weight.size[0] == window.groups && channels == window.groups && weight.size[3] == kernel &&
         weight.size[4] == kernel && window.dilation[1] == 1 && window.dilation[2] == 1 &&
         window.padding[0] == 0 && window.stride[1] == window.stride[2];
}

template <class T, int vector, int rows>
void launch_strips(DenseStrips<T> p, const Tensor& out, int64_t stride, bool turned,
                   int64_t stream) {
  const int64_t vectors = vector > 1 ? out.size[1] / vector : 1;
  const int64_t columns = out.size[4] * vectors, strips = blocks_for(out.size[3], rows);
  p.of_column = Divisor(static_cast<uint32_t>(vectors));
  p.of_strip = Divisor(static_cast<uint32_t>(columns));
  p.of_image = Divisor(static_cast<uint32_t>(columns * strips));
  p.channels = Divisor(static_cast<uint32_t>(out.size[1]));
  p.threads =
      static_cast<uint32_t>(columns * strips * out.size[0] * (vector > 1 ? 1 : out.size[1]));
  launch(turned        ? dense_strips<T, vector, 1, rows, true>
         : stride == 1 ? dense_strips<T, vector, 1, rows, false>
                       : dense_strips<T, vector, 2, rows, false>,
         blocks_for(p.threads, strip_threads), strip_threads, 0, stream, p);
}

// Runs, and says so, where these kernels serve.
bool run_strips(const Tensor& source, const Tensor& weight, const Tensor& bias,
                const Tensor& residual, const Tensor& out, const ConvWindow& window,
                const Epilogue& epilogue, bool turned, int64_t stream) {
  const int64_t stride = window.stride[1];
  if (!usual_window(window, weight, out.size[1]) || stride > (turned ? 1 : 2)) return false;
  bool served = false;
  dispatch_floating(out.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    constexpr int wide = 16 / sizeof(T);
    if constexpr (!std::is_same_v<T, double>) {
      served = lie_alike<T, wide>({&source, &residual, &out}, {&weight, &bias}, out);
      if (!served) return;
      const bool last = out.channels_last();
      DenseStrips<T> p = {};
      p.source = static_cast<const T*>(source.data);
      p.weight = static_cast<const T*>(weight.data);
      p.bias = static_cast<const T*>(bias.data);
      p.residual = static_cast<const T*>(residual.data);
      p.out = static_cast<T*>(out.data);
      p.from = Lines(source, last), p.to = Lines(out, last);
      const int turn = kernel - 1;
      p.padding_h = static_cast<int>(turned ? turn - window.padding[1] : window.padding[1]);
      p.padding_w = static_cast<int>(turned ? turn - window.padding[2] : window.padding[2]);
      p.epilogue = epilogue;
      if (last)
        launch_strips<T, wide, 4>(p, out, stride, turned, stream);
      else
        launch_strips<T, 1, 8>(p, out, stride, turned, stream);
    }
  });
  return served;
}

template <class T>
struct DenseSums {
  const T *grad_y, *x;
  float* parts;  // [splits, F, taps]
  Lines of_grad_y, of_x;
  int padding_h, padding_w, stride;
  uint32_t filters, images, units, units_a_split;  // units: strips of all images
  Divisor tiles, strips, columns;
};

// lanes: filters side by side in a block, `vector` a lane.
template <class T, int lanes, int vector, int stride>
__global__ void __launch_bounds__(block_size) dense_tap_sums(DenseSums<T> p) {
  constexpr int rows = 8, side = block_size / lanes;  // side: strips at a time
  constexpr int warps = block_size / warp_size;
  SHARED(float, partial, [warps][taps * vector][warp_size]);
  const uint32_t t = threadIdx.x, split = p.tiles.quotient(blockIdx.x);
  const uint32_t filter = ((blockIdx.x - split * p.tiles.divisor) * lanes + t % lanes) * vector;
  const uint32_t pixel = lanes > 1 ? p.of_x.pixel : 1;
  float sums[taps][vector] = {};
  if (filter < p.filters) {
    const uint32_t last = min((split + 1) * p.units_a_split, p.units) * p.columns.divisor;
    ROLLED
    for (uint32_t i = split * p.units_a_split * p.columns.divisor + t / lanes; i < last;
         i += side) {
      const uint32_t unit = p.columns.quotient(i), image = p.strips.quotient(unit);
      const int column = static_cast<int>(i - unit * p.columns.divisor);
      const int first = static_cast<int>(unit - image * p.strips.divisor) * rows;
      const uint32_t map = lanes > 1 ? image : image * p.filters + filter;
      const uint32_t inside = lanes > 1 ? filter : 0;
      const int first_h = first * stride - p.padding_h, first_w = column * stride - p.padding_w;
      const T* const gradients =
          p.grad_y + (map * p.of_grad_y.image + inside + first * p.of_grad_y.row +
                      column * (lanes > 1 ? p.of_grad_y.pixel : 1));
      const T* const source =
          p.x + (static_cast<int>(map * p.of_x.image + inside) +
                 first_h * static_cast<int>(p.of_x.row) + first_w * static_cast<int>(pixel));
      // The rows of x that a row of grad_y meets, and those that the next one meets besides.
      constexpr int held = kernel + stride;
      Vector<T, vector> values[held][kernel], gradient[2];
      const auto fetch = [&](int o) {
        UNROLLED for (int r = o == 0 ? 0 : o * stride + kernel - stride; r < o * stride + kernel;
                      ++r) {
          load_row(values[r % held], source + r * static_cast<int>(p.of_x.row), pixel, first_w,
                   p.of_x.width, within(first_h + r, p.of_x.height));
        }
        gradient[o % 2] = {};
        if (first + o < p.of_grad_y.height)
          gradient[o % 2] = load<vector>(gradients + o * p.of_grad_y.row);
      };
      fetch(0);
      UNROLLED for (int o = 0; o < rows; ++o) {
        if (o + 1 < rows) fetch(o + 1);
        if (first + o >= p.of_grad_y.height) break;
        UNROLLED for (int tap = 0; tap < taps; ++tap) {
          const auto& value = values[(o * stride + tap / kernel) % held][tap % kernel];
          UNROLLED for (int j = 0; j < vector; ++j) {
            sums[tap][j] += float(gradient[o % 2].at[j]) * float(value.at[j]);
          }
        }
      }
    }
  }
  UNROLLED for (int tap = 0; tap < taps; ++tap) {
    UNROLLED for (int j = 0; j < vector; ++j) {
      float sum = sums[tap][j];
      if constexpr (lanes == 1) {
        UNROLLED for (int half = warp_size / 2; half > 0; half /= 2) {
          sum += __shfl_xor_sync(0xffffffffu, sum, half);
        }
      }
      partial[t / warp_size][tap * vector + j][t % warp_size] = sum;
    }
  }
  __syncthreads();
  // A thread has a tap of a filter: their sums of all warps.
  constexpr uint32_t columns = lanes > 1 ? lanes : 1, results = taps * vector * columns;
  for (uint32_t i = t; i < results; i += block_size) {
    const uint32_t lane = i % columns, number = i / columns;
    float sum = 0;
    UNROLLED for (int warp = 0; warp < warps; ++warp) sum += partial[warp][number][lane];
    const uint32_t its =
        (blockIdx.x - split * p.tiles.divisor) * lanes * vector + lane * vector + number % vector;
    if (its < p.filters) p.parts[(split * p.filters + its) * taps + number / vector] = sum;
  }
}

constexpr int64_t enough_blocks = 528;  // four on each multiprocessor of the largest machine
constexpr int sum_rows = 8;             // of a strip

struct DenseSplits {
  int64_t tiles, units, splits, units_a_split;
};

// From the sizes and the layout alone.
DenseSplits splits_of(const ConvGradWeight& args) {
  const Tensor& g = args.grad_y;
  const int64_t width = g.dtype == DType::float32 ? warp_size : 2 * warp_size;
  DenseSplits s;
  s.tiles = g.channels_last() ? blocks_for(g.size[1], width) : g.size[1];
  s.units = g.size[0] * blocks_for(g.size[3], sum_rows);
  s.units_a_split = std::max<int64_t>(s.units / blocks_for(enough_blocks, s.tiles), 1);
  s.splits = blocks_for(s.units, s.units_a_split);
  return s;
}

}  // namespace

bool dense_depthwise_serves(const ConvGradWeight& args) {
  const auto& [grad_y, x, grad_weight, window, parts] = args;
  if (!usual_window(window, grad_weight, grad_y.size[1]) || window.stride[1] > 2) return false;
  if (grad_y.numel() == 0 || grad_weight.size[2] > 1) return false;
  return grad_y.dtype == DType::float32 ? lie_alike<float, 1>({&grad_y, &x}, {}, grad_y)
                                        : lie_alike<bfloat16, 2>({&grad_y, &x}, {}, grad_y);
}

bool launch_dense_depthwise(const ConvForward& args, int64_t stream) {
  const auto& [x, weight, bias, y, window, residual, epilogue] = args;
  return run_strips(x, weight, bias, residual, y, window, epilogue, /*turned=*/false, stream);
}

bool launch_dense_depthwise(const ConvGradInput& args, int64_t stream) {
  const auto& [grad_y, weight, grad_x, window] = args;
  return run_strips(grad_y, weight, Tensor{}, Tensor{}, grad_x, window, {}, /*turned=*/true,
                    stream);
}

int64_t dense_depthwise_parts(const ConvGradWeight& args) {
  return splits_of(args).splits * args.grad_weight.size[0] * taps;
}

void launch_dense_depthwise(const ConvGradWeight& args, int64_t stream) {
  const auto& [grad_y, x, grad_weight, window, parts] = args;
  const DenseSplits s = splits_of(args);
  dispatch_floating(x.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    if constexpr (!std::is_same_v<T, double>) {
      constexpr int vector = sizeof(T) == 2 ? 2 : 1;
      const bool last = grad_y.channels_last();
      DenseSums<T> p = {};
      p.grad_y = static_cast<const T*>(grad_y.data);
      p.x = static_cast<const T*>(x.data);
      p.parts = static_cast<float*>(parts.data);
      p.of_grad_y = Lines(grad_y, last), p.of_x = Lines(x, last);
      p.padding_h = static_cast<int>(window.padding[1]);
      p.padding_w = static_cast<int>(window.padding[2]);
      p.filters = static_cast<uint32_t>(grad_weight.size[0]);
      p.units = static_cast<uint32_t>(s.units);
      p.units_a_split = static_cast<uint32_t>(s.units_a_split);
      p.tiles = Divisor(static_cast<uint32_t>(s.tiles));
      p.strips = Divisor(static_cast<uint32_t>(blocks_for(grad_y.size[3], sum_rows)));
      p.columns = Divisor(static_cast<uint32_t>(grad_y.size[4]));
      const bool by_two = window.stride[1] == 2;
      launch(last ? (by_two ? dense_tap_sums<T, warp_size, vector, 2>
                            : dense_tap_sums<T, warp_size, vector, 1>)
                  : (by_two ? dense_tap_sums<T, 1, 1, 2> : dense_tap_sums<T, 1, 1, 1>),
             s.tiles * s.splits, block_size, 0, stream, p);
      launch(add_splits<T>, blocks_for(grad_weight.numel()), block_size, 0, stream,
             static_cast<const float*>(p.parts), View<T>(grad_weight), s.splits, int64_t{taps},
             int64_t{1}, grad_weight.numel());
    }
  });
}

}  // namespace pydl::cuda
