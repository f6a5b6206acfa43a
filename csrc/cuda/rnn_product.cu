// The products of a recurrent layer that goes step by step: few sequences by a whole matrix.
//
// rnn_product: a warp owns a row of the weight and 8 sequences; its lanes go along the row, so that
// loads are whole lines, and the weight is read once for 8 sequences. rnn_product_transposed: a
// block owns 32 columns and 8 sequences; each of its 8 warps takes every 8th row, and their sums
// are added up in shared memory in the order of the warps.
#include "rnn_kernels.h"

namespace pydl::cuda {
namespace {

constexpr int warps = block_size / 32, together = 8;  // sequences

template <class T, class S>
__global__ void product(const T* weight, int64_t rows, int64_t columns, const S* state,
                        const T* drop, int64_t count, accumulate_t<T>* out, int64_t out_stride) {
  using A = accumulate_t<T>;
  const int lane = threadIdx.x % 32;
  int64_t tile = quotient(thread_number(), 32);
  const int64_t j = take(tile, rows), first = tile * together;
  if (first >= count) return;  // the whole warp
  A sums[together] = {};
  for (int64_t k = lane; k < columns; k += 32) {
    const A w = A(weight[j * columns + k]);
    UNROLLED for (int s = 0; s < together; ++s) {
      if (first + s >= count) continue;
      const int64_t at = (first + s) * columns + k;
      const A h = A(state[at]);
      sums[s] += w * (drop == nullptr ? h : h * A(drop[at]));
    }
  }
  UNROLLED for (int s = 0; s < together; ++s) {
    A sum = sums[s];
    for (int distance = 16; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0 && first + s < count) out[(first + s) * out_stride + j] = sum;
  }
}

template <class T>
__global__ void product_transposed(const T* weight, int64_t rows, int64_t columns,
                                   const accumulate_t<T>* in, int64_t in_stride, const T* drop,
                                   int64_t count, accumulate_t<T>* out, bool adds) {
  using A = accumulate_t<T>;
  SHARED(A, parts, [warps][together][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t tile = blockIdx.x;
  const int64_t k = take(tile, quotient(columns + 31, 32)) * 32 + lane, first = tile * together;
  A sums[together] = {};
  if (k < columns) {
    for (int64_t j = warp; j < rows; j += warps) {
      const A w = A(weight[j * columns + k]);
      UNROLLED for (int s = 0; s < together; ++s) {
        if (first + s < count) sums[s] += in[(first + s) * in_stride + j] * w;
      }
    }
  }
  UNROLLED for (int s = 0; s < together; ++s) parts[warp][s][lane] = sums[s];
  __syncthreads();
  // A warp joins the parts of one sequence.
  static_assert(warps == together);
  if (k >= columns || first + warp >= count) return;
  A sum = 0;
  for (int part = 0; part < warps; ++part) sum += parts[part][warp][lane];
  const int64_t at = (first + warp) * columns + k;
  if (!adds)
    out[at] = sum;
  else
    out[at] += drop == nullptr ? sum : sum * A(drop[at]);
}

}  // namespace

template <class T, class S>
void rnn_product(const T* weight, int64_t rows, int64_t columns, const S* state, const T* drop,
                 int64_t count, accumulate_t<T>* out, int64_t out_stride, int64_t stream) {
  const int64_t tiles = rows * blocks_for(count, together);
  launch(product<T, S>, blocks_for(tiles, warps), block_size, 0, stream, weight, rows, columns,
         state, drop, count, out, out_stride);
}

template <class T>
void rnn_product_transposed(const T* weight, int64_t rows, int64_t columns,
                            const accumulate_t<T>* in, int64_t in_stride, const T* drop,
                            int64_t count, accumulate_t<T>* out, bool adds, int64_t stream) {
  launch(product_transposed<T>, blocks_for(columns, 32) * blocks_for(count, together), block_size,
         0, stream, weight, rows, columns, in, in_stride, drop, count, out, adds);
}

#define PYDL_RNN_PRODUCTS(T)                                                                  \
  template void rnn_product_transposed<T>(const T*, int64_t, int64_t, const accumulate_t<T>*, \
                                          int64_t, const T*, int64_t, accumulate_t<T>*, bool, \
                                          int64_t);                                           \
  template void rnn_product<T, accumulate_t<T>>(const T*, int64_t, int64_t,                   \
                                                const accumulate_t<T>*, const T*, int64_t,    \
                                                accumulate_t<T>*, int64_t, int64_t)
PYDL_RNN_PRODUCTS(float);
PYDL_RNN_PRODUCTS(double);
PYDL_RNN_PRODUCTS(float16);
PYDL_RNN_PRODUCTS(bfloat16);
template void rnn_product<float16, float16>(const float16*, int64_t, int64_t, const float16*,
                                            const float16*, int64_t, float*, int64_t, int64_t);
template void rnn_product<bfloat16, bfloat16>(const bfloat16*, int64_t, int64_t, const bfloat16*,
                                              const bfloat16*, int64_t, float*, int64_t, int64_t);
#undef PYDL_RNN_PRODUCTS

}  // namespace pydl::cuda
