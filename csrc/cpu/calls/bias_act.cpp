#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

bool bias_act_layout(const BiasActForward& args) {
  check_alike("bias_act", args.x, args.y);
  check_epilogue("bias_act", args.y, args.bias, args.residual);
  const Tensor& residual = args.residual.data == nullptr ? args.x : args.residual;
  return channels_last("bias_act", {&args.x, &residual, &args.y});
}

}  // namespace

void bias_act_forward(const BiasActForward& args, int64_t threads) {
  const bool last = bias_act_layout(args);
  if (args.x.numel() > 0) kernels().bias_act_forward(args, last, threads);
}

void bias_act_backward(const BiasActBackward& args, int64_t threads) {
  check_alike("bias_act", args.grad_y, args.saved);
  check_alike("bias_act", args.grad_y, args.grad_x);
  channels_last("bias_act", {&args.grad_y, &args.saved, &args.grad_x});
  if (args.grad_y.numel() > 0) kernels().bias_act_backward(args, threads);
}

}  // namespace pydl::cpu
