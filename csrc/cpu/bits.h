// Rows of bits, one per element: element i of a row in bit i % 8 of byte i / 8.
#pragma once

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

// The lanes of a comparison's result as bits.
template <int lanes, class A, class Condition>
PYDL_INLINE uint32_t bits_of(const Condition& condition) {
  if constexpr (lanes == 1) {
    return condition ? 1 : 0;
  } else {
#if defined(__AVX512F__)
    if constexpr (sizeof(condition) == 64 && sizeof(A) == 4)
      return _mm512_movepi32_mask(std::bit_cast<__m512i>(condition));
    if constexpr (sizeof(condition) == 64 && sizeof(A) == 8)
      return _mm512_movepi64_mask(std::bit_cast<__m512i>(condition));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(condition) == 32 && sizeof(A) == 4)
      return _mm256_movemask_ps(std::bit_cast<__m256>(condition));
    if constexpr (sizeof(condition) == 32 && sizeof(A) == 8)
      return _mm256_movemask_pd(std::bit_cast<__m256d>(condition));
#endif
#if defined(__SSE2__)
    if constexpr (sizeof(condition) == 16 && sizeof(A) == 4)
      return _mm_movemask_ps(std::bit_cast<__m128>(condition));
    if constexpr (sizeof(condition) == 16 && sizeof(A) == 8)
      return _mm_movemask_pd(std::bit_cast<__m128d>(condition));
#endif
    uint32_t bits = 0;
    for (int lane = 0; lane < lanes; ++lane) bits |= (condition[lane] ? 1u : 0u) << lane;
    return bits;
  }
}

// Lane by lane `one` where its bit is set, else `other`.
template <int lanes, class A>
PYDL_INLINE Vec<A, lanes> choose(uint32_t bits, const Vec<A, lanes>& one,
                                 const Vec<A, lanes>& other) {
  if constexpr (lanes == 1) {
    return bits & 1 ? one : other;
  } else {
#if defined(__AVX512F__)
    if constexpr (sizeof(one) == 64 && sizeof(A) == 4)
      return std::bit_cast<Vec<A, lanes>>(_mm512_mask_blend_ps(
          static_cast<__mmask16>(bits), std::bit_cast<__m512>(other), std::bit_cast<__m512>(one)));
    if constexpr (sizeof(one) == 64 && sizeof(A) == 8)
      return std::bit_cast<Vec<A, lanes>>(_mm512_mask_blend_pd(
          static_cast<__mmask8>(bits), std::bit_cast<__m512d>(other), std::bit_cast<__m512d>(one)));
#endif
    using I = Vec<Code<A>, lanes>;
    I lane_bits;
    for (int lane = 0; lane < lanes; ++lane) lane_bits[lane] = Code<A>{1} << lane;
    return ((I{} + static_cast<Code<A>>(bits)) & lane_bits) != 0 ? one : other;
  }
}

// The bits of `lanes` elements of a row from `first` on, in the lowest places; the bits above them
// are unspecified. No byte is touched that holds none of them.
template <int lanes>
PYDL_INLINE uint32_t read_bits(const uint8_t* row, int64_t first) {
  static_assert(lanes <= 16);
  const uint8_t* byte = row + (static_cast<uint64_t>(first) >> 3);
  const unsigned skip = static_cast<uint64_t>(first) & 7;
  constexpr unsigned bytes = (lanes + 7) / 8;
  uint32_t bits = *byte;
  if constexpr (bytes == 2) {
    uint16_t both;
    std::memcpy(&both, byte, 2);
    bits = both;
  }
  if (skip + lanes > 8 * bytes) bits |= uint32_t{byte[bytes]} << (8 * bytes);
  return bits >> skip;
}

// Writes them, where the elements before `first` have been written and the bits above the lowest
// `lanes` are 0.
template <int lanes>
PYDL_INLINE void write_bits(uint32_t bits, uint8_t* row, int64_t first) {
  static_assert(lanes <= 16);
  uint8_t* byte = row + (static_cast<uint64_t>(first) >> 3);
  const unsigned skip = static_cast<uint64_t>(first) & 7;
  constexpr unsigned bytes = (lanes + 7) / 8;
  bits <<= skip;
  if (skip > 0) bits |= *byte;
  if constexpr (bytes == 2) {
    const uint16_t both = static_cast<uint16_t>(bits);
    std::memcpy(byte, &both, 2);
  } else {
    *byte = static_cast<uint8_t>(bits);
  }
  if (skip + lanes > 8 * bytes) byte[bytes] = static_cast<uint8_t>(bits >> (8 * bytes));
}

}  // namespace pydl::cpu::PYDL_ISA
