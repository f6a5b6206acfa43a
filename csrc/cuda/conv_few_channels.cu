// Convolution forward for up to four channels per group, the first layer of a network:
//
//   y[n, f, o] = activation(bias[f] + residual[n, f, o]
//                           + sum over c, t of x[n, c, i] * weight[f, c, t])
//   i          = o * stride - padding + t * dilation
//
// A chunk of eight channels on tensor cores would be mostly padding, so this multiplies in float32
// registers (float64 for float64), exactly. A block covers 8 x 32 outputs of one map by 16 filters.
// For one channel, and one depth of the window, at a time it puts the raw input rows under those
// outputs into shared memory, padding included, and the 16 filters' taps beside them; so every
// input comes from memory once per block, whatever kernel and stride. A thread owns 4 outputs of a
// row, 8 columns apart so that neighbours read neighbours, by 8 filters: 6 loads from shared memory
// for 32 multiply-adds.
//
// Least traffic: x, weight and y once; x is read F / 16 times, from L2, and the rows that
// neighbouring blocks share. Arithmetic: 2 * N * F * outputs * C/G * taps operations at the rate of
// float32.
#include "activation.h"
#include "conv_kernels.h"
#include "element.h"

namespace pydl::cuda {
namespace {

constexpr int few = 4;  // channels
constexpr int tile_rows = 8, tile_columns = 32, tile_filters = 16;
constexpr int own_columns = 4, own_filters = 8;  // of a thread
constexpr int threads = tile_rows * (tile_columns / own_columns) * (tile_filters / own_filters);

// What 8 rows by 32 columns of outputs read along H and W.
struct Patch {
  int rows, columns;
  int64_t across, down, filter_tiles;  // tiles
};

template <class A>
struct alignas(16) Weights {
  A values[own_filters];
};

template <class T>
__global__ void __launch_bounds__(threads)
    few_channels(View<const T> x, View<const T> weight, View<const T> bias, View<const T> residual,
                 View<T> y, ConvWindow window, Epilogue epilogue, Patch patch) {
  using A = accumulate_t<T>;
  DYNAMIC_SHARED(A, bank);  // [KH * KW][16]
  const int kernel_rows = weight.size[3], kernel_columns = weight.size[4];
  const int taps = kernel_rows * kernel_columns;
  A* inputs = bank + taps * tile_filters;  // [rows][columns]

  int64_t n = blockIdx.x;
  const int64_t left = take(n, patch.across) * tile_columns, top = take(n, patch.down) * tile_rows;
  const int64_t od = take(n, y.size[2]);
  const int64_t first_filter = take(n, patch.filter_tiles) * tile_filters;
  const int64_t group = take(n, window.groups);
  const int64_t filters = quotient(y.size[1], window.groups);
  const int t = threadIdx.x;
  const int column = t % 8, row = t / 8 % tile_rows, bundle = t / (8 * tile_rows) * own_filters;
  const int step = window.stride[2], between_taps = window.dilation[2];

  A sums[own_filters][own_columns] = {};
  for (int64_t c = 0; c < weight.size[1]; ++c) {
    for (int64_t kd = 0; kd < weight.size[2]; ++kd) {
      const int64_t d = od * window.stride[0] - window.padding[0] + kd * window.dilation[0];
      if (!inside(d, x.size[2])) continue;
      // The last channel is used up.
      __syncthreads();
      const T* map = &x.at(n, group * weight.size[1] + c, d, 0, 0);  // [H, W]
      for (int e = t; e < patch.rows * patch.columns; e += threads) {
        const int64_t h = top * window.stride[1] - window.padding[1] + e / patch.columns;
        const int64_t w = left * window.stride[2] - window.padding[2] + e % patch.columns;
        inputs[e] = inside(h, x.size[3]) && inside(w, x.size[4])
                        ? A(map[h * x.stride[3] + w * x.stride[4]])
                        : A(0);
      }
      for (int e = t; e < taps * tile_filters; e += threads) {
        const int64_t f = first_filter + e % tile_filters;
        const int tap = e / tile_filters;
        bank[e] = f < filters ? A(weight.at(group * filters + f, c, kd, tap / kernel_columns,
                                            tap % kernel_columns))
                              : A(0);
      }
      __syncthreads();
      const A* weights = bank + bundle;
      for (int kh = 0; kh < kernel_rows; ++kh) {
        const int h =
            row * static_cast<int>(window.stride[1]) + kh * static_cast<int>(window.dilation[1]);
        const A* values = inputs + h * patch.columns + column * step;
        for (int kw = 0; kw < kernel_columns; ++kw, weights += tile_filters) {
          const Weights<A> own = *reinterpret_cast<const Weights<A>*>(weights);
          UNROLLED
          for (int i = 0; i < own_columns; ++i) {
            const A value = values[i * 8 * step + kw * between_taps];
            UNROLLED
            for (int j = 0; j < own_filters; ++j) sums[j][i] += value * own.values[j];
          }
        }
      }
    }
  }

  const int64_t oh = top + row;
  if (oh >= y.size[3]) return;
  UNROLLED
  for (int i = 0; i < own_columns; ++i) {
    const int64_t ow = left + column + i * 8;
    UNROLLED
    for (int j = 0; j < own_filters; ++j) {
      if (ow >= y.size[4] || first_filter + bundle + j >= filters) continue;
      const int64_t f = group * filters + first_filter + bundle + j;
      A z = sums[j][i];
      if (bias.data != nullptr) z += A(bias.at(0, f, 0, 0, 0));
      if (residual.data != nullptr) z += A(residual.at(n, f, od, oh, ow));
      y.at(n, f, od, oh, ow) = T(activated(z, epilogue));
    }
  }
}

int64_t reach(const ConvForward& args, int axis, int64_t outputs) {
  return (outputs - 1) * args.window.stride[axis] +
         (args.weight.size[axis + 2] - 1) * args.window.dilation[axis] + 1;
}

int64_t shared_bytes(const ConvForward& args) {
  const int64_t element = args.x.dtype == DType::float64 ? sizeof(double) : sizeof(float);
  const int64_t inputs = reach(args, 1, tile_rows) * reach(args, 2, tile_columns);
  return (inputs + args.weight.size[3] * args.weight.size[4] * tile_filters) * element;
}

}  // namespace

bool few_channels_serve(const ConvForward& args) {
  constexpr int64_t most = 48 * 1024;
  // Maps of a few rows would leave most of a tile idle.
  return args.weight.size[1] <= few && args.y.size[3] >= tile_rows / 2 &&
         reach(args, 1, tile_rows) < most && reach(args, 2, tile_columns) < most &&
         shared_bytes(args) <= most;
}

void conv_forward_few_channels(const ConvForward& args, int64_t stream) {
  const Tensor& y = args.y;
  Patch patch;
  patch.rows = static_cast<int>(reach(args, 1, tile_rows));
  patch.columns = static_cast<int>(reach(args, 2, tile_columns));
  patch.across = blocks_for(y.size[4], tile_columns);
  patch.down = blocks_for(y.size[3], tile_rows);
  patch.filter_tiles = blocks_for(y.size[1] / args.window.groups, tile_filters);
  const int64_t blocks =
      patch.across * patch.down * y.size[2] * patch.filter_tiles * args.window.groups * y.size[0];
  dispatch_floating(y.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    launch(few_channels<T>, blocks, threads, shared_bytes(args), stream, View<const T>(args.x),
           View<const T>(args.weight), View<const T>(args.bias), View<const T>(args.residual),
           View<T>(y), args.window, args.epilogue, patch);
  });
}

}  // namespace pydl::cuda
