// A recurrent layer forward, step by step: two launches per step (three where h is projected, four
// in a GRU that resets before its product), which serve every cell and option.
//
// The product p of a step goes to `work`, in the type of sums. Then a block takes a sequence's
// whole row, so that it can normalise it, and its threads every 256th unit. h_n and c (`work`) hold
// the current states and are what the next step reads. Least traffic of a step: weight_hh, once for
// 8 sequences from L2 or memory; p written and read.
#include "rnn_kernels.h"

namespace pydl::cuda {
namespace {

template <class T>
struct Forward : RnnProblem<T> {
  using A = accumulate_t<T>;
  const T* x;
  T *y, *h_n, *c_n;
  A *kept_c, *rstd;
  T *activated, *normalised, *unprojected;
  A *products, *side, *c;  // in work: (B, G H), (B, H), (B, H)

  explicit Forward(const RnnForward& args) : RnnProblem<T>(args.weights, args.kind) {
    x = static_cast<const T*>(args.gates.data);
    y = static_cast<T*>(args.y.data);
    h_n = static_cast<T*>(args.h_n.data);
    c_n = static_cast<T*>(args.c_n.data);
    kept_c = static_cast<A*>(args.saved.c.data);
    rstd = static_cast<A*>(args.saved.rstd.data);
    activated = static_cast<T*>(args.saved.activated.data);
    normalised = static_cast<T*>(args.saved.normalised.data);
    unprojected = static_cast<T*>(args.saved.unprojected.data);
    products = static_cast<A*>(args.work.data);
    side = products + this->sequences * this->gates * this->hidden;
    c = side + this->sequences * this->hidden;
  }

  // The new state of a sequence from h' and the old one.
  __device__ void step_h(int64_t row, int64_t b, int64_t p, A next) const {
    const int64_t at = b * this->state + p;
    const A old = this->old_h(row, p);
    if (old != 0) next = rnn::zoned(old, A(h_n[at]), next);
    h_n[at] = y[row * this->state + p] = T(next);
  }
};

template <class T>
__global__ void begin(Forward<T> f) {
  using A = accumulate_t<T>;
  const int64_t i = thread_number();
  if (i < f.sequences * f.state) f.h_n[i] = f.h0[i];
  if (f.c0 != nullptr && i < f.sequences * f.hidden) f.c[i] = A(f.c0[i]);
}

template <class T>
__global__ void end(Forward<T> f) {
  const int64_t i = thread_number();
  if (i < f.sequences * f.hidden) f.c_n[i] = T(f.c[i]);
}

// Makes q from p in place, for the gates first to last of sequence b.
template <class T>
__device__ void finish_products(const Forward<T>& f, int64_t row, int64_t b, int first, int last) {
  using A = accumulate_t<T>;
  const int64_t from = first * f.hidden, count = (last - first) * f.hidden;
  const int64_t columns = f.gates * f.hidden;
  A* p = f.products + b * columns + from;
  if (f.norm == nullptr) {
    for (int64_t i = threadIdx.x; i < count; i += block_size) p[i] += f.bias(from + i);
  } else {
    const Moments<A> its = row_moments(p, count, f.eps);
    for (int64_t i = threadIdx.x; i < count; i += block_size) {
      const A hat = (p[i] - its.mean) * its.rstd;
      if (f.normalised != nullptr) f.normalised[row * columns + from + i] = T(hat);
      p[i] = hat * A(f.norm[from + i]) + f.bias(from + i);
    }
    const int groups = f.gates == 3 ? 2 : 1;
    if (f.rstd != nullptr && threadIdx.x == 0) f.rstd[row * groups + (first == 2)] = its.rstd;
  }
  __syncthreads();
}

template <class T>
__device__ void lstm_row(const Forward<T>& f, int64_t row, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden;
  A* q = f.products + b * 4 * H;
  const T* x = f.x + row * 4 * H;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const auto input = [&](int gate) { return A(x[gate * H + unit]) + q[gate * H + unit]; };
    A* c = f.c + b * H + unit;
    LstmGates<A> now = {input(0), input(1), input(2), input(3)};
    const A c_next = rnn::lstm(now, f.peephole_of(unit), *c);
    if (f.activated != nullptr) {
      T* to = f.activated + row * 4 * H + unit;
      to[0] = T(now.i), to[H] = T(now.f), to[2 * H] = T(now.g), to[3 * H] = T(now.o);
    }
    // The unit's products are read; their places keep c' and o.
    q[unit] = c_next;
    q[H + unit] = now.o;
    const A old = f.old_c(row, unit), next = old != 0 ? rnn::zoned(old, *c, c_next) : c_next;
    *c = next;
    if (f.kept_c != nullptr) f.kept_c[row * H + unit] = next;
  }
  Moments<A> its = {};
  if (f.norm_c != nullptr) {
    __syncthreads();
    its = row_moments(q, H, f.eps);
  }
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    A shown = q[unit];
    if (f.norm_c != nullptr)
      shown = (shown - its.mean) * its.rstd * A(f.norm_c[unit]) + A(f.bias_c[unit]);
    const A u = q[H + unit] * std::tanh(shown);
    if (f.weight_hr == nullptr) {
      f.step_h(row, b, unit, u);
      continue;
    }
    f.side[b * H + unit] = u;
    if (f.unprojected != nullptr) f.unprojected[row * H + unit] = T(u);
  }
}

