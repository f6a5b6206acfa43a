// Depthwise convolution, forward and the gradient of its input (definitions in ../conv.h): bias,
// residual and activation in the same pass as the forward sums. The gradient is the transposed
// sums: with stride s the inputs fall into s classes per axis, each a convolution of grad_y of
// stride 1 with taps of its own, so that every input is written once and none is added to. The sums
// are in depthwise_lines.h (N, C, ...), depthwise_pixels.h (channels last) and depthwise_tiles.h
// (small planes).
//
// Bytes: x (and residual) read and y written once; grad_y read, grad_x written once. Operations:
// one multiply-add per tap and output, 9 vector instructions for 16 outputs of a 3x3 window.
//
// Measured at 8x256x56x56, float32, 3x3 stride 1, one thread of a Zen 4 with AVX-512, in copies of
// the input (bench/results/cpu/depthwise.csv): N, C, H, W 2.5 (PyTorch 4.3), channels last 1.6
// (PyTorch 3.2). Before: staging and summing a row at a time with the length of the vectors chosen
// for each, three times slower; channels last with plain stores 1.4 times.
#include "../conv.h"
#include "depthwise_lines.h"
#include "depthwise_pixels.h"
#include "depthwise_tiles.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kSmallPlane = 64;  // elements; measured in depthwise_tiles.h

// Both directions: forward x is the source and y the target, transposed the other way round.
struct Pass {
  Tensor source, weight, bias, residual, target;
  Epilogue epilogue;
  ConvWindow window;
  bool transposed;

  ConvAxis axis(int spatial) const {
    return {window,  weight,    transposed ? target : source, transposed ? source : target,
            spatial, transposed};
  }
  int64_t batch() const { return source.size[0]; }
  int64_t channels() const { return (transposed ? target : source).size[1]; }
  int64_t multiplier() const { return (transposed ? source : target).size[1] / channels(); }
  int64_t taps() const { return weight.size[2] * weight.size[3] * weight.size[4]; }
};

template <class T>
const T* values(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data);
}

template <class T>
void by_pixels(const Pass& pass, int64_t threads) {
  DepthwisePixels<T>{values<T>(pass.source),
                     values<T>(pass.weight),
                     values<T>(pass.bias),
                     values<T>(pass.residual),
                     static_cast<T*>(pass.target.data),
                     pass.epilogue,
                     pass.axis(0),
                     pass.axis(1),
                     pass.axis(2),
                     pass.batch(),
                     pass.channels(),
                     pass.multiplier()}
      .run(threads);
}

template <class T>
void by_lines(const Pass& pass, int64_t threads) {
  const Staging staging(pass.axis(1), pass.axis(2), kStaged);
  DepthwiseLines<T>{values<T>(pass.source),
                    values<T>(pass.weight),
                    values<T>(pass.bias),
                    values<T>(pass.residual),
                    static_cast<T*>(pass.target.data),
                    pass.epilogue,
                    pass.axis(0),
                    staging,
                    pass.batch(),
                    pass.channels(),
                    pass.multiplier(),
                    pass.taps()}
      .run(threads);
}

template <class T>
void by_tiles(const Pass& pass, int64_t threads) {
  const TilePair<T> tiles(pass.source, pass.target, threads);
  tiles.run([&](const Tensor& source, const Tensor& target, int64_t image, int64_t channel) {
    tiles.x.load(image, channel, source);
    Pass tile = pass;
    tile.source = source, tile.target = target;
    tile.weight.data = static_cast<T*>(pass.weight.data) + channel * pass.taps();
    if (pass.bias.data != nullptr) tile.bias.data = static_cast<T*>(pass.bias.data) + channel;
    by_pixels<T>(tile, 1);
    tiles.y.store(target, image, channel);
  });
}

void run(const Pass& pass, bool channels_last, int64_t threads) {
  dispatch_floating(pass.source.dtype, "convolution", [&]<class T>(T) {
    if (channels_last) return by_pixels<T>(pass, threads);
    if constexpr (std::is_same_v<T, accumulate_t<T>>) {
      if (pass.residual.data == nullptr &&
          tiles_serve(pass.source, kSmallPlane, pass.target, kSmallPlane))
        return by_tiles<T>(pass, threads);
    }
    by_lines<T>(pass, threads);
  });
}

}  // namespace

void conv_forward(const ConvForward& args, bool channels_last, int64_t threads) {
  run({args.x, args.weight, args.bias, args.residual, args.y, args.epilogue, args.window,
       /*transposed=*/false},
      channels_last, threads);
}

void conv_grad_input(const ConvGradInput& args, bool channels_last, int64_t threads) {
  run({args.grad_y, args.weight, Tensor{}, Tensor{}, args.grad_x, Epilogue{}, args.window,
       /*transposed=*/true},
      channels_last, threads);
}

}  // namespace pydl::cpu::PYDL_ISA
