#include <cmath>

#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

bool lp_pool_layout(const Tensor& x, const Tensor& y, const PoolWindow& window, double p,
                    std::initializer_list<const Tensor*> maps) {
  check_window("lp_pool", x, y, window);
  for (int axis = 0; axis < 3; ++axis) {
    check(window.dilation[axis] == 1 && window.padding[axis] == 0,
          "lp_pool serves windows without dilation or padding only");
  }
  check(std::isfinite(p) && p != 0, "lp_pool needs a finite norm_type other than 0, got ", p);
  return channels_last("lp_pool", maps);
}

}  // namespace

void lp_pool_forward(const LpPoolForward& args, int64_t threads) {
  const auto& [x, y, window, p] = args;
  const bool last = lp_pool_layout(x, y, window, p, {&x, &y});
  if (x.numel() > 0) kernels().lp_pool_forward(args, last, threads);
}

void lp_pool_backward(const LpPoolBackward& args, int64_t threads) {
  const auto& [grad_y, x, y, grad_x, window, p] = args;
  check_alike("lp_pool", grad_y, y);
  check_alike("lp_pool", grad_x, x);
  const bool last = lp_pool_layout(x, y, window, p, {&grad_y, &x, &y, &grad_x});
  if (x.numel() > 0) kernels().lp_pool_backward(args, last, threads);
}

}  // namespace pydl::cpu
