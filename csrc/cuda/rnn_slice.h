// A block's slice of a matrix, kept in shared memory while the steps of a sequence go by, and its
// product with the rows of a step.
//
// The slice has `rows` rows of `columns` numbers; a tile of sequences brings as many rows of as
// many numbers each, from global memory, and gets sums[part][sequence][row] in shared memory: parts
// that whoever reads them adds up in ascending order. There are two forms.
//
// With tensor cores (halves, columns a multiple of 8, rows of 16-byte alignment) a tile is 16
// sequences, a of mma_sync, and a warp is a part: it takes every 8th stretch of 32 columns. A lane
// takes 8 neighbours of the reduction, which are 16 bytes of a row, rather than the pairs that the
// two mma_syncs of a stretch name: any order will do that is the same in a and b. So neither
// operand is rearranged, the slice lies as the lanes load it, and each number of a tile is loaded
// from L2 once per block.
//
// Else a tile is 8 sequences, which go through shared memory in stretches of 128 columns. A thread
// owns a row and a part, one of every parts(rows) columns; neighbouring threads have neighbouring
// rows.
#pragma once

#include "rnn_kernels.h"

namespace pydl::cuda {

constexpr int rnn_warps = block_size / 32;
constexpr int rnn_stretch = 128;

template <class T, bool tensor>
struct RnnSlice {
  using A = accumulate_t<T>;
  static constexpr int tile = tensor ? 16 : 8;  // sequences
  int rows, columns;
  uint4* shared;

  // Bytes of shared memory: of the slice; of the sums of a tile and of what it goes through.
  PYDL_HOST_DEVICE static int64_t bytes(int64_t rows, int64_t columns) {
    if (tensor) return (rows + 7) / 8 * ((columns + 31) / 32) * 32 * int64_t{sizeof(uint4)};
    return (rows * columns * int64_t{sizeof(T)} + 15) / 16 * 16;
  }
  PYDL_HOST_DEVICE static int parts(int64_t rows) {
    return tensor ? rnn_warps : static_cast<int>(block_size / rows);
  }
  PYDL_HOST_DEVICE static int64_t padded(int64_t rows) {
    return tensor ? (rows + 7) / 8 * 8 : rows;
  }
  PYDL_HOST_DEVICE static int64_t sums_bytes(int64_t rows) {
    return (parts(rows) * tile * padded(rows) * int64_t{sizeof(A)} + 15) / 16 * 16;
  }
  static constexpr int64_t stage_bytes = tensor ? 0 : tile * rnn_stretch * int64_t{sizeof(A)};

  // Fills the slice with value(row, column).
  template <class Value>
  __device__ void load(const Value& value) {
    if constexpr (tensor) {
      const int groups = (rows + 7) / 8, stretches = (columns + 31) / 32;
      for (int i = threadIdx.x; i < stretches * groups * 32; i += block_size) {
        const int row = i / 32 % groups * 8 + i % 32 / 4;
        const int column = i / 32 / groups * 32 + i % 4 * 8;
        T eight[8];
        UNROLLED for (int j = 0; j < 8; ++j) {
          eight[j] = row < rows && column < columns ? value(row, column + j) : T(0.0f);
        }
        std::memcpy(&shared[i], eight, sizeof eight);
      }
    } else {
      T* to = reinterpret_cast<T*>(shared);
      for (int i = threadIdx.x; i < rows * columns; i += block_size)
        to[i] = value(i % rows, i / rows);
    }
  }

  // of(s) is where the row of the tile's sequence s begins, null for one that is not there. All
  // threads of the block call; afterwards all sums are there for all.
  template <class Of>
  __device__ void multiply(const Of& of, A* stage, A* sums) const {
    if constexpr (tensor)
      multiply_tensor(of, sums);
    else
      multiply_plain(of, stage, sums);
    __syncthreads();
  }

  __device__ A sum(const A* sums, int s, int row) const {
    A sum = 0;
    for (int part = 0; part < parts(rows); ++part)
      sum += sums[(part * tile + s) * static_cast<int>(padded(rows)) + row];
    return sum;
  }

