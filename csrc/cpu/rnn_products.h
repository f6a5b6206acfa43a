// Products of a few rows with a weight that stays the same for every step: packed once per call, so
// that what a register tile needs next lies next to it.
//
// A panel is `vectors` vectors of output columns; it holds them for k = 0, 1, ... of the sum. A
// tile is up to kTileRows rows times a panel, all its sums in registers. The order of a sum is that
// of k, whatever the tile, the panel or the thread.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "turn.h"

namespace pydl::cpu::PYDL_ISA {

template <class A>
inline constexpr int kWidth = kWidest<A>;

#if defined(__AVX512F__)
inline constexpr int kTileRows = 6;  // of 4 vectors: 24 sums, 4 weights, a factor; 32 registers
#else
inline constexpr int kTileRows = 3;  // 12 sums and a factor, weights from the cache; 16 registers
#endif

// A number of elements, rounded up to whole vectors.
template <class A>
constexpr int64_t padded(int64_t size) {
  return (size + kWidth<A> - 1) / kWidth<A> * kWidth<A>;
}

// sums[row][vector] = from[row][k] * panel[k][vector], summed over k.
template <int rows, int vectors, class A>
PYDL_INLINE void multiply_tile(const A* from, int64_t row_step, const A* panel, int64_t terms,
                               A* to, int64_t to_row, int64_t to_vector, const A* factors,
                               bool add) {
  using V = Vec<A, kWidth<A>>;
  V sums[rows][vectors] = {};
  for (int64_t k = 0; k < terms; ++k) {
    V weights[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v)
      weights[v] = load_vec<kWidth<A>>(panel + (k * vectors + v) * kWidth<A>);
#pragma GCC unroll 6
    for (int row = 0; row < rows; ++row) {
      const A factor = from[row * row_step + k];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[row][v] += weights[v] * factor;
    }
  }
#pragma GCC unroll 6
  for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      A* at = to + row * to_row + v * to_vector;
      if (factors != nullptr)
        sums[row][v] *= load_vec<kWidth<A>>(factors + row * to_row + v * to_vector);
      if (add) sums[row][v] += load_vec<kWidth<A>>(at);
      store_vec<kWidth<A>, A>(sums[row][v], at);
    }
  }
}

// A tile for a number of rows that is known when it runs; `to` has its vectors to_vector apart.
// With `factors`, laid out as `to`, the sums times these; with `add` more on top of what is there.
// Not inlined: each cell and dtype calls it from several places.
template <int vectors, class A>
[[gnu::noinline]] void multiply_rows(int64_t rows, const A* from, int64_t row_step, const A* panel,
                                     int64_t terms, A* to, int64_t to_row, int64_t to_vector,
                                     const A* factors = nullptr, bool add = false) {
  const auto tile = [&]<int count>(Lanes<count>) {
    multiply_tile<count, vectors>(from, row_step, panel, terms, to, to_row, to_vector, factors,
                                  add);
  };
  switch (rows) {
    case 1:
      return tile(Lanes<1>{});
    case 2:
      return tile(Lanes<2>{});
    case 3:
      return tile(Lanes<3>{});
    default:
      break;
  }
  if constexpr (kTileRows > 3) {
    if (rows == 4) return tile(Lanes<4>{});
    if (rows == 5) return tile(Lanes<5>{});
    if (rows == 6) return tile(Lanes<6>{});
  }
}

// Calls body(first, count) for runs of at most kTileRows rows, as even as they can be.
template <class Body>
PYDL_INLINE void for_tiles(int64_t rows, Body body) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = rows * tile / tiles;
    body(first, rows * (tile + 1) / tiles - first);
  }
}

// Columns of a weight that make a vector: `count` of them, the rest of it zeros.
struct Columns {
  int64_t first, count;
};

// The panel of these columns. A sum runs over `segments` stretches of `segment` numbers, each
// padded to `stretch` in the rows that are multiplied; the weight's element of column c, stretch s
// and number k is weight[c * column_step + (s * segment + k) * term_step]. One of the steps is 1.
template <class A, class T>
[[gnu::noinline]] void pack_panel(const T* weight, int64_t column_step, int64_t term_step,
                                  int64_t segments, int64_t segment, int64_t stretch,
                                  const Columns* columns, int vectors, A* panel) {
  constexpr int width = kWidth<A>;
  const int64_t pitch = vectors * width;
  const bool full = std::all_of(columns, columns + vectors,
                                [](const Columns& one) { return one.count == width; });
  if (!full || segment < stretch) std::fill_n(panel, segments * stretch * pitch, A{});
  std::vector<A> row(std::is_same_v<T, A> ? 0 : segment);
  for (int v = 0; v < vectors; ++v) {
    for (int64_t s = 0; s < segments; ++s) {
      const T* from = weight + columns[v].first * column_step + s * segment * term_step;
      A* to = panel + s * stretch * pitch + v * width;
      if (term_step == 1) {
        turn_wide(from, column_step, columns[v].count, segment, to, pitch, row.data());
      } else {
        for (int64_t k = 0; k < segment; ++k)
          load_row(from + k * term_step, to + k * pitch, columns[v].count);
      }
    }
  }
}

}  // namespace pydl::cpu::PYDL_ISA
