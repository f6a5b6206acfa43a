// The gradient of a convolution's bias where grad_y lies without gaps (dense.h): conv_direct.cu has
// the definition and the kernel for any others.
//
// A block adds up a run of pixels of a channel, or in channels last of 32; a thread takes 16 bytes at
// a time where rows and addresses permit it, four times, so that it waits once for all
// (channel_sums.h). A second kernel adds up the runs. Sums are in float32, in float64 for float64:
// those of a thread are short, and the rest is by halves.
//
// Least traffic: each byte of grad_y once.
#include "channel_sums.h"
#include "conv_kernels.h"

namespace pydl::cuda {
namespace {

template <class T, int width>
__global__ void dense_bias_gradient(const T* grad_y, View<accumulate_t<T>> parts, Places places) {
  using A = accumulate_t<T>;
  constexpr int together = 4;  // places
  ChannelWalk<width> walk(places);
  Vector<A, width> sums = {};
  const auto add = [&]<bool all>(std::bool_constant<all>) {
    Vector<T, width> gradient[together] = {};
    UNROLLED for (int i = 0; i < together; ++i) {
      if (all || walk.more()) gradient[i] = load<width>(grad_y + walk.offset());
      walk.advance();
    }
    UNROLLED for (int i = 0; i < together; ++i) {
      UNROLLED for (int j = 0; j < width; ++j) sums.at[j] += A(gradient[i].at[j]);
    }
  };
  // Where none has to be asked after, nvcc puts the loads first.
  while (walk.more(together)) add(std::true_type{});
  if (walk.more()) add(std::false_type{});
  with_columns<width>(places, [&]<int n, int across>(std::integral_constant<int, n>,
                                                     std::integral_constant<int, across>) {
    using Channels = Vector<A, n>;
    SHARED(Channels, of_warps, [warps][across]);
    Channels sum = {};
    UNROLLED for (int j = 0; j < width; ++j) sum.at[j % n] += sums.at[j];
    store_parts<n * across>(parts, places, sum_of_block(sum, of_warps));
  });
}

template <class T>
__global__ void join_runs(View<const accumulate_t<T>> parts, View<T> grad_bias, int64_t runs) {
  const int64_t c = channel_of_warp();
  if (c >= grad_bias.size[1]) return;  // the whole warp
  const auto sum = sum_of_runs<1>(parts, runs, c);
  if (threadIdx.x % warp_size == 0) grad_bias.at(0, c, 0, 0, 0) = T(sum.at[0]);
}

}  // namespace

int64_t conv_grad_bias_runs(const Tensor& grad_y) {
  const bool serves =
      grad_y.numel() > 0 && grad_y.numel() <= 1 << 29 && is_dense(grad_y, grad_y.channels_last());
  return serves ? Shape(grad_y).runs : 0;
}

void launch_dense_bias(const ConvGradBias& args, int64_t stream) {
  const auto& [grad_y, grad_bias, parts] = args;
  const Shape shape(grad_y);
  dispatch_floating(grad_y.dtype, "convolution", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    dispatch_dense<T>(
        {&grad_y}, {&grad_bias}, shape.channels_last, [&](auto width, const Dense& dense) {
          launch(dense_bias_gradient<T, width>, blocks_of(shape), block_size, 0, stream,
                 static_cast<const T*>(grad_y.data), View<A>(parts), Places(dense, shape, width));
        });
    launch(join_runs<T>, blocks_for(shape.channels, block_size / warp_size), block_size, 0, stream,
           View<const A>(parts), View<T>(grad_bias), shape.runs);
  });
}

}  // namespace pydl::cuda
