// The arithmetic of one hidden unit's gates, of numbers or vectors V: the same source for the CPU's
// kernels and for CUDA's. `Math` has sigmoid(V) and tanh(V). rnn.h has the equations.
#pragma once

#include "half.h"

#if defined(__CUDACC__)
#define PYDL_GATES __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// Vectors wider than the baseline's cannot be arguments of calls.
#define PYDL_GATES [[gnu::always_inline]] inline
#else
#define PYDL_GATES inline
#endif

namespace pydl {

// Both passes of rnn_tanh and rnn_relu; NaN stays NaN.
template <bool is_tanh, class Math, class V>
PYDL_GATES V rnn_act(V x) {
  if constexpr (is_tanh) {
    return Math::tanh(x);
  } else {
    return x <= V{} ? V{} : x;
  }
}

template <bool is_tanh, class V>
PYDL_GATES V rnn_act_grad(V grad, V a) {
  if constexpr (is_tanh) {
    return grad * (1 - a * a);
  } else {
    return a > V{} ? grad : V{};
  }
}

// The sums that gates are functions of, and those after it.
template <class V>
struct LstmGates {
  V i, f, g, o;
};

// What a peephole shows the gates; zeros in LSTMs without any.
template <class V>
struct Peephole {
  V i, f, o;
};

// From sums to i, f, g; c' for the old c.
template <bool peeps, class Math, class V>
PYDL_GATES V lstm_open(LstmGates<V>& gates, const Peephole<V>& peephole, V c) {
  if constexpr (peeps) {
    gates.i += peephole.i * c;
    gates.f += peephole.f * c;
  }
  gates.i = Math::sigmoid(gates.i);
  gates.f = Math::sigmoid(gates.f);
  gates.g = Math::tanh(gates.g);
  return gates.f * c + gates.i * gates.g;
}

// From the sum to o, for c'.
template <bool peeps, class Math, class V>
PYDL_GATES void lstm_shut(LstmGates<V>& gates, const Peephole<V>& peephole, V c_next) {
  if constexpr (peeps) gates.o += peephole.o * c_next;
  gates.o = Math::sigmoid(gates.o);
}

// The gradients of the four sums from that of u (by way of o: grad_u times tanh of what o sees) and
// grad_c, that of c', which takes in what the peephole of o adds; returns that of the old c.
template <bool peeps, class V>
PYDL_GATES V lstm_grad(const LstmGates<V>& gates, const Peephole<V>& peephole, V c, V grad_u_tanh,
                       V grad_c, LstmGates<V>& grad) {
  grad.o = grad_u_tanh * gates.o * (1 - gates.o);
  if constexpr (peeps) grad_c += grad.o * peephole.o;
  grad.i = grad_c * gates.g * gates.i * (1 - gates.i);
  grad.f = grad_c * c * gates.f * (1 - gates.f);
  grad.g = grad_c * gates.i * (1 - gates.g * gates.g);
  V grad_before = grad_c * gates.f;
  if constexpr (peeps) grad_before += grad.i * peephole.i + grad.f * peephole.f;
  return grad_before;
}

// h' for the old h.
template <class V>
PYDL_GATES V gru_mix(V z, V n, V h) {
  return (h - n) * z + n;
}

// The gradients of the sums of z and n from that of h'; what comes to the old h directly is grad z.
template <class V>
PYDL_GATES void gru_grad(V z, V n, V h, V grad, V& grad_z, V& grad_n) {
  grad_z = grad * (h - n) * z * (1 - z);
  grad_n = grad * (1 - z) * (1 - n * n);
}

}  // namespace pydl
