// Depthwise convolution, forward (definition in ../conv.h): bias, residual and activation in the
// same pass. The sums are in depthwise_lines.h (N, C, ...) and depthwise_pixels.h (channels last).
//
// Bytes: x (and residual) read and y written once. Operations: a multiply-add a tap and output, 9
// vector instructions for 16 outputs of a 3x3 window.
//
// Measured at 8x256x56x56, float32, 3x3 stride 1, one thread of a Zen 4 with AVX-512, in copies of
// the input: N, C, H, W 1.9 (PyTorch 3.1), channels last 1.7 (PyTorch 2.4)
// (bench/results/cpu/depthwise.csv). Before: staging and summing a row at a time with the length of
// the vectors chosen for each, 7.4 copies; channels last without two lines sharing what they read,
// 0.97 times PyTorch's speed.
#include "depthwise_lines.h"
#include "depthwise_pixels.h"
#include "depthwise_tiles.h"
#include "kernels.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kSmallPlane = 64;  // elements; measured in depthwise_tiles.h

ConvAxis axis(const ConvForward& args, int spatial) {
  return {args.window, args.weight, args.x, args.y, spatial, /*transposed=*/false};
}

template <class T>
void forward_pixels(const ConvForward& args, int64_t threads) {
  const int64_t batch = args.x.size[0], channels = args.x.size[1];
  DepthwisePixels<T>{static_cast<const T*>(args.x.data),
                     static_cast<const T*>(args.weight.data),
                     static_cast<const T*>(args.bias.data),
                     static_cast<const T*>(args.residual.data),
                     static_cast<T*>(args.y.data),
                     args.epilogue,
                     axis(args, 0),
                     axis(args, 1),
                     axis(args, 2),
                     batch,
                     channels,
                     args.y.size[1] / channels}
      .run(threads);
}

template <class T>
void forward_lines(const ConvForward& args, int64_t threads) {
  const int64_t batch = args.x.size[0], channels = args.x.size[1];
  DepthwiseLines<T>{static_cast<const T*>(args.x.data),
                    static_cast<const T*>(args.weight.data),
                    static_cast<const T*>(args.bias.data),
                    static_cast<const T*>(args.residual.data),
                    static_cast<T*>(args.y.data),
                    args.epilogue,
                    axis(args, 0),
                    Staging(axis(args, 1), axis(args, 2), kStaged),
                    batch,
                    channels,
                    args.y.size[1] / channels,
                    args.weight.numel() / args.weight.size[0]}
      .run(threads);
}

template <class T>
void forward_tiles(const ConvForward& args, int64_t threads) {
  const TilePair<T> tiles(args.x, args.y, threads);
  const int64_t taps = args.weight.numel() / args.weight.size[0];
  tiles.run([&](const Tensor& x, const Tensor& y, int64_t image, int64_t channel) {
    tiles.x.load(image, channel, x);
    ConvForward tile = args;
    tile.x = x, tile.y = y;
    tile.weight.data = static_cast<T*>(args.weight.data) + channel * taps;
    if (args.bias.data != nullptr) tile.bias.data = static_cast<T*>(args.bias.data) + channel;
    forward_pixels<T>(tile, 1);
    tiles.y.store(y, image, channel);
  });
}

}  // namespace

void conv_forward(const ConvForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "convolution", [&]<class T>(T) {
    if (channels_last) return forward_pixels<T>(args, threads);
    if constexpr (std::is_same_v<T, accumulate_t<T>>) {
      if (args.residual.data == nullptr && tiles_serve(args.x, args.y, kSmallPlane))
        return forward_tiles<T>(args, threads);
    }
    forward_lines<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
