// Where the bins of adaptive pooling (../pool_adaptive.h) lie, in tables: a division costs more
// than the few elements of a bin.
#pragma once

#include <algorithm>
#include <vector>

#include "../pool_adaptive.h"
#include "parallel.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

struct Run {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// The bins of one axis and, for each element, the bins that hold it.
struct BinAxis {
  int64_t size, longest;
  std::vector<Run> bins, over;

  BinAxis(int64_t size, int64_t count)
      : size(size),
        longest(longest_bin(size, count)),
        bins(runs(size, count)),
        over(runs(count, size)) {}

 private:
  static std::vector<Run> runs(int64_t size, int64_t count) {
    std::vector<Run> runs(count);
    for (int64_t o = 0; o < count; ++o)
      runs[o] = {o * size / count, ((o + 1) * size + count - 1) / count};
    return runs;
  }
};

// A level of a pyramid, or the only one of an adaptive pooling.
struct BinLevel {
  BinAxis depth, height, width;
  int64_t first;  // bins of the levels before
  // Its bins in the pooled tensor, which is dense: bin number b of (n, c) lies at
  // offset + n * of_image + c * of_channel + b * of_bin.
  int64_t offset, of_image, of_channel, of_bin;

  int64_t count() const {
    return static_cast<int64_t>(depth.bins.size() * height.bins.size() * width.bins.size());
  }
  // Calls visit(number, d, h, w) for the bins in scan order.
  template <class Visit>
  PYDL_INLINE void for_bins(Visit visit) const {
    int64_t number = 0;
    for (const Run& d : depth.bins) {
      for (const Run& h : height.bins) {
        for (const Run& w : width.bins) visit(number++, d, h, w);
      }
    }
  }
};

struct BinLevels {
  std::vector<BinLevel> levels;
  int64_t bins = 0;

  BinLevels(const Tensor& map, const std::vector<Bins>& given, bool pyramid, bool channels_last) {
    const int64_t channels = map.size[1];
    for (const auto& [d, h, w] : given) {
      levels.push_back({BinAxis(map.size[2], d), BinAxis(map.size[3], h), BinAxis(map.size[4], w),
                        bins, 0, 0, 0, 0});
      bins += d * h * w;
    }
    for (BinLevel& level : levels) {
      const bool pixels = channels_last && !pyramid;
      level.offset = channels * level.first;
      level.of_image = channels * bins;
      level.of_channel = pixels ? 1 : level.count();
      level.of_bin = pixels ? channels : 1;
    }
  }
};

// Channels of an image are worked on in blocks, so that a block of its whole map stays in the
// second-level cache while level after level reads it. Whole rows where there is one level.
inline int64_t channel_block(int64_t channels, int64_t pixels, int64_t bytes, bool one_level) {
  constexpr int64_t cache = 256 << 10, step = 64;
  if (one_level) return channels;
  const int64_t fit = cache / (pixels * bytes) / step * step;
  return std::clamp<int64_t>(fit, step, std::max(step, channels));
}

// Planes as plane_tiles.h groups them. The levels of a pyramid lie image by image, so no group has
// planes of two images; with one level plane follows plane, as if all were of one image.
struct PlaneGroups {
  int64_t images, channels, pixels;

  PlaneGroups(const Tensor& map, bool pyramid)
      : images(pyramid ? map.size[0] : 1),
        channels(pyramid ? map.size[1] : map.size[0] * map.size[1]),
        pixels(map.size[2] * map.size[3] * map.size[4]) {}
};

// Whether a tile's elements and bins stay in the second-level cache, and most lanes have a plane.
inline bool tiles_suit(const Tensor& map, const std::vector<Bins>& levels, bool pyramid,
                       int64_t lanes, int64_t bytes) {
  constexpr int64_t cache = 128 << 10;
  const PlaneGroups planes(map, pyramid);
  int64_t bins = 0;
  for (const auto& [d, h, w] : levels) bins += d * h * w;
  return std::max(planes.pixels, bins) * lanes * bytes <= cache && planes.channels >= lanes / 2;
}

// The bins that hold each pixel, of all levels: bins[begin[pixel]] to bins[begin[pixel + 1] - 1].
struct BinsOfPixels {
  std::vector<int64_t> begin{0}, bins;
  int64_t most = 0;

  explicit BinsOfPixels(const BinLevels& pyramid) {
    const BinLevel& any = pyramid.levels.front();
    for (int64_t d = 0; d < any.depth.size; ++d) {
      for (int64_t h = 0; h < any.height.size; ++h) {
        for (int64_t w = 0; w < any.width.size; ++w) {
          for (const BinLevel& level : pyramid.levels) hold(level, d, h, w);
          begin.push_back(static_cast<int64_t>(bins.size()));
          most = std::max(most, begin.back() - begin[begin.size() - 2]);
        }
      }
    }
  }
  int64_t count(int64_t pixel) const { return begin[pixel + 1] - begin[pixel]; }
  const int64_t* of(int64_t pixel) const { return bins.data() + begin[pixel]; }

 private:
  void hold(const BinLevel& level, int64_t d, int64_t h, int64_t w) {
    const Run &over_d = level.depth.over[d], &over_h = level.height.over[h],
              &over_w = level.width.over[w];
    const int64_t heights = static_cast<int64_t>(level.height.bins.size()),
                  widths = static_cast<int64_t>(level.width.bins.size());
    for (int64_t od = over_d.first; od < over_d.last; ++od) {
      for (int64_t oh = over_h.first; oh < over_h.last; ++oh) {
        for (int64_t ow = over_w.first; ow < over_w.last; ++ow)
          bins.push_back(level.first + (od * heights + oh) * widths + ow);
      }
    }
  }
};

// The code of a maximum that is kept: from the plane's position to the place inside the bin and
// back.
template <class Index>
struct BinCode {
  int64_t height, width;          // of the plane
  int64_t longest_h, longest_w;   // of the bins
  std::vector<int32_t> of_place;  // uint8: by place inside a bin, how far from its first

  BinCode(const BinLevel& level)
      : height(level.height.size),
        width(level.width.size),
        longest_h(level.height.longest),
        longest_w(level.width.longest) {
    if (!std::is_same_v<Index, uint8_t>) return;
    for (int64_t place = 0; place < 256; ++place) {
      const int64_t w = place % longest_w, h = place / longest_w % longest_h,
                    d = place / longest_w / longest_h;
      of_place.push_back(static_cast<int32_t>((d * height + h) * width + w));
    }
  }

  int64_t origin(const Run& d, const Run& h, const Run& w) const {
    return (d.first * height + h.first) * width + w.first;
  }
  // The code of the element (d, h, w), counted from the bin's first; the bin begins at `origin`.
  Index write(int64_t origin, int64_t d, int64_t h, int64_t w) const {
    if constexpr (std::is_same_v<Index, uint8_t>)
      return static_cast<Index>((d * longest_h + h) * longest_w + w);
    return static_cast<Index>(origin + (d * height + h) * width + w);
  }
  int64_t read(Index code, int64_t origin) const {
    if constexpr (std::is_same_v<Index, uint8_t>) return origin + of_place[code];
    return code;
  }
};

}  // namespace pydl::cpu::PYDL_ISA
