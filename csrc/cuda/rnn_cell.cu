// One step of a recurrent layer after both products, and its gradient: ../rnn.h has the
// definitions.
//
// A thread owns a unit of a sequence, and its neighbours own neighbouring units: everything is read
// once and written once. grad_peephole is added up by one thread per unit, over the sequences in
// ascending order, from the gradients as they were stored.
#include "../rnn_checks.h"
#include "rnn_kernels.h"

namespace pydl::cuda {
namespace {

// Where a thread's unit lies in a row of `gates` numbers per unit.
struct Place {
  int64_t b, unit;
  __device__ Place(int64_t number, int64_t hidden) : b(number), unit(take(b, hidden)) {}
};

template <class T>
const T* read(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data);
}
template <class T>
T* written(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

template <class T>
struct Forward {
  const T *gates, *products, *h, *c, *peephole;
  T *h_next, *c_next, *activated;
  RnnCell cell;
  int64_t rows, hidden;
};

template <class T>
__global__ void forward(Forward<T> f) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number(), H = f.hidden;
  const Place at(number, H);
  if (at.b >= f.rows) return;
  const int gates = gates_of(f.cell);
  const T* x = f.gates + at.b * gates * H + at.unit;
  const T* q = f.products + at.b * gates * H + at.unit;
  T* kept = f.activated == nullptr ? nullptr : f.activated + at.b * kept_of(f.cell) * H + at.unit;
  const auto input = [&](int gate) { return A(x[gate * H]) + A(q[gate * H]); };
  if (f.cell == RnnCell::lstm) {
    LstmGates<A> now = {input(0), input(1), input(2), input(3)};
    const A c = rnn::lstm(now, rnn::peephole_of<A>(f.peephole, at.unit, H), A(f.c[number]));
    f.c_next[number] = T(c);
    f.h_next[number] = T(now.o * std::tanh(c));
    if (kept != nullptr) {
      kept[0] = T(now.i), kept[H] = T(now.f);
      kept[2 * H] = T(now.g), kept[3 * H] = T(now.o);
    }
  } else if (f.cell == RnnCell::gru) {
    const A r = rnn::sigmoid(input(0)), z = rnn::sigmoid(input(1)), q_n = A(q[2 * H]);
    const A n = std::tanh(A(x[2 * H]) + r * q_n);
    f.h_next[number] = T(gru_mix(z, n, A(f.h[number])));
    if (kept != nullptr) {
      kept[0] = T(r), kept[H] = T(z);
      kept[2 * H] = T(n), kept[3 * H] = T(q_n);
    }
  } else {
    const T a = T(rnn::activate(f.cell, input(0)));
    f.h_next[number] = a;
    if (kept != nullptr) kept[0] = a;
  }
}

template <class T>
struct Backward {
  const T *grad_h, *grad_c, *activated, *h, *c, *c_next, *peephole;
  T *grad_gates, *grad_products, *grad_h_before, *grad_c_before;
  RnnCell cell;
  int64_t rows, hidden;
};

template <class T>
__global__ void backward(Backward<T> f) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number(), H = f.hidden;
  const Place at(number, H);
  if (at.b >= f.rows) return;
  const T* a = f.activated + at.b * kept_of(f.cell) * H + at.unit;
  T* dx = f.grad_gates + at.b * gates_of(f.cell) * H + at.unit;
  const A dh = f.grad_h == nullptr ? A(0) : A(f.grad_h[number]);
  if (f.cell == RnnCell::lstm) {
    const A dc = f.grad_c == nullptr ? A(0) : A(f.grad_c[number]);
    const A v = std::tanh(A(f.c_next[number]));
    const LstmGates<A> now = {A(a[0]), A(a[H]), A(a[2 * H]), A(a[3 * H])};
    LstmGates<A> d;
    const A before = lstm_grad<true>(now, rnn::peephole_of<A>(f.peephole, at.unit, H),
                                     A(f.c[number]), dh * v, dc + dh * now.o * (1 - v * v), d);
    dx[0] = T(d.i), dx[H] = T(d.f), dx[2 * H] = T(d.g), dx[3 * H] = T(d.o);
    f.grad_c_before[number] = T(before);
  } else if (f.cell == RnnCell::gru) {
    const A r = A(a[0]);
    const rnn::GruGrad<A> d = rnn::gru_backward(dh, A(a[H]), A(a[2 * H]), A(f.h[number]));
    const A dr = rnn::sigmoid_backward(d.n * A(a[3 * H]), r);
    T* dq = f.grad_products + at.b * 3 * H + at.unit;
    dx[0] = dq[0] = T(dr);
    dx[H] = dq[H] = T(d.z);
    dx[2 * H] = T(d.n);
    dq[2 * H] = T(d.n * r);
    f.grad_h_before[number] = T(d.h);
  } else {
    dx[0] = T(rnn::activate_backward(f.cell, dh, A(a[0])));
  }
}

template <class T>
__global__ void peephole_gradient(Backward<T> f, accumulate_t<T>* grad_peephole) {
  using A = accumulate_t<T>;
  const int64_t unit = thread_number(), H = f.hidden;
  if (unit >= H) return;
  A sums[3] = {};
  for (int64_t b = 0; b < f.rows; ++b) {
    const T* dx = f.grad_gates + b * 4 * H + unit;
    sums[0] += A(dx[0]) * A(f.c[b * H + unit]);
    sums[1] += A(dx[H]) * A(f.c[b * H + unit]);
    sums[2] += A(dx[3 * H]) * A(f.c_next[b * H + unit]);
  }
  for (int i = 0; i < 3; ++i) grad_peephole[i * H + unit] = sums[i];
}

}  // namespace

void rnn_cell_forward(const RnnCellForward& args, int64_t stream) {
  check_rnn_cell(args);
  dispatch_floating(args.gates.dtype, "rnn_cell_forward", [&]<class T>(T) {
    const int64_t rows = args.h_next.size[1], hidden = args.h_next.size[4];
    if (rows * hidden == 0) return;
    const Forward<T> f = {read<T>(args.gates),
                          read<T>(args.products),
                          read<T>(args.h),
                          read<T>(args.c),
                          read<T>(args.peephole),
                          written<T>(args.h_next),
                          written<T>(args.c_next),
                          written<T>(args.activated),
                          args.cell,
                          rows,
                          hidden};
    launch(forward<T>, blocks_for(rows * hidden), block_size, 0, stream, f);
  });
}

void rnn_cell_backward(const RnnCellBackward& args, int64_t stream) {
  check_rnn_cell(args);
  dispatch_floating(args.activated.dtype, "rnn_cell_backward", [&]<class T>(T) {
    using A = accumulate_t<T>;
    const int64_t rows = args.activated.size[1];
    const int64_t hidden = args.activated.size[4] / kept_of(args.cell);
    const Backward<T> f = {read<T>(args.grad_h),
                           read<T>(args.grad_c),
                           read<T>(args.activated),
                           read<T>(args.h),
                           read<T>(args.c),
                           read<T>(args.c_next),
                           read<T>(args.peephole),
                           written<T>(args.grad_gates),
                           written<T>(args.grad_products),
                           written<T>(args.grad_h_before),
                           written<T>(args.grad_c_before),
                           args.cell,
                           rows,
                           hidden};
    if (rows * hidden > 0) launch(backward<T>, blocks_for(rows * hidden), block_size, 0, stream, f);
    if (args.grad_peephole.data != nullptr && hidden > 0)
      launch(peephole_gradient<T>, blocks_for(hidden), block_size, 0, stream, f,
             static_cast<A*>(args.grad_peephole.data));
  });
}

}  // namespace pydl::cuda
