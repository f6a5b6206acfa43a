// Pooling of regions of interest: K boxes (image, x1, y1, x2, y2), each of one of the N maps of x,
// become PH x PW bins. Coordinates are those of the image; `scale` takes them to the map. All
// arithmetic on coordinates is in the type sums are taken in, each step rounded.
//
// RoIAlign (He et al. 2017). Along an axis,
//
//   start        = from * scale - offset         offset = 1/2 if aligned, else 0
//   end          = to * scale - offset
//   size         = end - start                   without `aligned` at least 1
//   bin          = size / bins
//   sample(o, k) = start + o bin + (k + 1/2) bin / samples
//
// A bin has `samples` samples along an axis, or ceil(bin) where samples <= 0; sample(o, k) is
// number k of bin o. One below -1 or above the size of the map, or NaN, is worth 0; others are
// clamped to the map and interpolated between the two pixels next to them, bilinearly in both axes,
// and a pixel that weighs 0 is not read. y is the mean over the samples of a bin, 0 if it has none.
// A box that is not within +-2^22 pixels of the map's origin, or is NaN, has no samples.
//
// Bilinear weights are products of one weight per axis, and the samples of a bin are a grid. So
//
//   y      = R x S^T
//   grad_x = sum over the boxes of R^T grad_y S
//
// with a matrix R (PH, H) of the rows' weights and one S (PW, W) of the columns', each divided by
// its number of samples.
//
// RoI pooling (Girshick 2015). Along an axis,
//
//   start  = round(from * scale)                 halves away from zero
//   end    = round(to * scale)
//   size   = max(end - start + 1, 1)             pixels
//   bin    = size / bins
//   pixels = [start + floor(o bin), start + ceil((o + 1) bin))
//
// of bin o, as far as they are on the map. y is the largest of them, the first in scan order of
// equals; a NaN beats all before it. A bin without pixels is 0, and so is all of a box that is not
// finite.
#pragma once

#include <cmath>

#include "rounding.h"
#include "tensor.h"

namespace pydl {

struct Align {
  double scale;
  int64_t samples;  // of a bin along an axis; 0 or less: as many as a bin has pixels
  bool aligned;
};

struct RoiAlignForward {
  Tensor x;      // (N, C, 1, H, W)
  Tensor boxes;  // (K * 5,) contiguous, like x: image, x1, y1, x2, y2 of each box
  Tensor y;      // (K, C, 1, PH, PW), every element written
  Align align;
};

struct RoiAlignBackward {
  Tensor grad_y;  // (K, C, 1, PH, PW)
  Tensor boxes;   // (K * 5,)
  Tensor grad_x;  // (N, C, 1, H, W), every element written
  Align align;
};

struct RoiPoolForward {
  Tensor x;      // (N, C, 1, H, W)
  Tensor boxes;  // (K * 5,) contiguous, like x
  Tensor y;      // (K, C, 1, PH, PW), every element written
  Tensor index;  // like y, int64: the maximum's position h * W + w, -1 in an empty bin; or no data
  double scale;
};

struct RoiPoolBackward {
  Tensor grad_y;  // (K, C, 1, PH, PW)
  Tensor index;   // like grad_y, int64; what is no position of the map is passed over
  Tensor boxes;   // (K * 5,)
  Tensor grad_x;  // (N, C, 1, H, W), every element written
  double scale;
};

inline void check_roi(const Tensor& map, const Tensor& boxes, const Tensor& pooled) {
  check(map.dtype == pooled.dtype && map.dtype == boxes.dtype && map.size[1] == pooled.size[1] &&
            map.size[2] == 1 && pooled.size[2] == 1,
        "roi pooling expects maps of two axes, of one dtype and number of channels");
  check(boxes.size[1] == 5 * pooled.size[0] && boxes.numel() == boxes.size[1] &&
            (boxes.size[1] <= 1 || boxes.stride[1] == 1),
        "roi pooling expects five contiguous numbers per box");
  check(map.size[3] >= 1 && map.size[4] >= 1 && map.size[3] * map.size[4] <= INT32_MAX,
        "roi pooling serves maps of 1 to 2^31 - 1 pixels");
}

inline void check_roi_index(const Tensor& pooled, const Tensor& index) {
  bool same = index.dtype == DType::int64;
  for (int axis = 0; axis < 5; ++axis) same = same && index.size[axis] == pooled.size[axis];
  check(same, "roi pooling expects an int64 index for each bin");
}

// The map that a box is of, or -1 where there is none of this number.
template <class A>
PYDL_HOST_DEVICE int64_t image_of(A number, int64_t images) {
  return number > A(-1) && number < A(images) ? static_cast<int64_t>(number) : -1;
}

// The two pixels next to a sample and what they weigh.
template <class A>
struct Between {
  int64_t low, high;
  A low_weight, high_weight;
};

// False where the sample is off the map.
template <class A>
PYDL_HOST_DEVICE bool interpolate(A at, int64_t size, Between<A>& between) {
  if (!(at >= A(-1) && at <= A(size))) return false;
  at = at > 0 ? at : A(0);
  const int64_t low = static_cast<int64_t>(at);
  if (low >= size - 1) {
    between = {size - 1, size - 1, A(1), A(0)};
  } else {
    const A above = at - static_cast<A>(low);
    between = {low, low + 1, A(1) - above, above};
  }
  return true;
}

// The samples of a box along one axis.
template <class A>
struct Samples {
  A start, bin;
  int64_t count;  // of each bin

