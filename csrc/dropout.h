// Dropout with a mask that is computed, not stored: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011,
// "Parallel random numbers: as easy as 1, 2, 3"), a function of a 64-bit key and a 128-bit counter.
//
//   y[e] = x[e] / (1 - p)  where word e % 4 of Philox(key = seed, counter = e / 4) >= p 2^32
//          x[e] * 0        elsewhere
//
// for the e-th element in the order of memory; 0 times an infinity or NaN is NaN, as in PyTorch.
// The gradient is the same function of grad_y.
#pragma once

#include "tensor.h"

namespace pydl {

struct Dropout {
  Tensor x;  // (elements,)
  Tensor y;  // like x, written; may be x itself
  double p;  // 0 <= p <= 1
  int64_t seed;
};

// CPU: x and y contiguous.
namespace cpu {
void dropout(const Dropout& args, int64_t threads);
}  // namespace cpu

}  // namespace pydl
