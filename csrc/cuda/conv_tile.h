// The inside of a matrix product on tensor cores: a block's operand tiles in shared memory, a
// warp's fragments of them, and a chunk of 16 bytes, the unit in which both are moved.
//
// A chunk is 8 halves or 4 floats. A step of the product covers 4 chunks of the reduction (32
// halves or 16 floats), which two mma_sync take, whatever the type: in chunks m16n8k16 of halves
// and m16n8k8 of tf32 are the same shape, and ldmatrix, which moves 8 rows of 16 bytes, gives
// either its fragments. A tile of R rows lies in one of two ways:
//
//   along    [R][4 chunks]: a chunk runs along the reduction. 64 bytes per row; chunk c of row r is
//            kept at c ^ (r / 2 % 4), so that the same chunk of 8 rows lies in 8 different
//            16-byte banks
//   across   [32][R / 8 chunks]: a chunk runs along the rows; halves only, since ldmatrix
//            transposes nothing but halves. Chunk c of step k is kept at c ^ (k % 8)
//
// and is filled by cp.async of whole chunks where memory has them so (`along`, `across`), else
// element by element (`gather`, which makes an `along` tile).
#pragma once

#include "element.h"

namespace pydl::cuda {

template <class T>
constexpr int chunk = 16 / sizeof(T);  // elements
constexpr int chunks_a_step = 4;
template <class T>
constexpr int step_length = chunks_a_step * chunk<T>;  // elements of the reduction
constexpr int stages = 4;                              // tiles under way, the one in use included

enum class Form { along, across, gather };

// Chunks of one operand's tile, of either form.
template <int rows>
constexpr int tile_chunks = rows * chunks_a_step;

template <int rows, Form form>
__device__ __forceinline__ int place_of(int row_or_k, int number) {
  if constexpr (form == Form::across) {
    static_assert(rows >= 64);
    return row_or_k * (rows / 8) + (number ^ (row_or_k % 8));
  } else {
    return row_or_k * chunks_a_step + (number ^ (row_or_k / 2 % 4));
  }
}

// Which chunks of a tile a thread fills: chunk i < count is `number(i)` of row, or of reduction
// step, `line(i)`. Neighbouring lanes take neighbouring memory: of a row in `along`, of a step in
// `across`, of different rows in `gather`.
template <int rows, int threads, Form form>
struct Share {
  static constexpr int count = tile_chunks<rows> / threads;
  static constexpr int numbers = form == Form::across ? rows / 8 : chunks_a_step;
  static_assert(count >= 1 && count * threads == tile_chunks<rows>);
  static_assert(form != Form::gather || threads % rows == 0);
  static constexpr int lines = form == Form::gather ? 1 : count;    // different lines of one thread
  static constexpr int columns = form == Form::gather ? count : 1;  // different numbers

