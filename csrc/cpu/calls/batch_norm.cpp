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

// running = (1 - momentum) running + momentum batch: as PyTorch's lerp, exact at both ends.
template <class A>
void move(const Tensor& running, const Tensor& batch, A momentum, A factor) {
  dispatch_floating(running.dtype, "batch_norm", [&]<class T>(T) {
    for (int64_t c = 0; c < running.numel(); ++c) {
      T& kept = static_cast<T*>(running.data)[c];
      const A from = static_cast<A>(kept), to = static_cast<const A*>(batch.data)[c] * factor;
      kept = static_cast<T>(momentum < A(0.5) ? from + momentum * (to - from)
                                              : to - (to - from) * (A(1) - momentum));
    }
  });
}

// A vector is short: one thread.
template <class A>
void move_both(const BatchNormTrain& args, double momentum, double unbiased) {
  const A by = static_cast<A>(momentum);
  move<A>(args.running_mean, args.forward.mean, by, A(1));
  move<A>(args.running_var, args.forward.var, by, static_cast<A>(unbiased));
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

void batch_norm_train(const BatchNormTrain& args, int64_t threads) {
  const auto& [forward, running_mean, running_var, batches, momentum, parts] = args;
  check(forward.training, "batch_norm_train makes the statistics");
  check_running(args);
  batch_norm_forward(forward, threads);
  if (forward.x.numel() == 0) return;
  int64_t* const counted = static_cast<int64_t*>(batches.data);
  if (counted != nullptr && momentum) ++*counted;
  if (running_mean.data == nullptr) return;
  const double m = momentum ? *momentum : 1.0 / static_cast<double>(*counted);
  const double channels = static_cast<double>(forward.x.size[1]);
  const double count = static_cast<double>(forward.x.numel()) / channels;
  if (forward.x.dtype == DType::float64)
    move_both<double>(args, m, count / (count - 1));
  else
    move_both<float>(args, m, count / (count - 1));
}

}  // namespace pydl::cpu
