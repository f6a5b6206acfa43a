// How the kernels of maxima compare, and what stands for an index that nobody wants.
#pragma once

#include <limits>

#include "rows.h"

namespace pydl::cpu::PYDL_ISA {

// In place of an index's type.
struct NoIndex {};

template <class A>
inline constexpr A kLowest = -std::numeric_limits<A>::infinity();

// Whether a value takes the place of the best of those before it in scan order: the first of equals
// stays, a NaN is taken and kept until the next.
template <class A>
PYDL_INLINE bool beats(A value, A best) {
  return (value > best) | (value != value);
}

}  // namespace pydl::cpu::PYDL_ISA
