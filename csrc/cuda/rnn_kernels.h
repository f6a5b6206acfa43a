// What the recurrent kernels share: a problem as they see it (../rnn.h has the letters), the room
// they compute in, and which file runs what.
//
//   rnn.cu                            checks, the choice of a path, the steps' numbers of sequences
//   rnn_step.cu, _backward.cu         one step after the other: a product and a kernel of rows each
//   rnn_persistent.cu, _backward.cu   one kernel for all steps
//   rnn_cell.cu                       one step after both products
#pragma once

#include <vector>

#include "../rnn.h"
#include "element.h"
#include "rnn_arithmetic.h"

namespace pydl::cuda {

// The tokens of a step, and of the step that it starts from: sequence b there is row
// before_first + b where b < before_count, else it starts from h0 and c0.
struct RnnStep {
  int64_t first, count, before_first, before_count;
};

// The steps in the order of time; made on the host from batch_sizes.
struct RnnSteps {
  std::vector<int64_t> first;  // T + 1
  bool reverse;

  RnnSteps(const Tensor& batch_sizes, int64_t tokens, int64_t sequences, bool reverse);
  int64_t count() const { return static_cast<int64_t>(first.size()) - 1; }
  // The step that the forward pass takes in place `number`.
  RnnStep at(int64_t number) const;
};

// Both passes' operands and what is known of them.
template <class T>
struct RnnProblem {
  using A = accumulate_t<T>;
  const T *weight_hh, *bias_hh, *h0, *c0, *weight_hr, *peephole, *norm, *norm_c, *bias_c, *drop;
  const uint8_t *zone_h, *zone_c;
  A zoneout_h, zoneout_c, eps;
  RnnCell cell;
  int gates;
  int64_t hidden, state, sequences;  // H, P, B

  RnnProblem() = default;
  RnnProblem(const RnnWeights& weights, const RnnKind& kind);

  // How much of the old state is kept.
  __device__ A old_h(int64_t row, int64_t p) const {
    return zone_h == nullptr ? zoneout_h : A(zone_h[row * state + p] != 0);
  }
  __device__ A old_c(int64_t row, int64_t unit) const {
    return zone_c == nullptr ? zoneout_c : A(zone_c[row * hidden + unit] != 0);
  }
  __device__ bool zones_c() const { return zone_c != nullptr || zoneout_c > 0; }
  __device__ A dropped(A h, int64_t b, int64_t p) const {
    return drop == nullptr ? h : h * A(drop[b * state + p]);
  }
  __device__ A bias(int64_t row) const { return bias_hh == nullptr ? A(0) : A(bias_hh[row]); }
  __device__ Peephole<A> peephole_of(int64_t unit) const {
    return rnn::peephole_of<A>(peephole, unit, hidden);
  }
};

template <class T>
RnnProblem<T>::RnnProblem(const RnnWeights& weights, const RnnKind& kind)
    : zone_h(static_cast<const uint8_t*>(weights.zone_h.data)),
      zone_c(static_cast<const uint8_t*>(weights.zone_c.data)),
      zoneout_h(static_cast<A>(kind.zoneout_h)),
      zoneout_c(static_cast<A>(kind.zoneout_c)),
      eps(static_cast<A>(kind.eps)),
      cell(kind.cell),
      gates(gates_of(kind.cell)),
      hidden(weights.weight_hh.size[1] / gates),
      state(weights.weight_hh.size[4]),
      sequences(weights.h0.size[1]) {
  const auto of = [](const Tensor& tensor) { return static_cast<const T*>(tensor.data); };
  weight_hh = of(weights.weight_hh);
  bias_hh = of(weights.bias_hh);
  h0 = of(weights.h0);
  c0 = of(weights.c0);
  weight_hr = of(weights.weight_hr);
  peephole = of(weights.peephole);
  norm = of(weights.norm);
  norm_c = of(weights.norm_c);
  bias_c = of(weights.bias_c);
  drop = of(weights.drop);
}

// The sum over the threads of a block, returned to all of them, always in the same order.
template <class A>
__device__ A block_sum(A value) {
  constexpr int warps = block_size / 32;
  SHARED(A, parts, [warps]);
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  __syncthreads();  // the parts of the sum before are read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  A sum = 0;
  for (int warp = 0; warp < warps; ++warp) sum += parts[warp];
  return sum;
}

template <class A>
struct Moments {
  A mean, rstd;
};

// Of x[0 .. count), by the whole block.
template <class A>
__device__ Moments<A> row_moments(const A* x, int64_t count, A eps) {
  A sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < count; i += block_size) sum += x[i];
  const A mean = block_sum(sum) / count;
  for (int64_t i = threadIdx.x; i < count; i += block_size)
    squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1 / std::sqrt(block_sum(squares) / count + eps)};
}

template <class T>
void rnn_forward_steps(const RnnForward& args, const RnnSteps& steps, int64_t stream);
template <class T>
void rnn_backward_steps(const RnnBackward& args, const RnnSteps& steps, int64_t stream);

// The blocks of a persistent kernel and their shared memory; `reason` is empty, or why it cannot
// be.
struct RnnPlan {
  int64_t units = 0, blocks = 0, shared_bytes = 0;
  std::string reason;
};

// `tensor`: with tensor cores.
template <class T>
RnnPlan rnn_forward_plan(RnnCell cell, int64_t hidden, int64_t sequences, bool tensor);
template <class T>
RnnPlan rnn_backward_plan(RnnCell cell, int64_t hidden, int64_t sequences, bool tensor);
template <class T>
void rnn_forward_persistent(const RnnForward& args, const RnnSteps& steps, const RnnPlan& plan,
                            bool tensor, int64_t stream);
template <class T>
void rnn_backward_persistent(const RnnBackward& args, const RnnSteps& steps, const RnnPlan& plan,
                             bool tensor, int64_t stream);

// The numbers of sequences of the steps, in device memory; none where they are all the same.
struct RnnCounts {
  const int* counts;
  int64_t steps, sequences, tokens;

  __device__ int64_t of(int64_t t) const { return counts == nullptr ? sequences : counts[t]; }
};

// Writes them there, through the arguments of launches: nobody waits, and a graph can record it.
RnnCounts rnn_counts(const RnnSteps& steps, int64_t sequences, int* room, int64_t stream);

// For b < count:
//
//   out[b, j]  = sum over k of weight[j, k] * drop[b, k] * state[b, k]
//   out[b, k]  = sum over j of in[b, j] * weight[j, k]
//   out[b, k] += drop[b, k] * sum over j of in[b, j] * weight[j, k]     where `out` adds
//
// Weights are (rows, columns), and the rows of the others are as far apart as the arguments say.
template <class T, class S>
void rnn_product(const T* weight, int64_t rows, int64_t columns, const S* state, const T* drop,
                 int64_t count, accumulate_t<T>* out, int64_t out_stride, int64_t stream);
template <class T>
void rnn_product_transposed(const T* weight, int64_t rows, int64_t columns,
                            const accumulate_t<T>* in, int64_t in_stride, const T* drop,
                            int64_t count, accumulate_t<T>* out, bool adds, int64_t stream);

}  // namespace pydl::cuda
