// Where the windows of a pooling lie, as a thread sees them.
#pragma once

#include "../pool.h"
#include "element.h"

namespace pydl::cuda {

// One tap of a window along an axis, and how to walk over those inside the input:
//
//   for (Tap t = first_tap(...); t.number < kernel && t.at < size; t.advance(dilation))
struct Tap {
  int64_t number, at;
  __device__ void advance(int64_t dilation) {
    ++number;
    at += dilation;
  }
};

__device__ inline Tap first_tap(const PoolWindow& window, int axis, int64_t output) {
  const int64_t start = output * window.stride[axis] - window.padding[axis];
  const int64_t skipped =
      start < 0 ? quotient(window.dilation[axis] - 1 - start, window.dilation[axis]) : 0;
  return {skipped, start + skipped * window.dilation[axis]};
}

// The windows [first, last] of an axis whose span covers an input coordinate.
struct Windows {
  int64_t first, last;
  int64_t reach;  // from the first tap of window 0 to the coordinate
};

__device__ inline Windows windows_over(const PoolWindow& window, int axis, int64_t at,
                                       int64_t outputs) {
  const int64_t reach = at + window.padding[axis], stride = window.stride[axis];
  const int64_t span = (window.kernel[axis] - 1) * window.dilation[axis];
  const int64_t first = reach > span ? quotient(reach - span + stride - 1, stride) : 0;
  return {first, min(quotient(reach, stride), outputs - 1), reach};
}

// The number of the tap that lies `distance` behind the first; -1 where dilation leaves a hole.
__device__ inline int64_t tap_at(int64_t distance, int64_t dilation) {
  if (dilation == 1) return distance;
  const int64_t number = quotient(distance, dilation);
  return number * dilation == distance ? number : -1;
}

// What an average along one axis counts: the taps inside the input, or inside the input extended by
// the padding.
__device__ inline int64_t counted_taps(const PoolWindow& window, int axis, int64_t output,
                                       int64_t size, bool count_include_pad) {
  const int64_t extension = count_include_pad ? window.padding[axis] : 0;
  const int64_t start = output * window.stride[axis] - window.padding[axis];
  return min(start + window.kernel[axis], size + extension) - max(start, -extension);
}

// `map` is what is pooled (x or its gradient), `pooled` the result.
inline void check_pool(const Tensor& map, const Tensor& pooled, const PoolWindow& window) {
  check(map.dtype == pooled.dtype, "pooling expects tensors of one dtype");
  check(map.size[0] == pooled.size[0] && map.size[1] == pooled.size[1], "pooling of ", map.size[0],
        " x ", map.size[1], " planes gives as many, got ", pooled.size[0], " x ", pooled.size[1]);
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t kernel = window.kernel[axis], stride = window.stride[axis],
                  padding = window.padding[axis];
    check(kernel >= 1 && stride >= 1 && window.dilation[axis] >= 1 && padding >= 0,
          "pooling expects kernel, stride and dilation of at least 1 and no negative padding, got ",
          kernel, ", ", stride, ", ", window.dilation[axis], " and ", padding);
    const int64_t size = map.size[axis + 2], outputs = pooled.size[axis + 2];
    const int64_t span = (kernel - 1) * window.dilation[axis] + 1;
    check(2 * padding <= span, "pooling expects a padding of at most half the window's ", span,
          " elements, got ", padding);
    // Room for the windows after the first: floor mode has those that fit, ceil mode one more that
    // starts inside.
    const int64_t room = size + 2 * padding - span;
    const int64_t last_start = (outputs - 1) * stride;
    check(last_start + stride > room && (last_start <= room || last_start < size + padding) &&
              last_start < room + stride,
          "pooling of ", size, " elements with kernel ", kernel, ", stride ", stride, ", padding ",
          padding, " and dilation ", window.dilation[axis], " does not give ", outputs);
  }
}

// Pools, and says so, where the maps lie alike and the windows are of the usual kind (pool_dense.h).
bool launch_dense_max_forward(const MaxPoolForward& args, int64_t stream);
bool launch_dense_max_backward(const MaxPoolBackward& args, int64_t stream);
bool launch_dense_avg_forward(const AvgPoolForward& args, int64_t stream);
bool launch_dense_avg_backward(const AvgPoolBackward& args, int64_t stream);

}  // namespace pydl::cuda
