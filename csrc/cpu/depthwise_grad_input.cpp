// Depthwise convolution, the gradient of its input (definition in ../conv.h): the transposed sums
// of depthwise_lines.h and depthwise_pixels.h. With stride s the inputs fall into s classes an
// axis, each a convolution of grad_y of stride 1 with taps of its own: every input is written once,
// none is added to.
//
// Bytes: grad_y read, grad_x written once.
#include "depthwise_lines.h"
#include "depthwise_pixels.h"
#include "kernels.h"

namespace pydl::cpu::PYDL_ISA {

void conv_grad_input(const ConvGradInput& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "convolution", [&]<class T>(T) {
    const auto axis = [&](int spatial) {
      return ConvAxis(args.window, args.weight, args.grad_x, args.grad_y, spatial,
                      /*transposed=*/true);
    };
    const T *grad_y = static_cast<const T*>(args.grad_y.data),
            *weight = static_cast<const T*>(args.weight.data);
    T* grad_x = static_cast<T*>(args.grad_x.data);
    const int64_t batch = args.grad_x.size[0], channels = args.grad_x.size[1],
                  multiplier = args.grad_y.size[1] / channels;
    if (channels_last) {
      DepthwisePixels<T>{grad_y,  weight,  nullptr, nullptr, grad_x,   Epilogue{},
                         axis(0), axis(1), axis(2), batch,   channels, multiplier}
          .run(threads);
    } else {
      DepthwiseLines<T>{grad_y, weight,     nullptr,    nullptr,
                        grad_x, Epilogue{}, axis(0),    Staging(axis(1), axis(2), kStaged),
                        batch,  channels,   multiplier, args.weight.numel() / args.weight.size[0]}
          .run(threads);
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
