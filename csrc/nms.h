// Non-maximum suppression: goes through boxes (x1, y1, x2, y2) in the order given, best first; a
// box is kept unless one kept before it, of its class where there are classes, overlaps it by more
// than `threshold`:
//
//   inter   = max(0, min(x2) - max(x1)) * max(0, min(y2) - max(y1))
//   overlap = inter / (area of the kept + area of the other - inter)
//
// in the type sums are taken in, each step rounded in this order, so that all backends keep the
// same boxes. NaN, as of two boxes without area, is not greater than anything.
#pragma once

#include <cmath>

#include "rounding.h"
#include "tensor.h"

namespace pydl {

struct Nms {
  Tensor boxes;    // (K * 4,) contiguous: x1, y1, x2, y2 of each box
  Tensor classes;  // (K,) contiguous, int64, or no data
  Tensor keep;     // (K,) contiguous, uint8, written: 1 for the kept, 0 for the suppressed
  Tensor words;    // CUDA: (K * ceil(K / 64),) contiguous, int64, for use inside; else no data
  double threshold;
};

inline void check_nms(const Nms& args) {
  const auto is_row = [](const Tensor& tensor, int64_t size) {
    return tensor.size[1] == size && tensor.numel() == size && (size <= 1 || tensor.stride[1] == 1);
  };
  const int64_t count = args.keep.numel();
  check(is_row(args.boxes, 4 * count), "nms expects four contiguous numbers per box");
  check(is_row(args.keep, count) && args.keep.dtype == DType::uint8,
        "nms expects room for one byte per box");
  check(args.classes.data == nullptr ||
            (is_row(args.classes, count) && args.classes.dtype == DType::int64),
        "nms expects one int64 class per box");
}

// The largest A that is not more than the threshold: an overlap of type A exceeds the one exactly
// where it exceeds the other.
template <class A>
A threshold_in(double threshold) {
  const A near = static_cast<A>(threshold);
  return static_cast<double>(near) > threshold ? std::nextafter(near, -A(INFINITY)) : near;
}

// Runs on at most `threads` threads.
namespace cpu {
void nms(const Nms& args, int64_t threads);
}  // namespace cpu

// `stream` is a cudaStream_t; pointers belong to the current device.
namespace cuda {
void nms(const Nms& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
