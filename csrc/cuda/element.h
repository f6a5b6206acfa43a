// Which element of a tensor a thread owns.
//
// Threads are numbered through a whole tensor along one long axis of blocks, in the order of its
// memory: w changes fastest, or c in channels last. So the 32 threads of a warp own neighbours, and
// one load of theirs is one or a few 128-byte lines. The numbers, like all offsets, are 64 bits
// wide.
#pragma once

#include "../tensor.h"
#include "device.h"

// ROLLED stands before a loop that mostly runs once or twice: unrolled, as nvcc would have it, it
// only costs registers. UNROLLED stands before one whose arrays are registers only once it is.
#if defined(__CUDACC__)
#define ROLLED _Pragma("unroll 1")
#define UNROLLED _Pragma("unroll")
#else
#define ROLLED
#define UNROLLED
#endif

namespace pydl::cuda {

constexpr int block_size = 256;

struct Element {
  int64_t n, c, d, h, w;
};

__device__ inline int64_t thread_number() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// a / b for b > 0. A GPU has no instruction for it: 32 bits cost about 20 of those it has, 64 bits
// about 70. So it pays to check whether 32 bits will do, as they do for whatever is not negative in
// a tensor of fewer than 2^32 elements.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

// Takes the innermost axis off a number: returns number % size and leaves number / size.
__device__ inline int64_t take(int64_t& number, int64_t size) {
  const int64_t rest = quotient(number, size);
  const int64_t coordinate = number - rest * size;
  number = rest;
  return coordinate;
}

__device__ inline Element element_of(int64_t number, const int64_t (&size)[5], bool channels_last) {
  Element e;
  if (channels_last) e.c = take(number, size[1]);
  e.w = take(number, size[4]);
  e.h = take(number, size[3]);
  e.d = take(number, size[2]);
  if (!channels_last) e.c = take(number, size[1]);
  e.n = number;
  return e;
}

// Whether 0 <= coordinate < size, in one comparison.
__device__ inline bool inside(int64_t coordinate, int64_t size) {
  return static_cast<uint64_t>(coordinate) < static_cast<uint64_t>(size);
}

inline int64_t blocks_for(int64_t items, int64_t items_per_block = block_size) {
  return (items + items_per_block - 1) / items_per_block;
}

inline bool same_size(const Tensor& a, const Tensor& b) {
  bool same = true;
  for (int axis = 0; axis < 5; ++axis) same = same && a.size[axis] == b.size[axis];
  return same;
}

}  // namespace pydl::cuda