  PYDL_HOST_DEVICE A at(int64_t o, int64_t k) const {
    const A into = rounded_product(static_cast<A>(k) + A(0.5), bin) / static_cast<A>(count);
    return start + rounded_product(static_cast<A>(o), bin) + into;
  }

  // The first sample of bin o that is not below `least`; they ascend, except in a box that ends
  // before it starts, where it is the very first. So a box much larger than the map costs no more
  // than the samples that are on it.
  PYDL_HOST_DEVICE int64_t first(int64_t o, A least) const {
    int64_t below = 0, beyond = count;
    if (!(bin > 0) || count == 0 || at(o, 0) >= least) return 0;
    while (beyond - below > 1) {
      const int64_t middle = below + (beyond - below) / 2;
      (at(o, middle) < least ? below : beyond) = middle;
    }
    return beyond;
  }
};

template <class A>
PYDL_HOST_DEVICE Samples<A> samples_of(A from, A to, const Align& align, int64_t bins) {
  // Beyond, a float could not tell neighbouring samples apart.
  constexpr A farthest = 1 << 22;
  const A scale = static_cast<A>(align.scale), offset = align.aligned ? A(0.5) : A(0);
  const A start = rounded_product(from, scale) - offset, end = rounded_product(to, scale) - offset;
  if (!(start > -farthest && start < farthest && end > -farthest && end < farthest))
    return {A(0), A(0), 0};
  A size = end - start;
  if (!align.aligned && size < A(1)) size = A(1);
  const A bin = size / static_cast<A>(bins);
  int64_t count = align.samples;
  if (count <= 0) count = bin > 0 ? static_cast<int64_t>(std::ceil(bin)) : 0;
  return {start, bin, count};
}

struct PixelRun {
  int64_t first, last;  // without the last

  PYDL_HOST_DEVICE int64_t size() const { return last - first; }
};

template <class A>
PYDL_HOST_DEVICE int64_t clamped(A at, int64_t size) {
  return at > 0 ? (at < static_cast<A>(size) ? static_cast<int64_t>(at) : size) : 0;
}

// The bins of a box along one axis.
template <class A>
struct Pooled {
  A start, bin;  // bin: 0 for a box that is not finite

  // The pixels of bin o on an axis of `size`; first >= last where there are none.
  PYDL_HOST_DEVICE PixelRun run(int64_t o, int64_t size) const {
    if (bin == 0) return {0, 0};
    const A first = std::floor(rounded_product(static_cast<A>(o), bin)) + start;
    const A last = std::ceil(rounded_product(static_cast<A>(o + 1), bin)) + start;
    return {clamped(first, size), clamped(last, size)};
  }
};

template <class A>
PYDL_HOST_DEVICE Pooled<A> pooled_of(A from, A to, double scale, int64_t bins) {
  const A start = std::round(rounded_product(from, static_cast<A>(scale)));
  const A extent = std::round(rounded_product(to, static_cast<A>(scale))) - start + A(1);
  if (!(extent - extent == A(0))) return {A(0), A(0)};
  return {start, (extent > A(1) ? extent : A(1)) / static_cast<A>(bins)};
}

// CPU: every map dense, all in one layout (N, C, ... or channels last); std::runtime_error where a
// box is of no image. It runs on at most `threads` threads.
namespace cpu {
void roi_align_forward(const RoiAlignForward& args, int64_t threads);
void roi_align_backward(const RoiAlignBackward& args, int64_t threads);
void roi_pool_forward(const RoiPoolForward& args, int64_t threads);
void roi_pool_backward(const RoiPoolBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides. A box of no image pools nothing: its bins are 0, and empty. `stream` is a
// cudaStream_t; pointers belong to the current device.
namespace cuda {
void roi_align_forward(const RoiAlignForward& args, int64_t stream);
void roi_align_backward(const RoiAlignBackward& args, int64_t stream);
void roi_pool_forward(const RoiPoolForward& args, int64_t stream);
void roi_pool_backward(const RoiPoolBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
