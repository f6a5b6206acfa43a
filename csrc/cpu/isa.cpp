#include "isa.h"

#include <atomic>

#include "../rnn_checks.h"
#include "checks.h"

#define PYDL_ISA baseline
#include "kernels.h"
#undef PYDL_ISA
#if defined(__x86_64__)
#define PYDL_ISA avx2
#include "kernels.h"
#undef PYDL_ISA
#define PYDL_ISA avx512
#include "kernels.h"
#undef PYDL_ISA
#endif

namespace pydl::cpu {
namespace {

struct Kernels {
  const char* name;
  bool (*runs_here)();
  decltype(&baseline::conv_forward) conv_forward;
  decltype(&baseline::conv_grad_input) conv_grad_input;
  decltype(&baseline::conv_grad_weight) conv_grad_weight;
  decltype(&baseline::conv_grad_bias) conv_grad_bias;
  decltype(&baseline::bias_act_forward) bias_act_forward;
  decltype(&baseline::bias_act_backward) bias_act_backward;
  decltype(&baseline::batch_norm_stats) batch_norm_stats;
  decltype(&baseline::batch_norm_forward) batch_norm_forward;
  decltype(&baseline::batch_norm_grad_sums) batch_norm_grad_sums;
  decltype(&baseline::batch_norm_grad_input) batch_norm_grad_input;
  decltype(&baseline::local_forward) local_forward;
  decltype(&baseline::local_grad_input) local_grad_input;
  decltype(&baseline::local_grad_weight) local_grad_weight;
  decltype(&baseline::lrn_forward) lrn_forward;
  decltype(&baseline::lrn_backward) lrn_backward;
  decltype(&baseline::spatial_norm_forward) spatial_norm_forward;
  decltype(&baseline::spatial_norm_backward) spatial_norm_backward;
  decltype(&baseline::max_pool_forward) max_pool_forward;
  decltype(&baseline::max_pool_backward) max_pool_backward;
  decltype(&baseline::avg_pool_forward) avg_pool_forward;
  decltype(&baseline::avg_pool_backward) avg_pool_backward;
  decltype(&baseline::softmax_forward) softmax_forward;
  decltype(&baseline::softmax_backward) softmax_backward;
  decltype(&baseline::cross_entropy_forward) cross_entropy_forward;
  decltype(&baseline::cross_entropy_backward) cross_entropy_backward;
  decltype(&baseline::dropout) dropout;
  decltype(&baseline::rnn_forward) rnn_forward;
  decltype(&baseline::rnn_backward) rnn_backward;
  decltype(&baseline::rnn_cell_forward) rnn_cell_forward;
  decltype(&baseline::rnn_cell_backward) rnn_cell_backward;
  decltype(&baseline::adaptive_pool_forward) adaptive_pool_forward;
  decltype(&baseline::adaptive_pool_backward) adaptive_pool_backward;
  decltype(&baseline::lp_pool_forward) lp_pool_forward;
  decltype(&baseline::lp_pool_backward) lp_pool_backward;
  decltype(&baseline::max_unpool_forward) max_unpool_forward;
  decltype(&baseline::max_unpool_backward) max_unpool_backward;
  decltype(&baseline::roi_align_forward) roi_align_forward;
  decltype(&baseline::roi_align_backward) roi_align_backward;
  decltype(&baseline::roi_pool_forward) roi_pool_forward;
  decltype(&baseline::roi_pool_backward) roi_pool_backward;
  decltype(&baseline::nms) nms;
};

#define PYDL_KERNELS(name, runs_here) \
  {#name,                             \
   runs_here,                         \
   name::conv_forward,                \
   name::conv_grad_input,             \
   name::conv_grad_weight,            \
   name::conv_grad_bias,              \
   name::bias_act_forward,            \
   name::bias_act_backward,           \
   name::batch_norm_stats,            \
   name::batch_norm_forward,          \
   name::batch_norm_grad_sums,        \
   name::batch_norm_grad_input,       \
   name::local_forward,               \
   name::local_grad_input,            \
   name::local_grad_weight,           \
   name::lrn_forward,                 \
   name::lrn_backward,                \
   name::spatial_norm_forward,        \
   name::spatial_norm_backward,       \
   name::max_pool_forward,            \
   name::max_pool_backward,           \
   name::avg_pool_forward,            \
   name::avg_pool_backward,           \
   name::softmax_forward,             \
   name::softmax_backward,            \
   name::cross_entropy_forward,       \
   name::cross_entropy_backward,      \
   name::dropout,                     \
   name::rnn_forward,                 \
   name::rnn_backward,                \
   name::rnn_cell_forward,            \
   name::rnn_cell_backward,           \
   name::adaptive_pool_forward,       \
   name::adaptive_pool_backward,      \
   name::lp_pool_forward,             \
   name::lp_pool_backward,            \
   name::max_unpool_forward,          \
   name::max_unpool_backward,         \
   name::roi_align_forward,           \
   name::roi_align_backward,          \
   name::roi_pool_forward,            \
   name::roi_pool_backward,           \
   name::nms}

// The best first. The processor must have what -march=x86-64-v3 and -v4 let the compiler use.
const Kernels all_kernels[] = {
#if defined(__x86_64__)
    PYDL_KERNELS(avx512, [] { return __builtin_cpu_supports("x86-64-v4") != 0; }),
    PYDL_KERNELS(avx2, [] { return __builtin_cpu_supports("x86-64-v3") != 0; }),
#endif
    PYDL_KERNELS(baseline, [] { return true; }),
};

#undef PYDL_KERNELS

const Kernels* best() {
  for (const Kernels& kernels : all_kernels) {
    if (kernels.runs_here()) return &kernels;
  }
  return nullptr;
}

std::atomic<const Kernels*> in_use = best();

const Kernels& kernels() { return *in_use.load(std::memory_order_relaxed); }

}  // namespace

std::string isa() { return kernels().name; }

void use_isa(const std::string& name) {
  for (const Kernels& candidate : all_kernels) {
    if (candidate.name != name) continue;
    check(candidate.runs_here(), "this processor does not have ", name);
    in_use = &candidate;
    return;
  }
  check(false, "expected one of baseline, avx2 and avx512 that this build has, got ", name);
}

void conv_forward(const ConvForward& args, int64_t threads) {
  check_depthwise(args.x, args.weight, args.y, args.window, /*all_outputs=*/true);
  check_epilogue("convolution", args.y, args.bias, args.residual);
  const Tensor& residual = args.residual.data == nullptr ? args.y : args.residual;
  const bool last = channels_last("convolution", {&args.x, &args.y, &residual});
  if (args.y.numel() > 0) kernels().conv_forward(args, last, threads);
}

void conv_grad_input(const ConvGradInput& args, int64_t threads) {
  check_depthwise(args.grad_x, args.weight, args.grad_y, args.window);
  const bool last = channels_last("convolution", {&args.grad_x, &args.grad_y});
  if (args.grad_x.numel() > 0) kernels().conv_grad_input(args, last, threads);
}

void conv_grad_weight(const ConvGradWeight& args, int64_t threads) {
  check_depthwise(args.x, args.grad_weight, args.grad_y, args.window);
  const bool last = channels_last("convolution", {&args.x, &args.grad_y});
  kernels().conv_grad_weight(args, last, threads);
}

void conv_grad_bias(const ConvGradBias& args, int64_t threads) {
  check_epilogue("convolution", args.grad_y, args.grad_bias, Tensor{});
  const bool last = channels_last("convolution", {&args.grad_y});
  if (args.grad_bias.numel() > 0) kernels().conv_grad_bias(args, last, threads);
}

void bias_act_forward(const BiasActForward& args, int64_t threads) {
  const bool last = bias_act_layout(args);
  if (args.x.numel() > 0) kernels().bias_act_forward(args, last, threads);
}

void bias_act_backward(const BiasActBackward& args, int64_t threads) {
  check_alike("bias_act", args.grad_y, args.saved);
  check_alike("bias_act", args.grad_y, args.grad_x);
  channels_last("bias_act", {&args.grad_y, &args.saved, &args.grad_x});
  if (args.grad_y.numel() > 0) kernels().bias_act_backward(args, threads);
}

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

void local_forward(const LocalForward& args, int64_t threads) {
  check_local(args.x, args.weight, args.y, args.window);
  check(args.bias.data == nullptr ||
            (args.bias.dtype == args.y.dtype &&
             std::equal(args.y.size + 1, args.y.size + 5, args.bias.size + 1) &&
             args.bias.size[0] == 1 && dense(args.bias, {4, 3, 2, 1})),
        "local needs a contiguous bias of the output's dtype, a number a filter and position");
  if (args.y.numel() > 0) kernels().local_forward(args, threads);
}

void local_grad_input(const LocalGradInput& args, int64_t threads) {
  check_local(args.grad_x, args.weight, args.grad_y, args.window);
  if (args.grad_x.numel() > 0) kernels().local_grad_input(args, threads);
}

void local_grad_weight(const LocalGradWeight& args, int64_t threads) {
  check_local(args.x, args.grad_weight, args.grad_y, args.window);
  if (args.grad_weight.numel() > 0) kernels().local_grad_weight(args, threads);
}

void lrn_forward(const LrnForward& args, int64_t threads) {
  const bool last = norm_layout("lrn", {&args.x, &args.y}, args.size);
  if (args.x.numel() > 0) kernels().lrn_forward(args, last, threads);
}

void lrn_backward(const LrnBackward& args, int64_t threads) {
  const bool last = norm_layout("lrn", {&args.grad_y, &args.x, &args.grad_x}, args.size);
  if (args.x.numel() > 0) kernels().lrn_backward(args, last, threads);
}

void spatial_norm_forward(const SpatialNormForward& args, int64_t threads) {
  const bool last = norm_layout("spatial norm", {&args.x, &args.y}, args.size);
  if (args.x.numel() > 0) kernels().spatial_norm_forward(args, last, threads);
}

void spatial_norm_backward(const SpatialNormBackward& args, int64_t threads) {
  const bool last = norm_layout("spatial norm", {&args.grad_y, &args.x, &args.grad_x}, args.size);
  if (args.x.numel() > 0) kernels().spatial_norm_backward(args, last, threads);
}

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

void softmax_forward(const SoftmaxForward& args, int64_t threads) {
  check_softmax({&args.x, &args.y});
  if (args.x.numel() > 0) kernels().softmax_forward(args, threads);
}

void softmax_backward(const SoftmaxBackward& args, int64_t threads) {
  check_softmax({&args.grad_y, &args.y, &args.grad_x});
  if (args.y.numel() > 0) kernels().softmax_backward(args, threads);
}

void cross_entropy_forward(const CrossEntropyForward& args, int64_t threads) {
  check_cross_entropy(args, args.loss);
  kernels().cross_entropy_forward(args, threads);
}

void cross_entropy_backward(const CrossEntropyBackward& args, int64_t threads) {
  check_cross_entropy(args, args.grad_loss);
  check_softmax({&args.x, &args.grad_x});
  if (args.x.numel() > 0) kernels().cross_entropy_backward(args, threads);
}

void dropout(const Dropout& args, int64_t threads) {
  check_alike("dropout", args.x, args.y);
  const int64_t size = args.x.numel();
  check(args.x.size[1] == size && (size <= 1 || (args.x.stride[1] == 1 && args.y.stride[1] == 1)),
        "dropout on a CPU needs elements in one line");
  check(args.p >= 0 && args.p <= 1, "dropout needs a probability, got ", args.p);
  if (size > 0) kernels().dropout(args, threads);
}

void rnn_forward(const RnnForward& args, int64_t threads) {
  check_rnn(args);
  kernels().rnn_forward(args, threads);
}

void rnn_backward(const RnnBackward& args, int64_t threads) {
  check_rnn(args);
  kernels().rnn_backward(args, threads);
}

void rnn_cell_forward(const RnnCellForward& args, int64_t threads) {
  check_rnn_cell(args);
  kernels().rnn_cell_forward(args, threads);
}

void rnn_cell_backward(const RnnCellBackward& args, int64_t threads) {
  check_rnn_cell(args);
  kernels().rnn_cell_backward(args, threads);
}

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

void nms(const Nms& args, int64_t threads) {
  check_nms(args);
  if (args.keep.numel() > 0) kernels().nms(args, threads);
}

}  // namespace pydl::cpu
