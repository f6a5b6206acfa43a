// Philox4x32-10, several counters at a time.
#pragma once

#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

inline constexpr int kCounters = kWidest<uint64_t>;  // at a time
inline constexpr int kWords = 4 * kCounters;         // that they give

// A counter or a product in 64 bits each; of a counter only the lower 32 count.
using Wide = Vec<uint64_t, kCounters>;

PYDL_INLINE Wide product(Wide a, uint32_t by) {
#if defined(__AVX512F__)
  const __m512i factor = _mm512_set1_epi64(by);
  return std::bit_cast<Wide>(_mm512_maskz_mul_epu32(0xff, std::bit_cast<__m512i>(a), factor));
#elif defined(__AVX2__)
  const __m256i factor = _mm256_set1_epi64x(by);
  return std::bit_cast<Wide>(_mm256_mul_epu32(std::bit_cast<__m256i>(a), factor));
#elif defined(__SSE2__)
  const __m128i factor = _mm_set1_epi64x(by);
  return std::bit_cast<Wide>(_mm_mul_epu32(std::bit_cast<__m128i>(a), factor));
#else
  return (a & uint64_t{0xffffffff}) * uint64_t{by};
#endif
}

// The words of the counters first ... first + kCounters - 1, four each, in their order.
PYDL_INLINE void philox(uint64_t first, uint64_t key, uint32_t* words) {
  // Which counter each lane has: so that two interleaved halves come out in order.
  Wide counter;
  for (int lane = 0; lane < kCounters; ++lane)
    counter[lane] = first + static_cast<uint64_t>(lane / 2 + lane % 2 * (kCounters / 2));
  Wide c0 = counter, c1 = counter >> 32, c2{}, c3{};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const Wide p0 = product(c0, 0xd2511f53u), p1 = product(c2, 0xcd9e8d57u);
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c1 = p1;
    c3 = p0;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  const Wide low = (c0 & uint64_t{0xffffffff}) | (c1 << 32);
  const Wide high = (c2 & uint64_t{0xffffffff}) | (c3 << 32);
  Wide even, odd;
  for (int lane = 0; lane < kCounters; lane += 2) {
    even[lane] = low[lane], even[lane + 1] = high[lane];
    odd[lane] = low[lane + 1], odd[lane + 1] = high[lane + 1];
  }
  std::memcpy(words, &even, sizeof(even));
  std::memcpy(words + kWords / 2, &odd, sizeof(odd));
}

}  // namespace pydl::cpu::PYDL_ISA
