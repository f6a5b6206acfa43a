#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

void check_local(const Tensor& x, const Tensor& weight, const Tensor& y,
                 const LocalWindow& window) {
  const int64_t* kernel = window.kernel;
  check(x.dtype == y.dtype && x.dtype == weight.dtype && x.size[0] == y.size[0],
        "local needs tensors of one dtype and batch size");
  for (const Tensor* tensor : {&x, &weight, &y})
    check(tensor->numel() == 0 || dense(*tensor, {4, 3, 2, 1, 0}),
          "local on a CPU needs contiguous tensors");
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t inputs = x.size[2 + axis], outputs = y.size[2 + axis];
    const int64_t stride = window.stride[axis], padding = window.padding[axis],
                  dilation = window.dilation[axis];
    check(kernel[axis] >= 1 && stride >= 1 && padding >= 0 && dilation >= 1,
          "local needs a kernel, a stride and a dilation of at least 1 and no negative padding");
    const int64_t room = inputs + 2 * padding - dilation * (kernel[axis] - 1) - 1;
    check(inputs >= 1 && room >= 0 && outputs == room / stride + 1, "local of ", inputs,
          " elements with kernel ", kernel[axis], ", stride ", stride, ", padding ", padding,
          " and dilation ", dilation, " does not give ", outputs);
  }
  check(weight.size[0] == y.size[1] &&
            weight.size[1] == x.size[1] * kernel[0] * kernel[1] * kernel[2] &&
            std::equal(y.size + 2, y.size + 5, weight.size + 2),
        "local needs a weight (filters, channels * taps, positions...) that fits its input and "
        "output");
  check(x.size[2] * x.size[3] * x.size[4] <= INT32_MAX,
        "local serves maps of less than 2^31 positions");
}

}  // namespace

void local_forward(const LocalForward& args, int64_t threads) {
  check_local(args.x, args.weight, args.y, args.window);
  check(args.bias.data == nullptr ||
            (args.bias.dtype == args.y.dtype &&
             std::equal(args.y.size + 1, args.y.size + 5, args.bias.size + 1) &&
             args.bias.size[0] == 1 && dense(args.bias, {4, 3, 2, 1})),
        "local needs a contiguous bias of the output's dtype, one per filter and position");
  if (args.y.numel() > 0) kernels().local_forward(args, threads);
}

void local_grad_input(const LocalGradInput& args, int64_t threads) {
  check_local(args.grad_x, args.weight, args.grad_y, args.window);
  if (args.grad_x.numel() > 0) kernels().local_grad_input(args, threads);
}

void local_grad_weight(const LocalGradWeight& args, int64_t threads) {
  check_local(args.x, args.grad_weight, args.grad_y, args.window);
  if (args.grad_weight.numel() > 0) kernels().local_grad_weight(args, threads);
}

}  // namespace pydl::cpu
