// The arithmetic of one hidden unit of one sequence at one step (rnn.h has the equations), for the
// CPU's kernels and CUDA's. A is the type of sums: float or double. What comes in are numbers
// before their activation where they are called x, else after.
#pragma once

#include <cmath>

#include "half.h"

namespace pydl::rnn {

template <class A>
PYDL_HOST_DEVICE A sigmoid(A x) {
  return 1 / (1 + std::exp(-x));
}

// The part of a state that zoneout leaves: `old` is 0 to 1.
template <class A>
PYDL_HOST_DEVICE A zoned(A old, A before, A after) {
  return old * before + (1 - old) * after;
}

// rnn_tanh, rnn_relu

template <class A>
PYDL_HOST_DEVICE A activate(bool relu, A x) {
  // As PyTorch's relu, this lets a NaN through.
  return relu ? (x < 0 ? A(0) : x) : std::tanh(x);
}

template <class A>
PYDL_HOST_DEVICE A activate_backward(bool relu, A dh, A a) {
  return relu ? (a > 0 ? dh : A(0)) : dh * (1 - a * a);
}

// lstm. Peepholes are those of i, f and o; all 0 where there are none.

template <class A>
struct Lstm {
  A i, f, g, o, c;  // c is c' in a forward, the gradient of the old c in a backward
};

template <class A>
PYDL_HOST_DEVICE Lstm<A> lstm(A x_i, A x_f, A x_g, A x_o, A c, const A (&peephole)[3]) {
  Lstm<A> to;
  to.i = sigmoid(x_i + peephole[0] * c);
  to.f = sigmoid(x_f + peephole[1] * c);
  to.g = std::tanh(x_g);
  to.c = to.f * c + to.i * to.g;
  to.o = sigmoid(x_o + peephole[2] * to.c);
  return to;
}

// Of u = o tanh(v), v = c' or its normalised form: the gradients of x_o and of v.
template <class A>
struct LstmOutput {
  A o, v;
};

template <class A>
PYDL_HOST_DEVICE LstmOutput<A> lstm_output_backward(A du, A o, A tanh_v) {
  return {du * tanh_v * o * (1 - o), du * o * (1 - tanh_v * tanh_v)};
}

// dc is the whole gradient of c' but for what comes by way of o's peephole; do_ that of x_o.
template <class A>
PYDL_HOST_DEVICE Lstm<A> lstm_backward(A dc, A do_, A i, A f, A g, A c, const A (&peephole)[3]) {
  dc += do_ * peephole[2];
  Lstm<A> to;
  to.i = dc * g * i * (1 - i);
  to.f = dc * c * f * (1 - f);
  to.g = dc * i * (1 - g * g);
  to.o = do_;
  to.c = dc * f + to.i * peephole[0] + to.f * peephole[1];
  return to;
}

// gru, gru_reset_before. h' of n and z:

template <class A>
PYDL_HOST_DEVICE A gru_state(A z, A n, A h) {
  return (1 - z) * n + z * h;
}

// The gradients of x_n, of x_z and of h as it enters h' beside n.
template <class A>
struct GruState {
  A n, z, h;
};

template <class A>
PYDL_HOST_DEVICE GruState<A> gru_state_backward(A dh, A z, A n, A h) {
  return {dh * (1 - z) * (1 - n * n), dh * (h - n) * z * (1 - z), dh * z};
}

// The gradient of x_r, where that of r is dr.
template <class A>
PYDL_HOST_DEVICE A sigmoid_backward(A dr, A r) {
  return dr * r * (1 - r);
}

}  // namespace pydl::rnn
