#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void lrn_forward(const LrnForward& args, int64_t threads) {
  const bool last = norm_layout("lrn", {&args.x, &args.y}, args.size);
  if (args.x.numel() > 0) kernels().lrn_forward(args, last, threads);
}

void lrn_backward(const LrnBackward& args, int64_t threads) {
  const bool last = norm_layout("lrn", {&args.grad_y, &args.x, &args.grad_x}, args.size);
  if (args.x.numel() > 0) kernels().lrn_backward(args, last, threads);
}

}  // namespace pydl::cpu
