#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

bool adaptive_pool_layout(const Tensor& map, const Tensor& pooled, const Tensor& index,
                          bool pyramid) {
  const Tensor& kept = index.data == nullptr ? pooled : index;
  if (!pyramid) return channels_last("adaptive_pool", {&map, &pooled, &kept});
  check(pooled.numel() == 0 || (dense(pooled, {1, 0}) && dense(kept, {1, 0})),
        "a pyramid on a CPU needs dense results");
  return channels_last("adaptive_pool", {&map});
}

}  // namespace

void adaptive_pool_forward(const AdaptivePoolForward& args, int64_t threads) {
  const auto& [x, y, index, levels, pyramid, maximum] = args;
  check_adaptive(x, y, index, levels, pyramid, maximum, /*needs_index=*/false);
  const bool last = adaptive_pool_layout(x, y, index, pyramid);
  if (y.numel() > 0) kernels().adaptive_pool_forward(args, last, threads);
}

void adaptive_pool_backward(const AdaptivePoolBackward& args, int64_t threads) {
  const auto& [grad_y, index, grad_x, levels, pyramid, maximum] = args;
  check_adaptive(grad_x, grad_y, index, levels, pyramid, maximum, /*needs_index=*/true);
  const bool last = adaptive_pool_layout(grad_x, grad_y, index, pyramid);
  if (grad_x.numel() > 0) kernels().adaptive_pool_backward(args, last, threads);
}

}  // namespace pydl::cpu
