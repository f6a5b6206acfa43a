// The arithmetic of gates as these kernels use it: ../rnn_gates.h for one number, with CUDA's own
// functions. Every LSTM has peepholes here; where it should have none they are 0.
#pragma once

#include <cmath>

#include "../rnn.h"
#include "../rnn_gates.h"
#include "device.h"

namespace pydl::cuda::rnn {

template <class A>
struct Math {
  __device__ static A sigmoid(A x) { return 1 / (1 + std::exp(-x)); }
  __device__ static A tanh(A x) { return std::tanh(x); }
};

template <class A>
__device__ A sigmoid(A x) {
  return Math<A>::sigmoid(x);
}

// The gradient of what r is the sigmoid of.
template <class A>
__device__ A sigmoid_backward(A dr, A r) {
  return dr * r * (1 - r);
}

// A state of which zoneout leaves the part `old`.
template <class A>
__device__ A zoned(A old, A before, A after) {
  return old * before + (1 - old) * after;
}

template <class A>
__device__ A activate(RnnCell cell, A x) {
  return cell == RnnCell::rnn_relu ? rnn_act<false, Math<A>>(x) : rnn_act<true, Math<A>>(x);
}

template <class A>
__device__ A activate_backward(RnnCell cell, A dh, A a) {
  return cell == RnnCell::rnn_relu ? rnn_act_grad<false>(dh, a) : rnn_act_grad<true>(dh, a);
}

template <class A, class T>
__device__ Peephole<A> peephole_of(const T* peephole, int64_t unit, int64_t hidden) {
  if (peephole == nullptr) return {0, 0, 0};
  return {A(peephole[unit]), A(peephole[hidden + unit]), A(peephole[2 * hidden + unit])};
}

// Makes the gates from their sums; returns c'.
template <class A>
__device__ A lstm(LstmGates<A>& gates, const Peephole<A>& peephole, A c) {
  const A next = lstm_open<true, Math<A>>(gates, peephole, c);
  lstm_shut<true, Math<A>>(gates, peephole, next);
  return next;
}

// The gradients of n's and z's sums, and what comes to the old h directly.
template <class A>
struct GruGrad {
  A n, z, h;
};

template <class A>
__device__ GruGrad<A> gru_backward(A dh, A z, A n, A h) {
  GruGrad<A> grad;
  gru_grad(z, n, h, dh, grad.z, grad.n);
  grad.h = dh * z;
  return grad;
}

}  // namespace pydl::cuda::rnn
