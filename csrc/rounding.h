// Arithmetic that every backend rounds alike, for decisions that the last bit can change.
#pragma once

#include "half.h"

namespace pydl {

// a * b, rounded before anything is added to it: compilers fuse the two where an instruction set
// can, and then differ on whether a sample is inside a map or how many samples a bin has.
template <class A>
PYDL_HOST_DEVICE A rounded_product(A a, A b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(A) == 4)
    return __fmul_rn(a, b);
  else
    return __dmul_rn(a, b);
#else
  const volatile A product = a * b;
  return product;
#endif
}

}  // namespace pydl
