// What the checks of several families share. Each family's file in this folder checks, once for all
// instruction sets, what its kernels may rely on: sizes, dtypes, and that maps are dense and lie in
// one layout, which the *_layout functions return.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "../../pool.h"
#include "../../tensor.h"

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
// same memory and lines are longer; a map of one pixel says nothing about the layout of the others.
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

inline void check_epilogue(const char* what, const Tensor& y, const Tensor& bias,
                           const Tensor& residual) {
  check(bias.data == nullptr || (bias.dtype == y.dtype && bias.size[1] == y.size[1] &&
                                 bias.numel() == y.size[1] && dense(bias, {1})),
        what, " needs a bias of the output's dtype, one number per channel");
  if (residual.data != nullptr) check_alike(what, y, residual);
}

inline void check_softmax(std::initializer_list<const Tensor*> columns) {
  for (const Tensor* tensor : columns) {
    check_alike("softmax", **columns.begin(), *tensor);
    check(tensor->numel() == 0 ||
              (tensor->size[2] * tensor->size[3] == 1 && dense(*tensor, {4, 3, 2, 1, 0})),
          "softmax on a CPU needs contiguous tensors (outer, C, inner)");
  }
}

}  // namespace pydl::cpu
