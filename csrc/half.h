// float16 and bfloat16 as storage types: two bytes in memory, float in arithmetic.
//
// Own types rather than the vendor's, so that the same source builds with g++ and no NVIDIA
// package. Conversions round to nearest, ties to even, as IEEE 754 and PyTorch do: on a GPU by its
// instructions, elsewhere by branch-free selects, so that compilers vectorise loops over them.
#pragma once

#include <bit>
#include <cstdint>

#if defined(__CUDACC__)
#define PYDL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define PYDL_HOST_DEVICE inline
#endif

namespace pydl {

namespace detail {

PYDL_HOST_DEVICE uint32_t bits_of(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  return std::bit_cast<uint32_t>(value);
#endif
}

PYDL_HOST_DEVICE float float_of(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

PYDL_HOST_DEVICE float half_to_float(uint16_t half) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  // The exponent is rebiased by an exact multiplication, which also normalises subnormals.
  const uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
  const uint32_t infinite = magnitude | 0x7f800000u;
  const uint32_t bits = magnitude >= (0x7c00u << 13) ? infinite : finite;
  return float_of(bits | static_cast<uint32_t>(half & 0x8000u) << 16);
#endif
}

PYDL_HOST_DEVICE uint16_t float_to_half(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const uint32_t all = bits_of(value);
  const uint32_t bits = all & 0x7fffffffu;
  const uint32_t special = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  // Below 2^-14 the float adder itself rounds: adding 0.5 aligns the half's last bit with the
  // float's.
  const uint32_t subnormal = bits_of(float_of(bits) + 0.5f) - bits_of(0.5f);
  const uint32_t normal = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  const uint32_t magnitude = bits >= 0x47800000u  ? special
                             : bits < 0x38800000u ? subnormal
                                                  : normal;
  return static_cast<uint16_t>(magnitude | ((all >> 16) & 0x8000u));
#endif
}

PYDL_HOST_DEVICE float bfloat_to_float(uint16_t bfloat) {
  return float_of(static_cast<uint32_t>(bfloat) << 16);
}

PYDL_HOST_DEVICE uint16_t float_to_bfloat(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t bfloat;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bfloat) : "f"(value));
  return bfloat;
#else
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
#endif
}

}  // namespace detail

struct float16 {
  uint16_t bits;

  float16() = default;
  PYDL_HOST_DEVICE explicit float16(float value) : bits(detail::float_to_half(value)) {}
  PYDL_HOST_DEVICE operator float() const { return detail::half_to_float(bits); }
};

struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  PYDL_HOST_DEVICE explicit bfloat16(float value) : bits(detail::float_to_bfloat(value)) {}
  PYDL_HOST_DEVICE operator float() const { return detail::bfloat_to_float(bits); }
};

static_assert(sizeof(float16) == 2 && sizeof(bfloat16) == 2);

// The type in which a kernel adds up values stored as T.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using accumulate_t = typename Accumulate<T>::type;

}  // namespace pydl
