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
#include "kernels.h"

namespace pydl::cpu::PYDL_ISA {

void conv_forward(const ConvForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "convolution", [&]<class T>(T) {
    const auto axis = [&](int spatial) {
      return ConvAxis(args.window, args.weight, args.x, args.y, spatial, /*transposed=*/false);
    };
    const T *x = static_cast<const T*>(args.x.data),
            *weight = static_cast<const T*>(args.weight.data),
            *bias = static_cast<const T*>(args.bias.data),
            *residual = static_cast<const T*>(args.residual.data);
    T* y = static_cast<T*>(args.y.data);
    const int64_t batch = args.x.size[0], channels = args.x.size[1],
                  multiplier = args.y.size[1] / channels;
    if (channels_last) {
      DepthwisePixels<T>{x,       weight,  bias,    residual, y,        args.epilogue,
                         axis(0), axis(1), axis(2), batch,    channels, multiplier}
          .run(threads);
    } else {
      DepthwiseLines<T>{x,     weight,        bias,       residual,
                        y,     args.epilogue, axis(0),    Staging(axis(1), axis(2), kStaged),
                        batch, channels,      multiplier, args.weight.numel() / args.weight.size[0]}
          .run(threads);
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
