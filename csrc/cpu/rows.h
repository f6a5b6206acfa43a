// Rows of numbers, the thing every kernel in this folder is a loop over.
//
// A row is contiguous in memory: a line of a map (N, C, ...) or the channels of a pixel (channels
// last). Rows are seldom a multiple of the vector width (27, 13, 6), and a scalar remainder would
// cost more than the vectors before it; so a row is walked in blocks of a constant number of lanes,
// and its last block is moved back to end with the row. Lanes that two blocks share are computed
// twice and come out the same, which holds as long as no output of the loop is its input.
//
// A block's body is a plain loop of constant length, which compilers turn into one to four vector
// instructions per statement.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "../tensor.h"

// Before every loop over lanes: its iterations are independent, whatever its pointers seem to
// allow. Without it g++ unrolls a short constant loop before it looks for vectors, and a comparison
// that selects stays scalar (30 times slower).
#define PYDL_LANES _Pragma("omp simd")

// What works on the lanes of a block has to be inlined into the loop over blocks, or the lanes
// travel through memory.
#if defined(__GNUC__)
#define PYDL_INLINE [[gnu::always_inline]] inline
#define PYDL_INLINE_BODY __attribute__((always_inline))
#else
#define PYDL_INLINE inline
#define PYDL_INLINE_BODY
#endif

namespace pydl::cpu::PYDL_ISA {

inline constexpr int64_t kLanes = 16;
inline constexpr int64_t kLineBytes = 64;  // of the caches

template <int count>
using Lanes = std::integral_constant<int, count>;

// The lanes that the instruction set computes at once.
template <class A>
inline constexpr int kWidest =
#if defined(__AVX512F__)
    64 / sizeof(A);
#elif defined(__AVX2__)
    32 / sizeof(A);
#else
    16 / sizeof(A);
#endif

// Calls function(Lanes<lanes>) with the longest vectors that are not longer than a row of `size`.
template <class A, class Function>
inline void with_lanes(int64_t size, Function&& function) {
  constexpr int widest = kWidest<A>;
  if (size >= widest) return function(Lanes<widest>{});
  if constexpr (widest >= 16) {
    if (size >= 8) return function(Lanes<8>{});
  }
  if constexpr (widest >= 8) {
    if (size >= 4) return function(Lanes<4>{});
  }
  function(Lanes<1>{});
}

// Calls body(first) for blocks of `lanes` that cover [0, size), the last moved back.
template <int lanes, class Body>
PYDL_INLINE void for_blocks_of(int64_t size, Body body) {
  for (int64_t first = 0; first < size; first += lanes)
    body(std::min<int64_t>(first, size - lanes));
}

// Calls body(first, Lanes<count>) for blocks that cover [0, size) of rows computed in A, of as many
// lanes as there are or the row has. Write a body as [=]<int lanes>(int64_t first, Lanes<lanes>).
template <class A, class Body>
inline void for_blocks(int64_t size, Body&& body) {
  with_lanes<A>(size, [&]<int lanes>(Lanes<lanes> constant) {
    for_blocks_of<lanes>(size, [&](int64_t first) PYDL_INLINE_BODY { body(first, constant); });
  });
}

// The same for a row whose stores to `to`, in memory and of the type computed in, are to begin at
// cache lines except at its ends.
template <class A, class Body>
inline void for_lines(int64_t size, const A* to, Body&& body) {
  constexpr int lanes = kLineBytes / sizeof(A);
  if (size < 2 * lanes) return for_blocks<A>(size, body);
  const int64_t before = -reinterpret_cast<uintptr_t>(to) % kLineBytes / sizeof(A);
  if (before > 0) body(0, Lanes<lanes>{});
  for (int64_t first = before; first < size; first += lanes)
    body(std::min<int64_t>(first, size - lanes), Lanes<lanes>{});
}

// The same for rows that are padded to whole blocks of 16: the last one ends beyond the row,
// nothing is computed twice.
template <class A, class Body>
inline void for_whole_blocks(int64_t size, Body&& body) {
  constexpr int lanes = kWidest<A>;
  for (int64_t first = 0; first < size; first += lanes) body(first, Lanes<lanes>{});
}

// An integer as wide as A: comparisons of one select lanes of the other.
template <class A>
using Code = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

constexpr int64_t whole_blocks(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// Prefetches memory that will be needed soon, for a kernel whose next address no hardware
// prefetcher would guess.
PYDL_INLINE void fetch([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 3);
#endif
}
PYDL_INLINE void fetch_to_write([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 1, 3);
#endif
}

// Calls function(Lanes<n>) with n = count where that is among `known`, so that loops over it
// unroll, else with n = 0. Rows of double, which are for checking gradients, are not worth the code.
template <class A, int... known, class Function>
inline void with_count(int64_t count, Function&& function) {
  if constexpr (sizeof(A) < 8) {
    if (((count == known && (function(Lanes<known>{}), true)) || ...)) return;
  }
  function(Lanes<0>{});
}

// Calls step(t) for t in [first, fixed or else count). An unknown number of steps goes eight at a
// time: within a group what the steps pass on stays in registers, between groups it travels through
// memory.
template <int fixed, class Step>
PYDL_INLINE void for_steps(int64_t first, int64_t count, Step step) {
  int64_t t = first;
  if constexpr (fixed > 0) {
    for (; t < fixed; ++t) step(t);
  } else {
    for (; t + 8 <= count; t += 8) {
      step(t), step(t + 1), step(t + 2), step(t + 3), step(t + 4), step(t + 5), step(t + 6),
          step(t + 7);
    }
    for (; t < count; ++t) step(t);
  }
}

// A block between memory and the type it is computed in. Where lanes change their width, g++ falls
// back to vectors of 16 bytes, whose stores a wide load then has to wait for; so these few
// conversions are written out.

// 16 or 8 lanes of 32 bits from narrower ones and back.
template <int count>
PYDL_INLINE void widen(const uint8_t* from, int32_t* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    return _mm512_storeu_si512(
        to, _mm512_maskz_cvtepu8_epi32(0xffff,
                                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
#endif
#if defined(__AVX2__)
  if constexpr (count >= 8) {
    for (int lane = 0; lane < count; lane += 8) {
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(to + lane),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + lane))));
    }
    return;
  }
#endif
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = from[lane];
}

