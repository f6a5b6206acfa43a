#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void max_unpool_forward(const MaxUnpoolForward& args, int64_t threads) {
  check_unpool(args.x, args.index, args.y);
  const bool last = channels_last("max_unpool", {&args.x, &args.index, &args.y});
  if (args.y.numel() > 0) kernels().max_unpool_forward(args, last, threads);
}

void max_unpool_backward(const MaxUnpoolBackward& args, int64_t threads) {
  check_unpool(args.grad_x, args.index, args.grad_y);
  const bool last = channels_last("max_unpool", {&args.grad_y, &args.index, &args.grad_x});
  if (args.grad_x.numel() > 0) kernels().max_unpool_backward(args, last, threads);
}

}  // namespace pydl::cpu
