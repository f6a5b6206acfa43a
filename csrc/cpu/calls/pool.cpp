#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

bool max_pool_layout(const Tensor& x, const Tensor& y, const Tensor& index,
                     const PoolWindow& window) {
  check_window("max_pool", x, y, window);
  if (index.data == nullptr) return channels_last("max_pool", {&x, &y});
  check(std::equal(y.size, y.size + 5, index.size), "max_pool needs an index for each output");
  const int64_t* kernel = window.kernel;
  if (index.dtype == DType::uint8) {
    const int64_t taps = kernel[0] * kernel[1] * kernel[2];
    check(taps <= 256, "max_pool with uint8 indices serves windows of at most 256 taps, got ",
          taps);
  } else {
    check(index.dtype == DType::int64, "max_pool serves uint8 and int64 indices only");
    int64_t span = 0;
    for (int axis = 0; axis < 3; ++axis)
      span = span * x.size[2 + axis] + (kernel[axis] - 1) * window.dilation[axis];
    check(span <= INT32_MAX,
          "max_pool with indices serves windows that span less than 2^31 elements, got ", span);
  }
  return channels_last("max_pool", {&x, &y, &index});
}

bool avg_pool_layout(const Tensor& x, const Tensor& y, const PoolWindow& window) {
  check_window("avg_pool", x, y, window);
  check(window.dilation[0] == 1 && window.dilation[1] == 1 && window.dilation[2] == 1,
        "avg_pool serves a dilation of 1 only");
  return channels_last("avg_pool", {&x, &y});
}

}  // namespace

void max_pool_forward(const MaxPoolForward& args, int64_t threads) {
  const bool last = max_pool_layout(args.x, args.y, args.index, args.window);
  if (args.x.numel() > 0) kernels().max_pool_forward(args, last, threads);
}

void max_pool_backward(const MaxPoolBackward& args, int64_t threads) {
  check(args.index.data != nullptr || args.index.numel() == 0 || args.grad_y.numel() == 0,
        "max_pool backward needs indices");
  const bool last = max_pool_layout(args.grad_x, args.grad_y, args.index, args.window);
  if (args.grad_x.numel() > 0) kernels().max_pool_backward(args, last, threads);
}

void avg_pool_forward(const AvgPoolForward& args, int64_t threads) {
  const bool last = avg_pool_layout(args.x, args.y, args.window);
  if (args.x.numel() > 0) kernels().avg_pool_forward(args, last, threads);
}

void avg_pool_backward(const AvgPoolBackward& args, int64_t threads) {
  const bool last = avg_pool_layout(args.grad_x, args.grad_y, args.window);
  if (args.grad_x.numel() > 0) kernels().avg_pool_backward(args, last, threads);
}

}  // namespace pydl::cpu
