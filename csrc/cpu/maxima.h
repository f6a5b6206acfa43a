// How the kernels of maxima compare, and what stands for an index that nobody wants.
#pragma once

#include <bit>
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

// The larger of two vectors, lane by lane, as beats() has it of numbers: a fold for fold_rows.
struct Max {
  template <class A>
  A first(A value) const {
    return value;
  }
  template <class A>
  A operator()(A best, A value) const {
    const A larger = value > best ? value : best;
#if defined(__AVX2__) && !defined(__AVX512F__)
    // A select costs three instructions here; setting all bits, which is a NaN too, costs one.
    if constexpr (!std::is_floating_point_v<A>) {
      const auto unordered = value != value;
      using Bits = std::remove_const_t<decltype(unordered)>;
      return std::bit_cast<A>(std::bit_cast<Bits>(larger) | unordered);
    }
#endif
    return value != value ? value : larger;
  }
};

}  // namespace pydl::cpu::PYDL_ISA
