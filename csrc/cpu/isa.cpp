#include "isa.h"

#include <array>
#include <atomic>
#include <cmath>
#include <initializer_list>

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
  decltype(&baseline::adaptive_pool_forward) adaptive_pool_forward;
  decltype(&baseline::adaptive_pool_backward) adaptive_pool_backward;
  decltype(&baseline::lp_pool_forward) lp_pool_forward;
  decltype(&baseline::lp_pool_backward) lp_pool_backward;
  decltype(&baseline::max_unpool_forward) max_unpool_forward;
  decltype(&baseline::max_unpool_backward) max_unpool_backward;
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
   name::adaptive_pool_forward,       \
   name::adaptive_pool_backward,      \
   name::lp_pool_forward,             \
   name::lp_pool_backward,            \
   name::max_unpool_forward,          \
   name::max_unpool_backward}

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

// What would otherwise read or write outside a tensor

bool dense(const Tensor& tensor, std::initializer_list<int> axes_from_innermost) {
  int64_t expected = 1;
  for (const int axis : axes_from_innermost) {
    if (tensor.size[axis] != 1 && tensor.stride[axis] != expected) return false;
    expected *= tensor.size[axis];
  }
  return true;
}

// Whether these maps are channels last, all of them. With one channel both layouts describe the
// same memory and lines are longer; with one pixel a map says nothing about the others.
bool channels_last(const char* what, std::initializer_list<const Tensor*> maps) {
  bool first = true, last = true, pixels = true, empty = false;
  for (const Tensor* map : maps) {
    empty |= map->numel() == 0;
    first &= dense(*map, {4, 3, 2, 1, 0});
    last &= dense(*map, {1, 4, 3, 2, 0});
    pixels &= map->size[2] * map->size[3] * map->size[4] == 1;
  }
  check(first || last || empty, what,
        " on a CPU needs dense tensors of one layout, contiguous or channels last");
  return !first || pixels;
}

void check_alike(const char* what, const Tensor& a, const Tensor& b) {
  check(a.dtype == b.dtype && std::equal(a.size, a.size + 5, b.size), what,
        " needs tensors of one dtype and shape");
}

bool norm_layout(const char* what, std::initializer_list<const Tensor*> maps, int64_t size) {
  for (const Tensor* map : maps) check_alike(what, **maps.begin(), *map);
  check(size >= 1, what, " needs a size of at least 1, got ", size);
  return channels_last(what, maps);
}

void check_window(const char* what, const Tensor& x, const Tensor& y, const PoolWindow& window) {
  check(x.dtype == y.dtype && x.size[0] == y.size[0] && x.size[1] == y.size[1], what,
        " needs tensors of one dtype, batch size and number of channels");
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t inputs = x.size[2 + axis], outputs = y.size[2 + axis];
    const int64_t kernel = window.kernel[axis], stride = window.stride[axis],
                  padding = window.padding[axis];
    check(kernel >= 1 && stride >= 1 && padding >= 0 && window.dilation[axis] >= 1, what,
          " needs a kernel, a stride and a dilation of at least 1 and no negative padding");
    check(padding <= (kernel - 1) * window.dilation[axis], what,
          " needs windows that reach beyond the padding, got kernel ", kernel, " and padding ",
          padding);
    check(inputs >= 1 && outputs >= 1 && (outputs - 1) * stride < inputs + padding, what,
          " does not make ", outputs, " windows of ", inputs, " inputs with stride ", stride,
          " and padding ", padding);
  }
}

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

bool adaptive_pool_layout(const Tensor& map, const Tensor& pooled, const Tensor& index,
                          bool pyramid) {
  const Tensor& kept = index.data == nullptr ? pooled : index;
  if (!pyramid) return channels_last("adaptive_pool", {&map, &pooled, &kept});
  check(pooled.numel() == 0 || (dense(pooled, {1, 0}) && dense(kept, {1, 0})),
        "a pyramid on a CPU needs dense results");
  return channels_last("adaptive_pool", {&map});
}

