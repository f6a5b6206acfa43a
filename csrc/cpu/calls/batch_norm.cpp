#include <array>

#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {
namespace {

void check_channels(const Tensor& x, std::initializer_list<const Tensor*> vectors) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  for (const Tensor* vector : vectors) {
    check(vector->data == nullptr || (vector->dtype == sums && vector->size[1] == x.size[1] &&
                                      vector->numel() == x.size[1] && dense(*vector, {1})),
          "batch_norm needs statistics, weights and sums of ", x.size[1],
          " values, float32 or, for float64, float64");
  }
}

// Whether the maps are channels last; some of them may be absent.
bool batch_norm_layout(const Tensor& x, std::initializer_list<const Tensor*> maps) {
  std::array<const Tensor*, 4> given{&x, &x, &x, &x};
  auto* to = given.begin();
  for (const Tensor* map : maps) {
    if (map->data == nullptr && map->numel() != 0) map = &x;
    check_alike("batch_norm", x, *map);
    *to++ = map;
  }
  return channels_last("batch_norm", {given[0], given[1], given[2], given[3], &x});
}

// A mask, where there has to be one, holds the rows that this layout has.
void check_mask(const Tensor& x, const Tensor& mask, bool last, bool needed) {
  const int64_t plane = x.size[2] * x.size[3] * x.size[4];
  const int64_t rows = last ? plane : x.size[1], row = last ? x.size[1] : plane;
  check(mask.data != nullptr || !needed, "batch_norm needs the mask of its activation");
  check(mask.data == nullptr ||
            (mask.dtype == DType::uint8 && mask.size[0] == x.size[0] && mask.size[1] == rows &&
             mask.size[4] == (row + 7) / 8 && dense(mask, {4, 3, 2, 1, 0})),
        "batch_norm needs a contiguous mask of ", x.size[0], " x ", rows, " x ", (row + 7) / 8,
        " bytes");
}

}  // namespace

void batch_norm_stats(const BatchNormStats& args, int64_t threads) {
  check_channels(args.x, {&args.mean, &args.var});
  const bool last = batch_norm_layout(args.x, {});
  kernels().batch_norm_stats(args, last, threads);
}

void batch_norm_forward(const BatchNormForward& args, int64_t threads) {
  check_channels(args.x, {&args.mean, &args.var, &args.weight, &args.bias});
  const bool last = batch_norm_layout(args.x, {&args.y, &args.residual});
  if (args.x.numel() == 0) return;
  check_mask(args.x, args.mask, last, false);
  kernels().batch_norm_forward(args, last, threads);
}

void batch_norm_grad_sums(const BatchNormGradSums& args, int64_t threads) {
  check_channels(args.x, {&args.mean, &args.var, &args.sum_g, &args.sum_gx});
  const bool last = batch_norm_layout(args.x, {&args.grad_y});
  if (args.x.numel() > 0)
    check_mask(args.x, args.mask, last, args.epilogue.activation != Activation::none);
  kernels().batch_norm_grad_sums(args, last, threads);
}

void batch_norm_grad_input(const BatchNormGradInput& args, int64_t threads) {
  check_channels(args.x, {&args.mean, &args.var, &args.weight, &args.sum_g, &args.sum_gx});
  const bool last = batch_norm_layout(args.x, {&args.grad_y, &args.grad_x, &args.grad_residual});
  check((args.sum_g.data == nullptr) == (args.sum_gx.data == nullptr) &&
            (!args.training || args.sum_g.data != nullptr || args.x.numel() == 0),
        "batch_norm needs both sums or neither");
  if (args.x.numel() == 0) return;
  check_mask(args.x, args.mask, last, args.epilogue.activation != Activation::none);
  kernels().batch_norm_grad_input(args, last, threads);
}

void batch_norm_move(const BatchNormMove& args) {
  const int64_t channels = args.mean.numel();
  for (const Tensor* vector : {&args.running_mean, &args.running_var, &args.mean, &args.var})
    check(vector->data != nullptr && vector->numel() == channels && dense(*vector, {1}),
          "batch_norm needs running statistics of ", channels, " values");
  const bool wide = args.mean.dtype == DType::float64;
  check(args.running_var.dtype == args.running_mean.dtype && args.var.dtype == args.mean.dtype &&
            (wide || args.mean.dtype == DType::float32),
        "batch_norm needs a mean and a variance of one dtype, float32 or float64");
  dispatch_floating(args.running_mean.dtype, "batch_norm", [&]<class T>(T) {
    const auto move = [&]<class A>(const Tensor& running, const Tensor& batch, A factor) {
      const A weight = static_cast<A>(args.momentum);
      for (int64_t c = 0; c < channels; ++c) {
        T& kept = static_cast<T*>(running.data)[c];
        const A from = static_cast<A>(kept), to = static_cast<const A*>(batch.data)[c] * factor;
        // As PyTorch's lerp, exact at both ends.
        kept = static_cast<T>(weight < A(0.5) ? from + weight * (to - from)
                                              : to - (to - from) * (A(1) - weight));
      }
    };
    const double unbiased = args.count / (args.count - 1);
    if (wide) {
      move(args.running_mean, args.mean, 1.0);
      move(args.running_var, args.var, unbiased);
    } else {
      move(args.running_mean, args.mean, 1.0f);
      move(args.running_var, args.var, static_cast<float>(unbiased));
    }
  });
}

}  // namespace pydl::cpu
