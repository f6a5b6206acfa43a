#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void roi_align_forward(const RoiAlignForward& args, int64_t threads) {
  check_roi(args.x, args.boxes, args.y);
  const bool last = channels_last("roi_align", {&args.x, &args.y});
  if (args.y.numel() > 0) kernels().roi_align_forward(args, last, threads);
}

void roi_align_backward(const RoiAlignBackward& args, int64_t threads) {
  check_roi(args.grad_x, args.boxes, args.grad_y);
  const bool last = channels_last("roi_align", {&args.grad_y, &args.grad_x});
  if (args.grad_x.numel() > 0) kernels().roi_align_backward(args, last, threads);
}

void roi_pool_forward(const RoiPoolForward& args, int64_t threads) {
  const auto& [x, boxes, y, index, scale] = args;
  check_roi(x, boxes, y);
  if (index.data != nullptr) check_roi_index(y, index);
  const bool last = channels_last("roi_pool", {&x, &y, index.data == nullptr ? &y : &index});
  if (y.numel() > 0) kernels().roi_pool_forward(args, last, threads);
}

void roi_pool_backward(const RoiPoolBackward& args, int64_t threads) {
  check_roi(args.grad_x, args.boxes, args.grad_y);
  check_roi_index(args.grad_y, args.index);
  const bool last = channels_last("roi_pool", {&args.grad_y, &args.index, &args.grad_x});
  if (args.grad_x.numel() > 0) kernels().roi_pool_backward(args, last, threads);
}

}  // namespace pydl::cpu
