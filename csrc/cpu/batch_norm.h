// What both directions of batch normalisation share (definition in ../batch_norm.h).
#pragma once

#include <cmath>

#include "../batch_norm.h"
#include "bits.h"
#include "epilogue.h"
#include "parallel.h"
#include "stream.h"

namespace pydl::cpu::PYDL_ISA {

inline constexpr int64_t kChunk = 2048;      // elements of a channel added up in their own type
inline constexpr int64_t kChunkPixels = 64;  // the same of channels-last maps: a few partial sums
inline constexpr int64_t kMostRuns = 64;     // of pixels, each with sums of its own

struct Map {
  int64_t batch, channels, plane, pixels;

  explicit Map(const Tensor& x)
      : batch(x.size[0]),
        channels(x.size[1]),
        plane(x.size[2] * x.size[3] * x.size[4]),
        pixels(batch * plane) {}
  // Into how many runs the pixels of a channels-last map are divided; depends on the shape alone.
  int64_t runs() const {
    return std::max<int64_t>(1, std::min({pixels * channels / 32768, pixels, kMostRuns}));
  }
  // How many planes of one channel, or else which part of one, make a chunk.
  int64_t planes_in_chunk() const {
    return std::clamp<int64_t>((plane < 4 ? kChunk / 16 : kChunk) / plane, 1, batch);
  }
};

// Rows of one length at equal distances: pieces of a channel.
template <class T>
struct Rows {
  const T* first;
  int64_t count, stride, size;
};

// Calls body(n, planes, offset, size) for the chunks of a channel: `planes` planes from image n on,
// or elements [offset, offset + size) of the one plane of image n.
template <class Body>
PYDL_INLINE void for_chunks(const Map& map, const Body& body) {
  const int64_t planes = map.planes_in_chunk();
  for (int64_t n = 0; n < map.batch; n += planes) {
    const int64_t count = std::min(planes, map.batch - n);
    for (int64_t offset = 0; offset < map.plane; offset += kChunk)
      body(n, count, offset, std::min(kChunk, map.plane - offset));
  }
}

// Zeros in the lanes before the last `kept`: those that a block moved back to the end of a row
// shares with the block before it.
template <int lanes, class A>
PYDL_INLINE Vec<A, lanes> last_lanes(const Vec<A, lanes>& values, int64_t kept) {
  return choose<lanes, A>(~uint32_t{0} << (lanes - kept), values, Vec<A, lanes>{});
}

// 1 / sqrt(var + eps)
template <class A>
inline double inverse_deviation(A var, double eps) {
  return 1 / std::sqrt(static_cast<double>(var) + eps);
}

// Calls body(first, Lanes<lanes>, streams) for blocks that cover each element of a row once. Where
// the row is to be streamed, `streams` is true_type for blocks of the widest vectors that begin at
// a multiple of their size in memory, that is, all but the shorter ones at either end.
//
// All of it is inlined, and a body should capture by value: stores of bytes may alias whatever is
// in memory, and what a closure refers to would be read again after each.
template <class A, class Body>
PYDL_INLINE void for_row(int64_t size, const A* streamed_to, Body body) {
  constexpr int widest = kWidest<A>;
  int64_t i = 0;
  const auto shorter = [&](int64_t end) PYDL_INLINE_BODY {
    if constexpr (widest >= 16) {
      if (i + 8 <= end) body(i, Lanes<8>{}, std::false_type{}), i += 8;
    }
    if constexpr (widest >= 8) {
      if (i + 4 <= end) body(i, Lanes<4>{}, std::false_type{}), i += 4;
    }
    for (; i < end; ++i) body(i, Lanes<1>{}, std::false_type{});
  };
  if (streamed_to == nullptr || size < 2 * widest) {
    for (; i + widest <= size; i += widest) body(i, Lanes<widest>{}, std::false_type{});
  } else {
    const auto before = -reinterpret_cast<uintptr_t>(streamed_to) % (widest * sizeof(A));
    if (before > 0) shorter(before / sizeof(A));
    for (; i + widest <= size; i += widest) body(i, Lanes<widest>{}, std::true_type{});
  }
  if (i < size) shorter(size);
}

// Stores a vector, past the caches where for_row says so.
template <int lanes, class T, bool streams>
PYDL_INLINE void write(const Vec<accumulate_t<T>, lanes>& values, T* to,
                       std::bool_constant<streams>) {
  if constexpr (streams && std::is_same_v<T, accumulate_t<T>>) {
    stream_vec<lanes, T>(values, to);
  } else {
    store_vec<lanes>(values, to);
  }
}

// The row `to` where it is worth streaming, else nullptr: what for_row takes.
template <class T>
PYDL_INLINE const accumulate_t<T>* streamed(const T* to, bool streams) {
  if constexpr (std::is_same_v<T, accumulate_t<T>>) {
    return streams ? to : nullptr;
  } else {
    return nullptr;
  }
}

// One number per channel of a row, or the only one of its plane.
template <bool per_element, int lanes, class A>
PYDL_INLINE auto coefficient(const A* values, [[maybe_unused]] int64_t i) {
  if constexpr (per_element) {
    return load_vec<lanes>(values + i);
  } else {
    return *values;
  }
}

// Calls function.operator()<activation>() for one of those that have a mask.
template <class Function>
inline void with_masked_activation(Activation activation, Function&& function) {
  switch (activation) {
    case Activation::relu:
      return function.template operator()<Activation::relu>();
    case Activation::leaky_relu:
      return function.template operator()<Activation::leaky_relu>();
    default:
      return function.template operator()<Activation::none>();
  }
}

}  // namespace pydl::cpu::PYDL_ISA
