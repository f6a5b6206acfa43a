// Vectors in registers, for kernels that keep several sums going at once: an array of lanes as in
// rows.h would be spilled between them.
#pragma once

#include <bit>
#include <cstring>

#include "rows.h"

namespace pydl::cpu::PYDL_ISA {

template <class A, int lanes>
struct VecOf {
  typedef A type __attribute__((vector_size(sizeof(A) * lanes)));
};
template <class A>
struct VecOf<A, 1> {
  using type = A;
};
template <class A, int lanes>
using Vec = typename VecOf<A, lanes>::type;

template <int lanes, class T>
PYDL_INLINE Vec<accumulate_t<T>, lanes> load_vec(const T* from) {
  using A = accumulate_t<T>;
  Vec<A, lanes> to;
  if constexpr (std::is_same_v<T, A>) {
    std::memcpy(&to, from, sizeof(to));
  } else {
    A values[lanes];
    load<lanes>(from, values);
    std::memcpy(&to, values, sizeof(to));
  }
  return to;
}

template <int lanes, class T>
PYDL_INLINE void store_vec(const Vec<accumulate_t<T>, lanes>& from, T* to) {
  using A = accumulate_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    std::memcpy(to, &from, sizeof(from));
  } else {
    A values[lanes];
    std::memcpy(values, &from, sizeof(from));
    store<lanes>(values, to);
  }
}

// The lanes put together in pairs, halves of the vector first: an order that depends on their
// number alone. In registers: a short row has little else to do.
template <int lanes, class A, class Both>
PYDL_INLINE A fold_lanes(const Vec<A, lanes>& vec, Both both) {
  if constexpr (lanes == 1) {
    return vec;
  } else {
    struct Halves {
      Vec<A, lanes / 2> low, high;
    };
    const Halves halves = std::bit_cast<Halves>(vec);
    return fold_lanes<lanes / 2, A>(both(halves.low, halves.high), both);
  }
}
template <int lanes, class A>
PYDL_INLINE A max_lanes(const Vec<A, lanes>& vec) {
  return fold_lanes<lanes, A>(vec, [](auto a, auto b) PYDL_INLINE_BODY { return a < b ? b : a; });
}
template <int lanes, class A>
PYDL_INLINE A sum_lanes(const Vec<A, lanes>& vec) {
  return fold_lanes<lanes, A>(vec, [](auto a, auto b) PYDL_INLINE_BODY { return a + b; });
}

// As for_blocks with no lane in two blocks, for loops whose outputs are their inputs: shorter and
// shorter vectors at the end of a row.
template <class A, class Body>
inline void for_vectors_once(int64_t size, Body&& body) {
  constexpr int widest = kWidest<A>;
  int64_t i = 0;
  for (; i + widest <= size; i += widest) body(i, Lanes<widest>{});
  if constexpr (widest >= 16) {
    for (; i + 8 <= size; i += 8) body(i, Lanes<8>{});
  }
  if constexpr (widest >= 8) {
    for (; i + 4 <= size; i += 4) body(i, Lanes<4>{});
  }
  for (; i < size; ++i) body(i, Lanes<1>{});
}

}  // namespace pydl::cpu::PYDL_ISA
