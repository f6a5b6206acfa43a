// Adaptive pooling over D, H, W: windows, here called bins, whose number is given and whose place
// follows from it. Of `bins` along an axis of `size` elements, bin o is
//
//   [floor(o * size / bins), ceil((o + 1) * size / bins))
//
// so bins are unequal and overlap where size is not a multiple of bins, and there may be more of
// them than elements. An average is divided by the elements of its bin; a maximum is found as in
// pool.h: NaN wins, the first on ties, the last NaN if there is one.
//
// A pyramid (He et al. 2014) pools the same map at several levels, each with bins of its own, and
// lays the results one after another. With M_l = OD_l * OH_l * OW_l bins at level l,
//
//   y[n, C * (M_0 + ... + M_(l-1)) + c * M_l + (od * OH_l + oh) * OW_l + ow]
//
// The index of a maximum is kept as
//
//   uint8   its place inside the bin, (td * KH + th) * KW + tw, where K is the longest bin of each
//           axis (levels whose longest bins have at most 256 elements)
//   int64   the flat position in the input's D * H * W plane
#pragma once

#include <array>
#include <vector>

#include "tensor.h"

namespace pydl {

using Bins = std::array<int64_t, 3>;  // along D, H, W

constexpr int kMostLevels = 16;

struct AdaptivePoolForward {
  Tensor x;      // (N, C, D, H, W)
  Tensor y;      // (N, C, OD, OH, OW), or of a pyramid (N, C * (M_0 + ...), 1, 1, 1), written
  Tensor index;  // maxima: like y, uint8 or int64, written; data == nullptr where nobody asked
  std::vector<Bins> levels;  // one, or of a pyramid at most kMostLevels
  bool pyramid, maximum;
};

struct AdaptivePoolBackward {
  Tensor grad_y;  // like y
  Tensor index;   // maxima: as AdaptivePoolForward wrote it; averages: data == nullptr
  Tensor grad_x;  // (N, C, D, H, W), every element written
  std::vector<Bins> levels;
  bool pyramid, maximum;
};

// The longest bin along an axis: size / bins where that is whole, one element more where the
// remainder divides bins, else two.
constexpr int64_t longest_bin(int64_t size, int64_t bins) {
  const int64_t rest = size % bins;
  return size / bins + (rest == 0 ? 0 : bins % rest == 0 ? 1 : 2);
}

// Where a level lies in the pooled tensor: (n, c, od, oh, ow) at offset + the sum of the products
// with stride.
struct LevelPlace {
  int64_t bins[3], offset, stride[5];

  int64_t count() const { return bins[0] * bins[1] * bins[2]; }
};

inline std::vector<LevelPlace> places_of(const std::vector<Bins>& levels, bool pyramid,
                                         const Tensor& pooled, int64_t channels) {
  std::vector<LevelPlace> places;
  int64_t first = 0;
  for (const Bins& bins : levels) {
    LevelPlace place{{bins[0], bins[1], bins[2]}, 0, {}};
    if (pyramid) {
      const int64_t step = pooled.stride[1];
      const int64_t strides[] = {pooled.stride[0], step * place.count(), step * bins[1] * bins[2],
                                 step * bins[2], step};
      place.offset = step * channels * first;
      for (int axis = 0; axis < 5; ++axis) place.stride[axis] = strides[axis];
    } else {
      for (int axis = 0; axis < 5; ++axis) place.stride[axis] = pooled.stride[axis];
    }
    first += place.count();
    places.push_back(place);
  }
  return places;
}

// What both libraries check: `map` is what is pooled (x or its gradient), `pooled` the result.
inline void check_adaptive(const Tensor& map, const Tensor& pooled, const Tensor& index,
                           const std::vector<Bins>& levels, bool pyramid, bool maximum,
                           bool needs_index) {
  check(map.dtype == pooled.dtype, "adaptive pooling expects tensors of one dtype");
  check(!levels.empty() && levels.size() <= kMostLevels && (pyramid || levels.size() == 1),
        "adaptive pooling expects one level, a pyramid at most ", kMostLevels, ", got ",
        levels.size());
  int64_t bins = 0, longest = 0;
  for (const Bins& level : levels) {
    int64_t of_level = 1, taps = 1;
    for (int axis = 0; axis < 3; ++axis) {
      check(level[axis] >= 1 && map.size[2 + axis] >= 1,
            "adaptive pooling expects bins and elements along each axis, got ", level[axis], " of ",
            map.size[2 + axis]);
      check(pyramid || pooled.size[2 + axis] == level[axis], "adaptive pooling expects ",
            level[axis], " results along an axis, got ", pooled.size[2 + axis]);
      of_level *= level[axis];
      taps *= longest_bin(map.size[2 + axis], level[axis]);
    }
    bins += of_level;
    longest = taps > longest ? taps : longest;
  }
  const int64_t channels = map.size[1] * (pyramid ? bins : 1);
  check(pooled.size[0] == map.size[0] && pooled.size[1] == channels, "adaptive pooling expects ",
        map.size[0], " x ", channels, " results, got ", pooled.size[0], " x ", pooled.size[1]);
  check(map.size[2] * map.size[3] * map.size[4] <= INT32_MAX,
        "adaptive pooling serves planes of less than 2^31 elements");
  if (!maximum || index.data == nullptr) {
    check(!needs_index || !maximum || pooled.numel() == 0,
          "adaptive max pooling backward needs indices");
    return;
  }
  bool same = true;
  for (int axis = 0; axis < 5; ++axis) same = same && index.size[axis] == pooled.size[axis];
  check(same, "adaptive max pooling expects an index for each result");
  check(index.dtype == DType::int64 || (index.dtype == DType::uint8 && longest <= 256),
        "adaptive max pooling expects an index of int64, or of uint8 for bins of at most 256 "
        "elements, got bins of ",
        longest);
}

// CPU: every map dense, x and y in one layout (N, C, ... or channels last); a pyramid's y and index
// dense. It runs on at most `threads` threads.
namespace cpu {
void adaptive_pool_forward(const AdaptivePoolForward& args, int64_t threads);
void adaptive_pool_backward(const AdaptivePoolBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides. `stream` is a cudaStream_t; pointers belong to the current device.
namespace cuda {
void adaptive_pool_forward(const AdaptivePoolForward& args, int64_t stream);
void adaptive_pool_backward(const AdaptivePoolBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
