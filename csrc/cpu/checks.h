// What the CPU kernels may rely on, checked once for all instruction sets: sizes, dtypes, and that
// maps are dense and lie in one layout, which the *_layout functions return.
#pragma once

#include <array>
#include <cmath>
#include <initializer_list>

#include "../batch_norm.h"
#include "../bias_act.h"
#include "../conv.h"
#include "../cross_entropy.h"
#include "../dropout.h"
#include "../local.h"
#include "../lrn.h"
#include "../pool.h"
#include "../pool_adaptive.h"
#include "../pool_lp.h"
#include "../softmax.h"
#include "../spatial_norm.h"
#include "../unpool.h"

namespace pydl::cpu {

// What would otherwise read or write outside a tensor

inline bool dense(const Tensor& tensor, std::initializer_list<int> axes_from_innermost) {
  int64_t expected = 1;
  for (const int axis : axes_from_innermost) {
    if (tensor.size[axis] != 1 && tensor.stride[axis] != expected) return false;
    expected *= tensor.size[axis];
  }
  return true;
}

// Whether these maps are channels last, all of them. With one channel both layouts describe the
// same memory and lines are longer; with one pixel a map says nothing about the others.
inline bool channels_last(const char* what, std::initializer_list<const Tensor*> maps) {
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

inline void check_alike(const char* what, const Tensor& a, const Tensor& b) {
  check(a.dtype == b.dtype && std::equal(a.size, a.size + 5, b.size), what,
        " needs tensors of one dtype and shape");
}

inline bool norm_layout(const char* what, std::initializer_list<const Tensor*> maps, int64_t size) {
  for (const Tensor* map : maps) check_alike(what, **maps.begin(), *map);
  check(size >= 1, what, " needs a size of at least 1, got ", size);
  return channels_last(what, maps);
}

inline void check_window(const char* what, const Tensor& x, const Tensor& y,
                         const PoolWindow& window) {
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

inline bool max_pool_layout(const Tensor& x, const Tensor& y, const Tensor& index,
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

inline bool avg_pool_layout(const Tensor& x, const Tensor& y, const PoolWindow& window) {
  check_window("avg_pool", x, y, window);
  check(window.dilation[0] == 1 && window.dilation[1] == 1 && window.dilation[2] == 1,
        "avg_pool serves a dilation of 1 only");
  return channels_last("avg_pool", {&x, &y});
}

inline bool lp_pool_layout(const Tensor& x, const Tensor& y, const PoolWindow& window, double p,
                           std::initializer_list<const Tensor*> maps) {
  check_window("lp_pool", x, y, window);
  for (int axis = 0; axis < 3; ++axis) {
    check(window.dilation[axis] == 1 && window.padding[axis] == 0,
          "lp_pool serves windows without dilation or padding only");
  }
  check(std::isfinite(p) && p != 0, "lp_pool needs a finite norm_type other than 0, got ", p);
  return channels_last("lp_pool", maps);
}

inline bool adaptive_pool_layout(const Tensor& map, const Tensor& pooled, const Tensor& index,
                                 bool pyramid) {
  const Tensor& kept = index.data == nullptr ? pooled : index;
  if (!pyramid) return channels_last("adaptive_pool", {&map, &pooled, &kept});
  check(pooled.numel() == 0 || (dense(pooled, {1, 0}) && dense(kept, {1, 0})),
        "a pyramid on a CPU needs dense results");
  return channels_last("adaptive_pool", {&map});
}

// A gradient may be taken of fewer outputs than x has room for: a transposed convolution's
// output_padding makes its map that large.
inline void check_depthwise(const Tensor& x, const Tensor& weight, const Tensor& y,
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

inline void check_epilogue(const char* what, const Tensor& y, const Tensor& bias,
                           const Tensor& residual) {
  check(bias.data == nullptr || (bias.dtype == y.dtype && bias.size[1] == y.size[1] &&
                                 bias.numel() == y.size[1] && dense(bias, {1})),
        what, " needs a bias of the output's dtype, a number a channel");
  if (residual.data != nullptr) check_alike(what, y, residual);
}

inline bool bias_act_layout(const BiasActForward& args) {
  check_alike("bias_act", args.x, args.y);
  check_epilogue("bias_act", args.y, args.bias, args.residual);
  const Tensor& residual = args.residual.data == nullptr ? args.x : args.residual;
  return channels_last("bias_act", {&args.x, &residual, &args.y});
}

inline void check_channels(const Tensor& x, std::initializer_list<const Tensor*> vectors) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  for (const Tensor* vector : vectors) {
    check(vector->data == nullptr || (vector->dtype == sums && vector->size[1] == x.size[1] &&
                                      vector->numel() == x.size[1] && dense(*vector, {1})),
          "batch_norm needs statistics, weights and sums of ", x.size[1],
          " values, float32 or, for float64, float64");
  }
}

// Whether the maps are channels last; there may be less than all of them.
inline bool batch_norm_layout(const Tensor& x, std::initializer_list<const Tensor*> maps) {
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
inline void check_mask(const Tensor& x, const Tensor& mask, bool last, bool needed) {
  const int64_t plane = x.size[2] * x.size[3] * x.size[4];
  const int64_t rows = last ? plane : x.size[1], row = last ? x.size[1] : plane;
  check(mask.data != nullptr || !needed, "batch_norm needs the mask of its activation");
  check(mask.data == nullptr ||
            (mask.dtype == DType::uint8 && mask.size[0] == x.size[0] && mask.size[1] == rows &&
             mask.size[4] == (row + 7) / 8 && dense(mask, {4, 3, 2, 1, 0})),
        "batch_norm needs a contiguous mask of ", x.size[0], " x ", rows, " x ", (row + 7) / 8,
        " bytes");
}

inline void check_local(const Tensor& x, const Tensor& weight, const Tensor& y,
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

inline void check_softmax(std::initializer_list<const Tensor*> columns) {
  for (const Tensor* tensor : columns) {
    check_alike("softmax", **columns.begin(), *tensor);
    check(tensor->numel() == 0 ||
              (tensor->size[2] * tensor->size[3] == 1 && dense(*tensor, {4, 3, 2, 1, 0})),
          "softmax on a CPU needs contiguous tensors (outer, C, inner)");
  }
}

template <class Arguments>
inline void check_cross_entropy(const Arguments& args, const Tensor& loss) {
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

}  // namespace pydl::cpu
