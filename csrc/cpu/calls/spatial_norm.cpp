#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void spatial_norm_forward(const SpatialNormForward& args, int64_t threads) {
  const bool last = norm_layout("spatial norm", {&args.x, &args.y}, args.size);
  if (args.x.numel() > 0) kernels().spatial_norm_forward(args, last, threads);
}

void spatial_norm_backward(const SpatialNormBackward& args, int64_t threads) {
  const bool last = norm_layout("spatial norm", {&args.grad_y, &args.x, &args.grad_x}, args.size);
  if (args.x.numel() > 0) kernels().spatial_norm_backward(args, last, threads);
}

}  // namespace pydl::cpu
