// What the kernels of RoIAlign and of RoI pooling share: the sizes of a call with its boxes, tiles
// of planes, and bands of rows.
#pragma once

#include "plane_tiles.h"
#include "roi_boxes.h"

namespace pydl::cpu::PYDL_ISA {

template <class T>
struct BoxedMaps {
  using A = accumulate_t<T>;

  BoxedMaps(const Tensor& map, const Tensor& given, const Tensor& pooled)
      : images(map.size[0]),
        channels(map.size[1]),
        height(map.size[3]),
        width(map.size[4]),
        lines(pooled.size[3]),
        columns(pooled.size[4]),
        boxes(static_cast<const T*>(given.data), pooled.numel() > 0 ? pooled.size[0] : 0, images) {}

  int64_t plane() const { return height * width; }
  int64_t bins() const { return lines * columns; }
  // The rows that all boxes of an image are in; reach(box) are those of one.
  template <class Reach>
  PixelRun rows_of_image(int64_t n, const Reach& reach) const {
    PixelRun all = {height, 0};
    for (const int64_t box : boxes.of_image(n)) {
      const PixelRun rows = reach(box);
      if (rows.size() > 0) all = {std::min(all.first, rows.first), std::max(all.last, rows.last)};
    }
    return all;
  }
  template <int lanes>
  PlaneTiles<lanes, A> tiles(int64_t threads) const {
    return {images, channels, plane(), bins(), threads};
  }
  // Turns those rows of a tile's planes into pixels.
  template <class Tile>
  void load(const T* x, const Tile& tile, int64_t lanes, const PixelRun& rows) const {
    const int64_t at = rows.first * width, size = rows.size() * width;
    if (size > 0) {
      turn_wide(x + tile.plane * plane() + at, plane(), tile.planes, size, tile.pixels + at * lanes,
                lanes, tile.row);
    }
  }

  int64_t images, channels, height, width, lines, columns;
  Boxes<A> boxes;
};

// Bands of rows of a map in channels last, each with sums that stay in a cache while a thread adds
// to them.
class Bands {
 public:
  struct Band {
    int64_t image, begin, end;
  };

  template <class T>
  explicit Bands(const BoxedMaps<T>& maps)
      : rows_(maps.height),
        row_(maps.width * maps.channels),
        height_(std::min(maps.height, fitting(row_ * sizeof(accumulate_t<T>)))),
        of_image_((maps.height + height_ - 1) / height_),
        images_(maps.images) {}

  int64_t count() const { return images_ * of_image_; }
  int64_t row() const { return row_; }             // elements
  int64_t most() const { return height_ * row_; }  // elements of a band
  int64_t elements() const { return images_ * rows_ * row_; }
  Band operator[](int64_t number) const {
    const int64_t begin = number % of_image_ * height_;
    return {number / of_image_, begin, std::min(rows_, begin + height_)};
  }

 private:
  static int64_t fitting(int64_t row_bytes) {
    return std::max<int64_t>(1, (int64_t{1} << 18) / std::max<int64_t>(1, row_bytes));
  }

  int64_t rows_, row_, height_, of_image_, images_;
};

}  // namespace pydl::cpu::PYDL_ISA
