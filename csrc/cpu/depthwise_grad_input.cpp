// Depthwise convolution, the gradient of its input (definition in ../conv.h): the transposed sums
// of depthwise_lines.h and depthwise_pixels.h. With stride s the inputs fall into s classes an
// axis, each a convolution of grad_y of stride 1 with taps of its own: every input is written once,
// none is added to.
//
// Bytes: grad_y read, grad_x written once.
#include "depthwise_lines.h"
#include "depthwise_pixels.h"
#include "depthwise_tiles.h"
#include "kernels.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kSmallPlane = 64;  // elements; measured in depthwise_tiles.h

ConvAxis axis(const ConvGradInput& args, int spatial) {
  return {args.window, args.weight, args.grad_x, args.grad_y, spatial, /*transposed=*/true};
}

template <class T>
void grad_pixels(const ConvGradInput& args, int64_t threads) {
  const int64_t batch = args.grad_x.size[0], channels = args.grad_x.size[1];
  DepthwisePixels<T>{static_cast<const T*>(args.grad_y.data),
                     static_cast<const T*>(args.weight.data),
                     nullptr,
                     nullptr,
                     static_cast<T*>(args.grad_x.data),
                     Epilogue{},
                     axis(args, 0),
                     axis(args, 1),
                     axis(args, 2),
                     batch,
                     channels,
                     args.grad_y.size[1] / channels}
      .run(threads);
}

template <class T>
void grad_lines(const ConvGradInput& args, int64_t threads) {
  const int64_t batch = args.grad_x.size[0], channels = args.grad_x.size[1];
  DepthwiseLines<T>{static_cast<const T*>(args.grad_y.data),
                    static_cast<const T*>(args.weight.data),
                    nullptr,
                    nullptr,
                    static_cast<T*>(args.grad_x.data),
                    Epilogue{},
                    axis(args, 0),
                    Staging(axis(args, 1), axis(args, 2), kStaged),
                    batch,
                    channels,
                    args.grad_y.size[1] / channels,
                    args.weight.numel() / args.weight.size[0]}
      .run(threads);
}

template <class T>
void grad_tiles(const ConvGradInput& args, int64_t threads) {
  const TilePair<T> tiles(args.grad_y, args.grad_x, threads);
  const int64_t taps = args.weight.numel() / args.weight.size[0];
  tiles.run([&](const Tensor& grad_y, const Tensor& grad_x, int64_t image, int64_t channel) {
    tiles.x.load(image, channel, grad_y);
    ConvGradInput tile = args;
    tile.grad_y = grad_y, tile.grad_x = grad_x;
    tile.weight.data = static_cast<T*>(args.weight.data) + channel * taps;
    grad_pixels<T>(tile, 1);
    tiles.y.store(grad_x, image, channel);
  });
}

}  // namespace

void conv_grad_input(const ConvGradInput& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "convolution", [&]<class T>(T) {
    if (channels_last) return grad_pixels<T>(args, threads);
    if constexpr (std::is_same_v<T, accumulate_t<T>>) {
      if (tiles_serve(args.grad_x, args.grad_y, kSmallPlane)) return grad_tiles<T>(args, threads);
    }
    grad_lines<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