 private:
  template <class Of>
  __device__ void multiply_tensor(const Of& of, float* sums) const {
    constexpr int together = 4;  // groups of 8 rows
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, at = lane % 4 * 8;
    const int groups = (rows + 7) / 8, stretches = (columns + 31) / 32;
    const T *upper = of(lane / 4), *lower = of(lane / 4 + 8);
    const auto chunk = [&](const T* row, int column) {
      return row != nullptr && column < columns ? *reinterpret_cast<const uint4*>(row + column)
                                                : make_uint4(0, 0, 0, 0);
    };
    ROLLED for (int group = 0; group < groups; group += together) {
      float c[together][4] = {};
      for (int stretch = warp; stretch < stretches; stretch += rnn_warps) {
        const uint4 u = chunk(upper, stretch * 32 + at), l = chunk(lower, stretch * 32 + at);
        const uint32_t first[4] = {u.x, l.x, u.y, l.y}, second[4] = {u.z, l.z, u.w, l.w};
        UNROLLED for (int i = 0; i < together; ++i) {
          if (group + i >= groups) continue;
          const uint4 w = shared[(stretch * groups + group + i) * 32 + lane];
          const uint32_t w_first[2] = {w.x, w.y}, w_second[2] = {w.z, w.w};
          mma_sync<T>(c[i], first, w_first);
          mma_sync<T>(c[i], second, w_second);
        }
      }
      UNROLLED for (int i = 0; i < together; ++i) {
        if (group + i >= groups) continue;
        for (int half = 0; half < 2; ++half) {
          float* to = sums + (warp * tile + half * 8 + lane / 4) * groups * 8 + (group + i) * 8 +
                      lane % 4 * 2;
          *reinterpret_cast<float2*>(to) = make_float2(c[i][half * 2], c[i][half * 2 + 1]);
        }
      }
    }
  }

  template <class Of>
  __device__ void multiply_plain(const Of& of, A* stage, A* sums) const {
    const T* weights = reinterpret_cast<const T*>(shared);
    const int row = threadIdx.x % rows, part = threadIdx.x / rows;
    A own[tile] = {};
    for (int from = 0; from < columns; from += rnn_stretch) {
      for (int i = threadIdx.x; i < tile * rnn_stretch; i += block_size) {
        const T* source = of(i / rnn_stretch);
        const int column = from + i % rnn_stretch;
        stage[i] = source != nullptr && column < columns ? A(source[column]) : A(0);
      }
      __syncthreads();
      const int count = columns - from < rnn_stretch ? columns - from : rnn_stretch;
      if (part < parts(rows)) {
        for (int k = part; k < count; k += parts(rows)) {
          const A w = A(weights[(from + k) * rows + row]);
          UNROLLED for (int s = 0; s < tile; ++s) own[s] += w * stage[s * rnn_stretch + k];
        }
      }
      __syncthreads();  // the stage is read
    }
    if (part < parts(rows)) {
      UNROLLED for (int s = 0; s < tile; ++s) sums[(part * tile + s) * rows + row] = own[s];
    }
  }
};

// The smallest slices (of a number of units that `step` divides) of which the device holds one
// block each at once. bytes(units) is what a block of that many wants.
template <class Kernel, class Bytes>
RnnPlan rnn_plan(Kernel kernel, int64_t hidden, int64_t step, int64_t rows_a_unit,
                 const Bytes& bytes) {
  const int64_t room = max_shared_bytes(), blocks = resident_blocks(kernel, block_size, room);
  RnnPlan plan;
  if (blocks == 0) {
    plan.reason = "the device holds no block of the kernel";
    return plan;
  }
  plan.units = blocks_for(blocks_for(hidden, blocks), step) * step;
  plan.blocks = blocks_for(hidden, plan.units);
  plan.shared_bytes = bytes(plan.units);
  std::ostringstream why;
  why << blocks << " blocks of " << plan.units << " units ";
  if (plan.units * rows_a_unit > block_size) {
    why << "have more rows than threads";
    plan.reason = why.str();
  } else if (plan.shared_bytes > room) {
    why << "want " << plan.shared_bytes << " bytes of shared memory each, the device has " << room;
    plan.reason = why.str();
  }
  return plan;
}

}  // namespace pydl::cuda
