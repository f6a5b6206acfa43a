// Boxes as the kernels of roi.h on a CPU use them: widened, and those of an image together.
#pragma once

#include <algorithm>
#include <span>
#include <stdexcept>
#include <vector>

#include "../roi.h"

namespace pydl::cpu::PYDL_ISA {

template <class A>
class Boxes {
 public:
  // Throws where a box is of no image.
  template <class T>
  Boxes(const T* boxes, int64_t count, int64_t images)
      : coordinates_(boxes, boxes + 5 * count), image_(count), begin_(images + 1), order_(count) {
    for (int64_t box = 0; box < count; ++box) {
      const A number = coordinates_[5 * box];
      image_[box] = pydl::image_of(number, images);
      if (image_[box] < 0) {
        std::ostringstream message;
        message << "Found an invalid batch index: " << number << " (the input has " << images
                << " images)";
        throw std::runtime_error(message.str());
      }
      ++begin_[image_[box] + 1];
    }
    for (int64_t n = 0; n < images; ++n) begin_[n + 1] += begin_[n];
    std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
    for (int64_t box = 0; box < count; ++box) order_[next[image_[box]]++] = box;
  }

  int64_t count() const { return static_cast<int64_t>(image_.size()); }
  int64_t image(int64_t box) const { return image_[box]; }
  A from(int64_t box, bool rows) const { return coordinates_[5 * box + (rows ? 2 : 1)]; }
  A to(int64_t box, bool rows) const { return coordinates_[5 * box + (rows ? 4 : 3)]; }
  // The boxes of each image by where they begin, so that those next to each other read the same
  // rows while these are in a cache; an order that depends on the boxes alone.
  template <class First>
  void sort_by(First first) {
    for (size_t n = 0; n + 1 < begin_.size(); ++n) {
      std::stable_sort(order_.begin() + begin_[n], order_.begin() + begin_[n + 1],
                       [&](int64_t a, int64_t b) { return first(a) < first(b); });
    }
  }
  // The boxes of all images, one image after the other.
  int64_t in_order(int64_t i) const { return order_[i]; }
  // All sums over them are taken in this order, however the work is shared out.
  std::span<const int64_t> of_image(int64_t n) const {
    return {order_.data() + begin_[n], order_.data() + begin_[n + 1]};
  }

 private:
  std::vector<A> coordinates_;  // five per box
  std::vector<int64_t> image_, begin_, order_;
};

}  // namespace pydl::cpu::PYDL_ISA
