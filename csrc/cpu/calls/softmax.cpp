#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void softmax_forward(const SoftmaxForward& args, int64_t threads) {
  check_softmax({&args.x, &args.y});
  if (args.x.numel() > 0) kernels().softmax_forward(args, threads);
}

void softmax_backward(const SoftmaxBackward& args, int64_t threads) {
  check_softmax({&args.grad_y, &args.y, &args.grad_x});
  if (args.y.numel() > 0) kernels().softmax_backward(args, threads);
}

}  // namespace pydl::cpu
