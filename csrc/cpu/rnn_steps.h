// What both passes over a recurrent layer's steps share: where tokens lie, how units are divided
// among threads, rows in memory that end inside a vector.
//
// Inside, rows of hidden units are padded to whole groups of vectors, so that only what is read
// from and written to the caller's tensors has to look at where a row ends. A thread owns groups of
// units: it makes their products and their gates, at every step, so that nothing but h crosses
// between threads. With layer norm, which needs whole rows, it owns rows instead once the products
// are made.
#pragma once

#include <cmath>
#include <vector>

#include "../rnn.h"
#include "../rnn_gates.h"
#include "gate_math.h"
#include "rnn_products.h"

namespace pydl::cpu::PYDL_ISA {

template <class A>
using Wide = Vec<A, kWidth<A>>;

// The end of a row, less than a vector of it: zeros behind. Not inlined, or these loops would be
// the larger part of every step.
template <class T>
[[gnu::noinline]] Wide<accumulate_t<T>> load_end(const T* from, int64_t count) {
  using A = accumulate_t<T>;
  A lanes[kWidth<A>] = {};
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = static_cast<A>(from[lane]);
  return load_vec<kWidth<A>>(static_cast<const A*>(lanes));
}

template <class T>
[[gnu::noinline]] void store_end(const Wide<accumulate_t<T>>& from, T* to, int64_t count) {
  using A = accumulate_t<T>;
  A lanes[kWidth<A>];
  store_vec<kWidth<A>>(from, static_cast<A*>(lanes));
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = static_cast<T>(lanes[lane]);
}

// Up to a vector of a row in memory; zeros behind its end.
template <class T>
PYDL_INLINE Wide<accumulate_t<T>> load_some(const T* from, int64_t count) {
  constexpr int width = kWidth<accumulate_t<T>>;
  if (count >= width) [[likely]]
    return load_vec<width>(from);
  return load_end(from, count);
}

template <class T>
PYDL_INLINE void store_some(const Wide<accumulate_t<T>>& from, T* to, int64_t count) {
  constexpr int width = kWidth<accumulate_t<T>>;
  if (count >= width) [[likely]]
    return store_vec<width>(from, to);
  store_end(from, to, count);
}

// A row of the arithmetic's own buffers: whole vectors.
template <class A>
PYDL_INLINE Wide<A> load_whole(const A* from) {
  return load_vec<kWidth<A>>(from);
}
template <class A>
PYDL_INLINE void store_whole(const Wide<A>& from, A* to) {
  store_vec<kWidth<A>>(from, to);
}

// What it is after a round trip through memory.
template <class T>
PYDL_INLINE Wide<accumulate_t<T>> as_stored(const Wide<accumulate_t<T>>& x) {
  if constexpr (std::is_same_v<T, accumulate_t<T>>) {
    return x;
  } else {
    T there[kWidth<float>];
    store_vec<kWidth<float>>(x, static_cast<T*>(there));
    return load_vec<kWidth<float>>(static_cast<const T*>(there));
  }
}

template <class T>
const T* pointer(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data);
}
template <class T>
T* pointer_to(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

// A buffer of rows that begins with zeros.
template <class A>
class Rows {
 public:
  Rows(int64_t rows, int64_t size) : size_(size), memory_(1, rows * size) {
    std::fill_n(memory_.of(0), rows * size, A{});
  }
  A* of(int64_t row) const { return memory_.of(0) + row * size_; }

 private:
  int64_t size_;
  Scratch<A> memory_;
};

// `parts` vectors of a tensor, each in a padded row one after another, in the arithmetic's type.
template <class T>
inline Rows<accumulate_t<T>> spread(const Tensor& from, int64_t parts, int64_t size,
                                    int64_t stretch) {
  Rows<accumulate_t<T>> to(1, from.data == nullptr ? 0 : parts * stretch);
  if (from.data == nullptr) return to;
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < size; ++i)
      to.of(0)[part * stretch + i] =
          static_cast<accumulate_t<T>>(pointer<T>(from)[part * size + i]);
  }
  return to;
}

// Units in groups: how many vectors a group has depends on their number alone.
template <class A>
struct Groups {
  int64_t size, vectors, count, stretch;

  explicit Groups(int64_t units) : size(units) {
    const int64_t all = (units + kWidth<A> - 1) / kWidth<A>;
    vectors = all >= 8 ? 4 : all >= 4 ? 2 : 1;
    count = (all + vectors - 1) / vectors;
    stretch = count * vectors * kWidth<A>;
  }
  int64_t units_of(int64_t group) const { return group * vectors * kWidth<A>; }
  // How many of a vector's units exist.
  int64_t left(int64_t unit) const { return std::clamp<int64_t>(size - unit, 0, kWidth<A>); }
};

