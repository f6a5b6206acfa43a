#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

// A gradient may be taken of fewer outputs than x has room for: a transposed convolution's
// output_padding makes its map that large.
void check_depthwise(const Tensor& x, const Tensor& weight, const Tensor& y,
                     const ConvWindow& window, bool all_outputs = false) {
  const int64_t channels = x.size[1], filters = weight.size[0];
  check(x.dtype == y.dtype && x.dtype == weight.dtype && x.size[0] == y.size[0],
        "convolution needs tensors of one dtype and batch size");
  check(weight.size[1] == 1 && window.groups == channels && channels >= 1 &&
            filters % channels == 0 && filters >= 1 && y.size[1] == filters,
        "convolution on a CPU serves depthwise weights only: as many groups as channels and a "
        "multiple of them filters, got ",
        channels, " channels, ", window.groups, " groups, ", filters, " filters of ",
        weight.size[1], " channels and an output of ", y.size[1]);
  check(dense(weight, {4, 3, 2, 1, 0}), "convolution on a CPU needs a contiguous weight");
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t inputs = x.size[2 + axis], outputs = y.size[2 + axis];
    const int64_t kernel = weight.size[2 + axis], stride = window.stride[axis],
                  padding = window.padding[axis], dilation = window.dilation[axis];
    check(kernel >= 1 && stride >= 1 && padding >= 0 && dilation >= 1,
          "convolution needs a kernel, a stride and a dilation of at least 1 and no negative "
          "padding");
    const int64_t room = inputs + 2 * padding - dilation * (kernel - 1) - 1;
    const int64_t most = room < 0 ? 0 : room / stride + 1;
    check(inputs >= 1 && outputs >= 1 && outputs <= most && (outputs == most || !all_outputs),
          "convolution of ", inputs, " elements with kernel ", kernel, ", stride ", stride,
          ", padding ", padding, " and dilation ", dilation, " does not give ", outputs);
  }
}

}  // namespace

void conv_forward(const ConvForward& args, int64_t threads) {
  check_depthwise(args.x, args.weight, args.y, args.window, /*all_outputs=*/true);
  check_epilogue("convolution", args.y, args.bias, args.residual);
  const Tensor& residual = args.residual.data == nullptr ? args.y : args.residual;
  const bool last = channels_last("convolution", {&args.x, &args.y, &residual});
  if (args.y.numel() > 0) kernels().conv_forward(args, last, threads);
}

void conv_grad_input(const ConvGradInput& args, int64_t threads) {
  check_depthwise(args.grad_x, args.weight, args.grad_y, args.window);
  const bool last = channels_last("convolution", {&args.grad_x, &args.grad_y});
  if (args.grad_x.numel() > 0) kernels().conv_grad_input(args, last, threads);
}

void conv_grad_weight(const ConvGradWeight& args, int64_t threads) {
  check_depthwise(args.x, args.grad_weight, args.grad_y, args.window);
  const bool last = channels_last("convolution", {&args.x, &args.grad_y});
  kernels().conv_grad_weight(args, last, threads);
}

void conv_grad_bias(const ConvGradBias& args, int64_t threads) {
  check_epilogue("convolution", args.grad_y, args.grad_bias, Tensor{});
  const bool last = channels_last("convolution", {&args.grad_y});
  if (args.grad_bias.numel() > 0) kernels().conv_grad_bias(args, last, threads);
}

}  // namespace pydl::cpu
