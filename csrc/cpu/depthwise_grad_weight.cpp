// Gradient of a depthwise convolution's weight (definition in ../conv.h): every weight adds up
// grad_y * x over the batch and the outputs, in an order that depends on the shape alone.
//
// Bytes: x and grad_y read once.
#include "../conv.h"
#include "depthwise_tiles.h"
#include "depthwise_weight_lines.h"
#include "depthwise_weight_pixels.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// Elements of a plane; measured in depthwise_tiles.h. A stride of 2 makes it a quarter.
constexpr int64_t kSmallInput = 1024, kSmallOutput = 256;

template <class T>
void weight_from_tiles(const ConvGradWeight& args, int64_t threads) {
  const TilePair<T> tiles(args.x, args.grad_y, threads);
  const int64_t taps = args.grad_weight.numel() / args.grad_weight.size[0];
  T* grad_weight = static_cast<T*>(args.grad_weight.data);
  std::fill_n(grad_weight, args.grad_weight.numel(), T{0});
  tiles.run([&](const Tensor& x, const Tensor& grad_y, int64_t image, int64_t channel) {
    tiles.x.load(image, channel, x);
    tiles.y.load(image, channel, grad_y);
    std::vector<T> part(x.size[1] * taps);
    ConvGradWeight tile = args;
    tile.x = x, tile.grad_y = grad_y, tile.grad_weight.data = part.data();
    weight_from_pixels<T>(tile, 1);
    for (size_t i = 0; i < part.size(); ++i) grad_weight[channel * taps + i] += part[i];
  });
}

}  // namespace

void conv_grad_weight(const ConvGradWeight& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "convolution", [&]<class T>(T) {
    if (channels_last) return weight_from_pixels<T>(args, threads);
    if constexpr (std::is_same_v<T, accumulate_t<T>>) {
      if (tiles_serve(args.x, kSmallInput, args.grad_y, kSmallOutput))
        return weight_from_tiles<T>(args, threads);
    }
    weight_from_lines<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
