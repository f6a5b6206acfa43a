// What the windows of an average are divided by, and the averages.
#pragma once

#include <memory>

#include "pool_window.h"

namespace pydl::cpu::PYDL_ISA {

// The divisor of a window is a product: of a number that a line of windows shares and one for each
// window of the line. Of `parts` taps, where that is given: then it divides by count / parts.
template <class A>
class Divisor {
 public:
  Divisor(const Axis& depth, const Axis& height, const Axis& width, bool count_include_pad,
          int64_t fixed, int64_t parts = 1)
      : depth_(depth),
        height_(height),
        include_(count_include_pad),
        fixed_(fixed),
        of_window_(new A[width.outputs]) {
    for (int64_t o = 0; o < width.outputs; ++o) {
      of_window_[o] = static_cast<A>(fixed ? 1 : width.counted(o, count_include_pad)) / parts;
    }
    for (const Axis* axis : {&depth, &height, &width}) {
      for (int64_t o = 1; o < axis->outputs; ++o) {
        uniform_ &=
            fixed || axis->counted(o, count_include_pad) == axis->counted(0, count_include_pad);
      }
    }
  }

  // Whether all windows have the same divisor.
  bool uniform() const { return uniform_; }

  // Divides the window `o` of a line.
  struct OfLine {
    A shared;
    const A* of_window;

    A at(int64_t o) const { return shared * of_window[o]; }
    A operator()(A value, int64_t o) const { return value / at(o); }
    // What divides the channels of the window `o`.
    auto window(int64_t o) const {
      return [by = at(o)](A value, int64_t) { return value / by; };
    }
  };
  OfLine of_line(int64_t d, int64_t h) const {
    return {static_cast<A>(fixed_ ? fixed_
                                  : depth_.counted(d, include_) * height_.counted(h, include_)),
            of_window_.get()};
  }

 private:
  const Axis &depth_, &height_;
  bool include_, uniform_ = true;
  int64_t fixed_;
  std::unique_ptr<A[]> of_window_;
};

// y[o] = sum of the taps of window o inside the input / divisor[o]: see avg_pool_forward.cpp.
template <class T>
void average_windows(const Tensor& x, const Tensor& y, const Axis& depth, const Axis& height,
                     const Axis& width, const Divisor<accumulate_t<T>>& divisor, bool channels_last,
                     int64_t threads);

}  // namespace pydl::cpu::PYDL_ISA