// Calls body(Lanes<vectors>) for 1, 2 or 4.
template <class Body>
inline void with_vectors(int64_t vectors, Body&& body) {
  if (vectors == 4) return body(Lanes<4>{});
  if (vectors == 2) return body(Lanes<2>{});
  body(Lanes<1>{});
}

// A member's share of `items`.
struct Share {
  int64_t first, last;
  Share(int64_t items, int64_t member, int64_t members)
      : first(items * member / members), last(items * (member + 1) / members) {}
};

// Where the tokens of each step lie.
struct Steps {
  std::vector<int64_t> first;  // token of step t; the number of tokens behind the last
  bool reverse;

  Steps(const RnnWeights& weights, int64_t tokens, bool backwards) : reverse(backwards) {
    const int64_t sequences = weights.h0.size[1];
    first.push_back(0);
    if (weights.batch_sizes.data == nullptr) {
      while (first.back() < tokens) first.push_back(first.back() + sequences);
    } else {
      const int64_t* sizes = pointer<int64_t>(weights.batch_sizes);
      for (int64_t t = 0; t < weights.batch_sizes.size[1]; ++t)
        first.push_back(first.back() + sizes[t]);
    }
  }
  int64_t count() const { return static_cast<int64_t>(first.size()) - 1; }
  int64_t rows(int64_t t) const { return t < 0 || t >= count() ? 0 : first[t + 1] - first[t]; }
  // Step number `at` of the forward.
  int64_t step(int64_t at) const { return reverse ? count() - 1 - at : at; }
  // The rows of the step after, in the forward's order: sequences beyond them end with this step.
  int64_t rows_after(int64_t t) const { return rows(reverse ? t - 1 : t + 1); }
  // The token of a sequence's step before, or -1 where it begins with this one.
  int64_t before(int64_t t, int64_t row) const {
    const int64_t there = reverse ? t + 1 : t - 1;
    return row < rows(there) ? first[there] + row : -1;
  }
};

// How much of an old state stays (zoneout): a mask, or one number for all.
template <class A>
struct Zone {
  const uint8_t* mask;
  A part;
  int64_t size;

  Zone(const Tensor& zone, double zoneout, int64_t units)
      : mask(pointer<uint8_t>(zone)), part(static_cast<A>(zoneout)), size(units) {}
  explicit operator bool() const { return mask != nullptr || part > 0; }
  Wide<A> of(int64_t token, int64_t unit, int64_t count) const {
    if (mask == nullptr) return Wide<A>{} + part;
    A lanes[kWidth<A>] = {};
    for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = mask[token * size + unit + lane];
    return load_whole<A>(lanes);
  }
};

// Takes the mean from `parts` padded rows that lie one after another, of `size` numbers each and
// zeros behind these; returns 1 / sqrt(var + eps).
template <class A>
inline A centre(A* rows, int64_t parts, int64_t size, int64_t stretch, double eps) {
  using V = Wide<A>;
  constexpr int width = kWidth<A>;
  const A count = static_cast<A>(parts * size);
  V sum{}, squares{};
  for (int64_t i = 0; i < parts * stretch; i += width) sum += load_whole(rows + i);
  const A mean = sum_lanes<width, A>(sum) / count;
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < size; ++i) rows[part * stretch + i] -= mean;
  }
  for (int64_t i = 0; i < parts * stretch; i += width)
    squares += load_whole(rows + i) * load_whole(rows + i);
  return A{1} / std::sqrt(sum_lanes<width, A>(squares) / count + static_cast<A>(eps));
}

// Whether a second thread is worth one meeting per step: two of them cost as much as some ten
// thousand multiplications.
inline int64_t rnn_team(int64_t multiplications, int64_t groups, int64_t threads) {
  return multiplications < 16384 ? 1
                                 : std::clamp<int64_t>(groups, 1, std::max<int64_t>(1, threads));
}

// Pass<T, cell>(args, threads).run() for the cell and the dtype that a call has.
template <template <class, RnnCell> class Pass, class Args>
void run_for_cell(RnnCell cell, DType dtype, const Args& args, int64_t threads) {
  const auto run = [&]<RnnCell which>(std::integral_constant<RnnCell, which>) {
    dispatch_floating(dtype, "rnn", [&]<class T>(T) { Pass<T, which>(args, threads).run(); });
  };
  switch (cell) {
    case RnnCell::rnn_tanh:
      return run(std::integral_constant<RnnCell, RnnCell::rnn_tanh>{});
    case RnnCell::rnn_relu:
      return run(std::integral_constant<RnnCell, RnnCell::rnn_relu>{});
    case RnnCell::lstm:
      return run(std::integral_constant<RnnCell, RnnCell::lstm>{});
    case RnnCell::gru:
      return run(std::integral_constant<RnnCell, RnnCell::gru>{});
    case RnnCell::gru_reset_before:
      return run(std::integral_constant<RnnCell, RnnCell::gru_reset_before>{});
  }
}

}  // namespace pydl::cpu::PYDL_ISA
