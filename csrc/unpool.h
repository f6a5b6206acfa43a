// Max unpooling over D, H, W: every value of x goes to the place that its index names, a flat
// position in the plane of y; the rest of y is 0. Where two name one place, the last in scan order
// of x (d, h, w) stays. Its gradient gathers: grad_x[i] = grad_y[index[i]], of all that named a
// place. On a CPU an index that is no place is refused; on a GPU, where nobody waits for the answer,
// it makes the first place of its plane NaN, and its own grad_x.
#pragma once

#include "tensor.h"

namespace pydl {

struct MaxUnpoolForward {
  Tensor x;      // (N, C, D, H, W)
  Tensor index;  // like x, int64
  Tensor y;      // (N, C, OD, OH, OW), every element written
  Tensor reach;  // CUDA: room for one int64 for each kUnpoolRun elements of a plane; else no data
};

constexpr int kUnpoolRun = 64;

struct MaxUnpoolBackward {
  Tensor grad_y;  // (N, C, OD, OH, OW)
  Tensor index;   // (N, C, D, H, W), int64
  Tensor grad_x;  // like index, every element written
};

inline void check_unpool(const Tensor& pooled, const Tensor& index, const Tensor& map) {
  check(pooled.dtype == map.dtype && pooled.size[0] == map.size[0] && pooled.size[1] == map.size[1],
        "max unpooling expects tensors of one dtype, batch size and number of channels");
  bool same = index.dtype == DType::int64;
  for (int axis = 0; axis < 5; ++axis) same = same && index.size[axis] == pooled.size[axis];
  check(same, "max unpooling expects an int64 index for each element");
}

// CPU: every tensor dense, all in one layout (N, C, ... or channels last). It runs on at most
// `threads` threads. Raises RuntimeError in Python where a position is outside the plane.
namespace cpu {
void max_unpool_forward(const MaxUnpoolForward& args, int64_t threads);
void max_unpool_backward(const MaxUnpoolBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: every tensor dense, forward all in one layout, and of less than 2^31 places an image;
// positions outside the plane, which the caller looks for, are neither written nor read. `stream` is a
// cudaStream_t; pointers belong to the current device.
namespace cuda {
void max_unpool_forward(const MaxUnpoolForward& args, int64_t stream);
void max_unpool_backward(const MaxUnpoolBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
