#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

template <class Arguments>
void check_cross_entropy(const Arguments& args, const Tensor& loss) {
  const Tensor &x = args.x, &target = args.target, &weight = args.weight;
  const int64_t positions = x.size[0] * x.size[4];
  const DType saved = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  const auto is_row = [](const Tensor& tensor, DType dtype, int64_t size) {
    return tensor.dtype == dtype && tensor.size[1] == size && tensor.numel() == size &&
           (size <= 1 || tensor.stride[1] == 1);
  };
  check_softmax({&x});
  check(x.size[1] >= 1 && x.size[1] <= INT32_MAX, "cross_entropy serves 1 to 2^31 - 1 classes");
  check(target.dtype == DType::int64 ? is_row(target, DType::int64, positions)
                                     : is_row(target, x.dtype, x.numel()),
        "cross_entropy needs a class index per position, or a probability per class and position");
  check(weight.data == nullptr || is_row(weight, x.dtype, x.size[1]),
        "cross_entropy needs a weight per class");
  const bool each = args.criterion.reduction == Reduction::none;
  check(is_row(loss, x.dtype, each ? positions : 1) && is_row(args.divisor, saved, 1) &&
            is_row(args.peak, saved, positions) && is_row(args.total, saved, positions),
        "cross_entropy needs a loss, a peak and a total for each position and a divisor");
}

}  // namespace

void cross_entropy_forward(const CrossEntropyForward& args, int64_t threads) {
  check_cross_entropy(args, args.loss);
  kernels().cross_entropy_forward(args, threads);
}

void cross_entropy_backward(const CrossEntropyBackward& args, int64_t threads) {
  check_cross_entropy(args, args.grad_loss);
  check_softmax({&args.x, &args.grad_x});
  if (args.x.numel() > 0) kernels().cross_entropy_backward(args, threads);
}

}  // namespace pydl::cpu
