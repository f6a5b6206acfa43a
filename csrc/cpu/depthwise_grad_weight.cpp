// Gradient of a depthwise convolution's weight (definition in ../conv.h): every weight adds up
// grad_y * x over the batch and the outputs, in an order that depends on the shape alone.
//
// Bytes: x and grad_y read once.
#include "depthwise_weight_lines.h"
#include "depthwise_weight_pixels.h"
#include "kernels.h"

namespace pydl::cpu::PYDL_ISA {

void conv_grad_weight(const ConvGradWeight& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "convolution", [&]<class T>(T) {
    channels_last ? weight_from_pixels<T>(args, threads) : weight_from_lines<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