template <int count>
PYDL_INLINE void widen(const uint8_t* from, int64_t* to) {
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = from[lane];
}

// Truncates: enough to tell the taps of one window apart.
template <int count>
PYDL_INLINE void widen(const int64_t* from, int32_t* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_storeu_si512(to, _mm512_permutex2var_epi32(_mm512_loadu_si512(from), even,
                                                             _mm512_loadu_si512(from + 8)));
  }
#endif
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = static_cast<int32_t>(from[lane]);
}

template <int count>
PYDL_INLINE void widen(const int64_t* from, int64_t* to) {
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = from[lane];
}

template <int count>
PYDL_INLINE void widen(const uint16_t* from, uint32_t* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    return _mm512_storeu_si512(
        to, _mm512_maskz_cvtepu16_epi32(
                0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
  }
#endif
#if defined(__AVX2__)
  if constexpr (count >= 8) {
    for (int lane = 0; lane < count; lane += 8) {
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(to + lane),
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + lane))));
    }
    return;
  }
#endif
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = from[lane];
}

template <int count>
PYDL_INLINE void narrow(const uint32_t* from, uint16_t* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                               _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_loadu_si512(from)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (count >= 8) {
    for (int lane = 0; lane < count; lane += 8) {
      const __m256i wide = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + lane));
      const __m128i packed =
          _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + lane), packed);
    }
    return;
  }
#endif
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = static_cast<uint16_t>(from[lane]);
}

template <int count>
PYDL_INLINE void narrow(const int32_t* from, uint8_t* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                            _mm512_maskz_cvtepi32_epi8(0xffff, _mm512_loadu_si512(from)));
  }
#endif
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = static_cast<uint8_t>(from[lane]);
}

template <int count>
PYDL_INLINE void narrow(const int64_t* from, uint8_t* to) {
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = static_cast<uint8_t>(from[lane]);
}

template <int count, class T>
PYDL_INLINE void load(const T* from, accumulate_t<T>* to) {
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = static_cast<accumulate_t<T>>(from[lane]);
}

template <int count, class T>
PYDL_INLINE void store(const accumulate_t<T>* from, T* to) {
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = static_cast<T>(from[lane]);
}

#if defined(__AVX2__)
template <int count>
  requires(count >= 8)
PYDL_INLINE void load(const bfloat16* from, float* to) {
  uint32_t bits[count];
  widen<count>(&from->bits, bits);
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) to[lane] = std::bit_cast<float>(bits[lane] << 16);
}

template <int count>
  requires(count >= 8)
PYDL_INLINE void store(const float* from, bfloat16* to) {
  uint32_t bits[count];
  PYDL_LANES
  for (int lane = 0; lane < count; ++lane) bits[lane] = bfloat16(from[lane]).bits;
  narrow<count>(bits, &to->bits);
}
#endif

#if defined(__F16C__)
template <int count>
  requires(count >= 8)
PYDL_INLINE void load(const float16* from, float* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    return _mm512_storeu_ps(
        to,
        _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
  }
#endif
  for (int lane = 0; lane < count; lane += 8) {
    _mm256_storeu_ps(
        to + lane, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + lane))));
  }
}

template <int count>
  requires(count >= 8)
PYDL_INLINE void store(const float* from, float16* to) {
#if defined(__AVX512F__)
  if constexpr (count == 16) {
    return _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to),
        _mm512_maskz_cvtps_ph(0xffff, _mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (int lane = 0; lane < count; lane += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + lane),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + lane), _MM_FROUND_TO_NEAREST_INT));
  }
}
#endif

template <class T>
inline void load_row(const T* from, accumulate_t<T>* to, int64_t size) {
  for_blocks<accumulate_t<T>>(
      size, [=]<int lanes>(int64_t first, Lanes<lanes>) { load<lanes>(from + first, to + first); });
}

template <class T>
inline void store_row(const accumulate_t<T>* from, T* to, int64_t size) {
  for_blocks<accumulate_t<T>>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    store<lanes>(from + first, to + first);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