  static __device__ __forceinline__ int line(int i) {
    return form == Form::gather ? threadIdx.x % rows
                                : threadIdx.x / numbers + i * (threads / numbers);
  }
  static __device__ __forceinline__ int number(int i) {
    return form == Form::gather ? threadIdx.x / rows + i * (threads / rows) : threadIdx.x % numbers;
  }
};

// Fills a chunk with elements that lie apart: the i-th is *address(i), or 0 where that is null.
// Floats go asynchronously, from `somewhere` if nothing is to be read; halves through registers,
// since no asynchronous copy is so short.
template <class T, class Address>
__device__ __forceinline__ void gather_chunk(uint4* to, const T* somewhere,
                                             const Address& address) {
  if constexpr (sizeof(T) == 4) {
    UNROLLED
    for (int i = 0; i < chunk<T>; ++i) {
      const T* from = address(i);
      cp_async<4>(reinterpret_cast<T*>(to) + i, from != nullptr ? from : somewhere,
                  from != nullptr ? 4 : 0);
    }
  } else {
    uint32_t words[4] = {};
    UNROLLED
    for (int i = 0; i < chunk<T>; ++i) {
      const T* from = address(i);
      if (from != nullptr) words[i / 2] |= static_cast<uint32_t>(from->bits) << (i % 2 * 16);
    }
    *to = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <class T>
struct MatrixOperand {
  using type = T;
};
template <>
struct MatrixOperand<float> {
  using type = tf32;
};

// Four registers of a fragment, rounded where the tensor core would only cut off bits.
template <class T, bool transposed>
__device__ __forceinline__ void load_fragment(uint32_t (&registers)[4], const uint4* from) {
  ldmatrix<4, transposed>(registers, from);
  if constexpr (std::is_same_v<T, float>) {
    UNROLLED
    for (uint32_t& value : registers) value = to_tf32(detail::float_of(value));
  }
}

// sums[i][j] += the step's product of 16 rows from first_row + 16 i and 8 columns from
// first_column + 8 j, by one warp.
template <class T, int row_count, int column_count, Form row_form, Form column_form, int m, int n>
__device__ __forceinline__ void multiply_tiles(float (&sums)[m][n][4], const uint4* rows,
                                               const uint4* columns, int first_row,
                                               int first_column) {
  static_assert(n % 2 == 0);
  const int lane = threadIdx.x % 32;
  UNROLLED
  for (int half = 0; half < 2; ++half) {
    uint32_t a[m][4];
    UNROLLED
    for (int i = 0; i < m; ++i) {
      const int row = first_row + i * 16;
      const int place = row_form == Form::across
                            ? place_of<row_count, Form::across>(
                                  half * 16 + lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2)
                            : place_of<row_count, row_form>(row + lane % 16, half * 2 + lane / 16);
      load_fragment<T, row_form == Form::across>(a[i], rows + place);
    }
    UNROLLED
    for (int j = 0; j < n; j += 2) {
      const int column = first_column + j * 8;
      const int place = column_form == Form::across
                            ? place_of<column_count, Form::across>(
                                  half * 16 + lane / 8 % 2 * 8 + lane % 8, column / 8 + lane / 16)
                            : place_of<column_count, column_form>(column + lane / 16 * 8 + lane % 8,
                                                                  half * 2 + lane / 8 % 2);
      uint32_t pair[4];
      load_fragment<T, column_form == Form::across>(pair, columns + place);
      const uint32_t b[2][2] = {{pair[0], pair[1]}, {pair[2], pair[3]}};
      UNROLLED
      for (int i = 0; i < m; ++i) {
        mma_sync<typename MatrixOperand<T>::type>(sums[i][j], a[i], b[0]);
        mma_sync<typename MatrixOperand<T>::type>(sums[i][j + 1], a[i], b[1]);
      }
    }
  }
}

// The loop over the steps of a product: fetch(step, slot) starts the copies of a step's tiles into
// slot 0 <= slot < stages, multiply(slot) uses them. One barrier per step: it says both that the
// step's tiles are there and that nobody still reads the slot that is filled next.
template <class Fetch, class Multiply>
__device__ __forceinline__ void run_steps(int64_t steps, const Fetch& fetch,
                                          const Multiply& multiply) {
  UNROLLED
  for (int early = 0; early < stages - 1; ++early) {
    if (early < steps) fetch(early);
    cp_async_commit();
  }
  int slot = 0;
  for (int64_t step = 0; step < steps; ++step) {
    cp_async_wait<stages - 2>();
    __syncthreads();
    if (step + stages - 1 < steps) fetch((slot + stages - 1) % stages);
    cp_async_commit();
    multiply(slot);
    slot = (slot + 1) % stages;
  }
}

// Whether chunks can be copied whole: the pointer and every stride but the innermost, along axes of
// more than one element, are multiples of 16 bytes.
inline bool whole_chunks(const void* data, size_t element_bytes, const int64_t* sizes,
                         const int64_t* strides, int axes) {
  bool whole = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  for (int axis = 0; axis < axes; ++axis)
    whole = whole && (sizes[axis] == 1 || strides[axis] * element_bytes % 16 == 0);
  return whole;
}

// Calls function(value) with a value of the type that the tensor cores multiply; float stands for
// tf32.
template <class Function>
auto dispatch_operand(DType dtype, Function&& function) {
  if (dtype == DType::float16) return function(float16{});
  if (dtype == DType::bfloat16) return function(bfloat16{});
  return function(float{});
}

}  // namespace pydl::cuda
