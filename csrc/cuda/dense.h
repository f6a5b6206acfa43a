// The index scheme of what is done to each element by itself, for maps that lie alike: without gaps,
// in one layout, at most 2^29 elements. element.h is for any others, in 64 bits.
//
// Such a map is made of periods, after each of which the channels begin again, and a period of rows:
//
//   [N][C][pixels]    where w is innermost: an image is a period, its rows are planes
//   [N * pixels][C]   channels last: a pixel is a period and a row
//   [4][count / 4]    where no channel matters: four of about the same length, a row each
//
// A thread takes `width` neighbours of a row, 16 bytes where rows and addresses permit it, at the
// same place of four periods. So it works out once for all of them where it is and what belongs to
// its channels, and has all their loads on their way at once. Offsets are 32 bits wide, and the
// divisions are multiplications by numbers that the host computes.
//
// Rows are filled up by threads without elements to whole bytes of one bit an element, for masks
// (../batch_norm.h): 8 / width neighbouring threads, or one, have a byte.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "../tensor.h"
#include "device.h"
#include "element.h"

namespace pydl::cuda {

// n / divisor for n < 2^31 (Granlund and Montgomery 1994).
struct Divisor {
  uint32_t divisor, factor = 0, shift = 0;

  Divisor() : Divisor(1) {}
  explicit Divisor(uint32_t divisor) : divisor(divisor) {
    while (uint64_t{1} << shift < divisor) ++shift;
    factor = static_cast<uint32_t>((((uint64_t{1} << shift) - divisor) << 32) / divisor + 1);
  }
  __device__ uint32_t quotient(uint32_t n) const {
    return (static_cast<uint32_t>(uint64_t{n} * factor >> 32) + n) >> shift;
  }
};

struct Dense {
  static constexpr int periods = 4;  // that a thread takes

  uint32_t count, period, row;  // elements
  uint32_t rows;                // of a period
  bool channels_last;
  uint32_t threads;
  Divisor of_period, of_row;  // threads

  Dense(const Tensor& map, bool channels_last, bool by_channel, int width)
      : count(static_cast<uint32_t>(map.numel())),
        period(static_cast<uint32_t>(!by_channel ? blocks_for(count, periods * width) * width
                                     : channels_last
                                         ? map.size[1]
                                         : map.size[1] * map.size[2] * map.size[3] * map.size[4])),
        row(by_channel && !channels_last ? period / static_cast<uint32_t>(map.size[1]) : period),
        rows(period / row),
        channels_last(channels_last),
        of_period(rows * threads_of_row(width)),
        of_row(threads_of_row(width)) {
    threads =
        static_cast<uint32_t>(blocks_for(count, int64_t{periods} * period)) * of_period.divisor;
  }
  uint32_t threads_of_row(int width) const {
    return static_cast<uint32_t>(blocks_for(row, 8) * (8 / width));
  }
};

// Neighbours in memory, read and written 16 bytes at a time.
template <class T, int width>
struct alignas(sizeof(T) * width < 16 ? sizeof(T) * width : 16) Vector {
  T at[width];
};

template <int width, class T>
__device__ __forceinline__ Vector<T, width> load(const T* from) {
  return *reinterpret_cast<const Vector<T, width>*>(from);
}

template <class T, int width>
__device__ __forceinline__ void store(T* to, const Vector<T, width>& value) {
  *reinterpret_cast<Vector<T, width>*>(to) = value;
}

template <int width, class T, int n>
__device__ __forceinline__ Vector<T, width> repeated(const Vector<T, n>& values) {
  Vector<T, width> out;
  UNROLLED for (int j = 0; j < width; ++j) out.at[j] = values.at[j % n];
  return out;
}

// The elements of a thread: `width` from own[i] on, for each i < Dense::periods with own.has(i).
template <int width>
struct Own {
  uint32_t first, left, period;  // offsets: of the first, from there to the end, to the next
  uint32_t row, rows, line;      // its row, how many a period has, and its row's place among those
  uint32_t column, bytes;        // in the row, and how many bytes a row has in a mask
  bool inside, channels_last;    // inside: there are elements

  __device__ explicit Own(const Dense& dense)
      : period(dense.period),
        rows(dense.rows),
        bytes((dense.row + 7) / 8),
        channels_last(dense.channels_last) {
    const uint32_t number = static_cast<uint32_t>(thread_number());
    const uint32_t group = dense.of_period.quotient(number);
    const uint32_t rest = number - group * dense.of_period.divisor;
    line = dense.of_row.quotient(rest);
    column = (rest - line * dense.of_row.divisor) * width;
    row = group * Dense::periods * rows + line;
    first = group * Dense::periods * period + line * dense.row + column;
    inside = number < dense.threads && column < dense.row;
    left = inside ? dense.count - first : 0;
  }
  __device__ bool has(int i) const { return i * period < left; }
  __device__ uint32_t operator[](int i) const { return first + i * period; }
  // Where a mask has their bits, from bit column % 8 on.
  __device__ uint32_t byte(int i) const { return (row + i * rows) * bytes + column / 8; }

  // Calls function(n, channel): their channels are the n from this one on, n being 1 or `width`.
  template <class Function>
  __device__ __forceinline__ void with_channels(const Function& function) const {
    if (channels_last)
      function(std::integral_constant<int, width>{}, column);
    else
      function(std::integral_constant<int, 1>{}, line);
  }
};

// Whether memory has no gaps and this layout.
inline bool is_dense(const Tensor& map, bool channels_last) {
  constexpr int orders[2][5] = {{4, 3, 2, 1, 0}, {1, 4, 3, 2, 0}};
  int64_t span = 1;
  for (const int axis : orders[channels_last]) {
    if (map.size[axis] > 1 && map.stride[axis] != span) return false;
    span *= map.size[axis];
  }
  return true;
}

// Calls function(width, dense), and says so, where this scheme serves the maps (those of them that
// are there) of dtype T, with these vectors of one number for each channel.
template <class T, class Function>
bool dispatch_dense(std::initializer_list<const Tensor*> maps,
                    std::initializer_list<const Tensor*> vectors, bool channels_last,
                    Function&& function) {
  bool by_channel = false, aligned = true;
  const auto look = [&](const Tensor& tensor) {
    aligned = aligned && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
    return tensor.data != nullptr;
  };
  for (const Tensor* map : maps)
    if (look(*map) && (!is_dense(*map, channels_last) || map->numel() > 1 << 29)) return false;
  for (const Tensor* vector : vectors) {
    if (look(*vector) && vector->stride[1] != 1 && vector->size[1] > 1) return false;
    by_channel = by_channel || vector->data != nullptr;
  }
  const Tensor& map = **maps.begin();
  const auto with = [&](auto width) {
    const Dense dense(map, channels_last, by_channel, width);
    if (width > 1 && (!aligned || (by_channel ? dense.row : dense.count) % width != 0))
      return false;
    function(width, dense);
    return true;
  };
  return with(std::integral_constant<int, 16 / sizeof(T)>{}) ||
         with(std::integral_constant<int, 1>{});
}

}  // namespace pydl::cuda
