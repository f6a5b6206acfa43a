// Window arguments arrive as Python sequences of one to three integers, the innermost axis last.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "../tensor.h"

namespace pydl {

using Axes = std::vector<int64_t>;

// Fills the leading axes, which the map does not have, with `absent`.
inline void spread(const Axes& axes, int64_t absent, int64_t (&out)[3]) {
  check(axes.size() >= 1 && axes.size() <= 3,
        "expected one to three values, one per spatial axis, got ", axes.size());
  std::fill(std::begin(out), std::end(out), absent);
  std::copy(axes.begin(), axes.end(), std::end(out) - axes.size());
}

}  // namespace pydl