// A gradient may be taken of fewer outputs than x has room for: a transposed convolution's
// output_padding makes its map that large.
void check_depthwise(const Tensor& x, const Tensor& weight, const Tensor& y,
                     const ConvWindow& window, bool all_outputs = false) {
  const int64_t channels = x.size[1], filters = weight.size[0];
  check(x.dtype == y.dtype && x.dtype == weight.dtype && x.size[0] == y.size[0],
        "convolution needs tensors of one dtype and batch size");
  check(weight.size[1] == 1 && window.groups == channels && channels >= 1 &&
            filters % channels == 0 && filters >= 1 && y.size[1] == filters,
        "convolution on a CPU serves depthwise weights only: as many groups as channels and a "
        "multiple of them filters, got ",
        channels, " channels, ", window.groups, " groups, ", filters, " filters of ",
        weight.size[1], " channels and an output of ", y.size[1]);
  check(dense(weight, {4, 3, 2, 1, 0}), "convolution on a CPU needs a contiguous weight");
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t inputs = x.size[2 + axis], outputs = y.size[2 + axis];
    const int64_t kernel = weight.size[2 + axis], stride = window.stride[axis],
                  padding = window.padding[axis], dilation = window.dilation[axis];
    check(kernel >= 1 && stride >= 1 && padding >= 0 && dilation >= 1,
          "convolution needs a kernel, a stride and a dilation of at least 1 and no negative "
          "padding");
    const int64_t room = inputs + 2 * padding - dilation * (kernel - 1) - 1;
    const int64_t most = room < 0 ? 0 : room / stride + 1;
    check(inputs >= 1 && outputs >= 1 && outputs <= most && (outputs == most || !all_outputs),
          "convolution of ", inputs, " elements with kernel ", kernel, ", stride ", stride,
          ", padding ", padding, " and dilation ", dilation, " does not give ", outputs);
  }
}

void check_epilogue(const char* what, const Tensor& y, const Tensor& bias, const Tensor& residual) {
  check(bias.data == nullptr || (bias.dtype == y.dtype && bias.size[1] == y.size[1] &&
                                 bias.numel() == y.size[1] && dense(bias, {1})),
        what, " needs a bias of the output's dtype, a number a channel");
  if (residual.data != nullptr) check_alike(what, y, residual);
}

bool bias_act_layout(const BiasActForward& args) {
  check_alike("bias_act", args.x, args.y);
  check_epilogue("bias_act", args.y, args.bias, args.residual);
  const Tensor& residual = args.residual.data == nullptr ? args.x : args.residual;
  return channels_last("bias_act", {&args.x, &residual, &args.y});
}

void check_channels(const Tensor& x, std::initializer_list<const Tensor*> vectors) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  for (const Tensor* vector : vectors) {
    check(vector->data == nullptr || (vector->dtype == sums && vector->size[1] == x.size[1] &&
                                      vector->numel() == x.size[1] && dense(*vector, {1})),
          "batch_norm needs statistics, weights and sums of ", x.size[1],
          " values, float32 or, for float64, float64");
  }
}

// Whether the maps are channels last; there may be less than all of them.
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

void check_local(const Tensor& x, const Tensor& weight, const Tensor& y,
                 const LocalWindow& window) {
  const int64_t* kernel = window.kernel;
  check(x.dtype == y.dtype && x.dtype == weight.dtype && x.size[0] == y.size[0],
        "local needs tensors of one dtype and batch size");
  for (const Tensor* tensor : {&x, &weight, &y})
    check(tensor->numel() == 0 || dense(*tensor, {4, 3, 2, 1, 0}),
          "local on a CPU needs contiguous tensors");
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t inputs = x.size[2 + axis], outputs = y.size[2 + axis];
    const int64_t stride = window.stride[axis], padding = window.padding[axis],
                  dilation = window.dilation[axis];
    check(kernel[axis] >= 1 && stride >= 1 && padding >= 0 && dilation >= 1,
          "local needs a kernel, a stride and a dilation of at least 1 and no negative padding");
    const int64_t room = inputs + 2 * padding - dilation * (kernel[axis] - 1) - 1;
    check(inputs >= 1 && room >= 0 && outputs == room / stride + 1, "local of ", inputs,
          " elements with kernel ", kernel[axis], ", stride ", stride, ", padding ", padding,
          " and dilation ", dilation, " does not give ", outputs);
  }
  check(weight.size[0] == y.size[1] &&
            weight.size[1] == x.size[1] * kernel[0] * kernel[1] * kernel[2] &&
            std::equal(y.size + 2, y.size + 5, weight.size + 2),
        "local needs a weight (filters, channels * taps, positions...) that fits its input and "
        "output");
  check(x.size[2] * x.size[3] * x.size[4] <= INT32_MAX,
        "local serves maps of less than 2^31 positions");
}

void check_softmax(std::initializer_list<const Tensor*> columns) {
  for (const Tensor* tensor : columns) {
    check_alike("softmax", **columns.begin(), *tensor);
    check(tensor->numel() == 0 ||
              (tensor->size[2] * tensor->size[3] == 1 && dense(*tensor, {4, 3, 2, 1, 0})),
          "softmax on a CPU needs contiguous tensors (outer, C, inner)");
  }
}

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
        "cross_entropy needs a class index a position, or a probability a class and position");
  check(weight.data == nullptr || is_row(weight, x.dtype, x.size[1]),
        "cross_entropy needs a weight a class");
  const bool each = args.criterion.reduction == Reduction::none;
  check(is_row(loss, x.dtype, each ? positions : 1) && is_row(args.divisor, saved, 1) &&
            is_row(args.peak, saved, positions) && is_row(args.total, saved, positions),
        "cross_entropy needs a loss, a peak and a total for each position and a divisor");
}

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

}  // namespace pydl::cpu