template <class T>
__device__ void gru_row(const Forward<T>& f, int64_t row, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden;
  const A* q = f.products + b * 3 * H;
  const T* x = f.x + row * 3 * H;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A r = rnn::sigmoid(A(x[unit]) + q[unit]);
    const A z = rnn::sigmoid(A(x[H + unit]) + q[H + unit]);
    const A q_n = q[2 * H + unit], n = std::tanh(A(x[2 * H + unit]) + r * q_n);
    if (f.activated != nullptr) {
      T* to = f.activated + row * 4 * H + unit;
      to[0] = T(r), to[H] = T(z), to[2 * H] = T(n), to[3 * H] = T(q_n);
    }
    f.step_h(row, b, unit, gru_mix(z, n, A(f.h_n[b * H + unit])));
  }
}

// The first half of a step of gru_reset_before: r and z, and what n's product is of.
template <class T>
__device__ void reset_row(const Forward<T>& f, int64_t row, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden;
  A* q = f.products + b * 3 * H;
  const T* x = f.x + row * 3 * H;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A r = rnn::sigmoid(A(x[unit]) + q[unit]);
    const A z = rnn::sigmoid(A(x[H + unit]) + q[H + unit]);
    if (f.activated != nullptr) {
      T* to = f.activated + row * 3 * H + unit;
      to[0] = T(r), to[H] = T(z);
    }
    q[H + unit] = z;
    f.side[b * H + unit] = r * f.dropped(A(f.h_n[b * H + unit]), b, unit);
  }
}

template <class T>
__device__ void after_reset_row(const Forward<T>& f, int64_t row, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden;
  const A* q = f.products + b * 3 * H;
  const T* x = f.x + row * 3 * H;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A z = q[H + unit], n = std::tanh(A(x[2 * H + unit]) + q[2 * H + unit]);
    if (f.activated != nullptr) f.activated[row * 3 * H + 2 * H + unit] = T(n);
    f.step_h(row, b, unit, gru_mix(z, n, A(f.h_n[b * H + unit])));
  }
}

template <class T>
__device__ void simple_row(const Forward<T>& f, int64_t row, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A x = A(f.x[row * H + unit]) + f.products[b * H + unit];
    const A a = rnn::activate(f.cell, x);
    if (f.activated != nullptr) f.activated[row * H + unit] = T(a);
    f.step_h(row, b, unit, a);
  }
}

// One step of one sequence per block, after the product; half 1 is what follows the second product
// of gru_reset_before.
template <class T>
__global__ void rows(Forward<T> f, int64_t first, int half) {
  const int64_t b = blockIdx.x, row = first + b;
  if (f.cell == RnnCell::gru_reset_before) {
    finish_products(f, row, b, half == 0 ? 0 : 2, half == 0 ? 2 : 3);
    if (half == 0)
      reset_row(f, row, b);
    else
      after_reset_row(f, row, b);
    return;
  }
  if (f.cell == RnnCell::gru) {
    finish_products(f, row, b, 0, 2);
    finish_products(f, row, b, 2, 3);
    gru_row(f, row, b);
    return;
  }
  finish_products(f, row, b, 0, f.gates);
  if (f.cell == RnnCell::lstm)
    lstm_row(f, row, b);
  else
    simple_row(f, row, b);
}

template <class T>
__global__ void projected(Forward<T> f, int64_t first, int64_t count) {
  int64_t b = thread_number();
  const int64_t p = take(b, f.state);
  if (b < count) f.step_h(first + b, b, p, f.products[b * f.state + p]);
}

}  // namespace

template <class T>
void rnn_forward_steps(const RnnForward& args, const RnnSteps& steps, int64_t stream) {
  using A = accumulate_t<T>;
  const Forward<T> f(args);
  const int64_t H = f.hidden, P = f.state, columns = f.gates * H;
  launch(begin<T>, blocks_for(f.sequences * H), block_size, 0, stream, f);
  for (int64_t number = 0; number < steps.count(); ++number) {
    const auto [first, count, before_first, before_count] = steps.at(number);
    if (count == 0) continue;
    const bool resets = f.cell == RnnCell::gru_reset_before;
    rnn_product<T, T>(f.weight_hh, resets ? 2 * H : columns, P, f.h_n, f.drop, count, f.products,
                      columns, stream);
    launch(rows<T>, count, block_size, 0, stream, f, first, 0);
    if (resets) {
      rnn_product<T, A>(f.weight_hh + 2 * H * P, H, P, f.side, nullptr, count, f.products + 2 * H,
                        columns, stream);
      launch(rows<T>, count, block_size, 0, stream, f, first, 1);
    }
    if (f.weight_hr != nullptr) {
      rnn_product<T, A>(f.weight_hr, P, H, f.side, nullptr, count, f.products, P, stream);
      launch(projected<T>, blocks_for(count * P), block_size, 0, stream, f, first, count);
    }
  }
  if (f.c0 != nullptr) launch(end<T>, blocks_for(f.sequences * H), block_size, 0, stream, f);
}

template void rnn_forward_steps<float>(const RnnForward&, const RnnSteps&, int64_t);
template void rnn_forward_steps<double>(const RnnForward&, const RnnSteps&, int64_t);
template void rnn_forward_steps<float16>(const RnnForward&, const RnnSteps&, int64_t);
template void rnn_forward_steps<bfloat16>(const RnnForward&, const RnnSteps&, int64_t);

}  // namespace pydl::cuda
