// The gradient of a recurrent layer, step by step from the last to the first: a kernel of rows,
// which makes the gradients of the gates from that of h, and a product, which makes from them that
// of the step before; one or two launches more where h is projected or a GRU resets before its
// product.
//
// A block takes a sequence's whole row, its threads every 256th unit. `work` holds, in the type of
// sums, the gradients of the states and of p, and for each sequence what adds up over its tokens;
// the sequences are joined at the end in ascending order.
#include "rnn_kernels.h"

namespace pydl::cuda {
namespace {

template <class T>
struct Backward : RnnProblem<T> {
  using A = accumulate_t<T>;
  const T *grad_y, *grad_h_n, *grad_c_n, *y, *activated, *normalised;
  const A *kept_c, *rstd;
  T *grad_gates, *grad_products, *grad_projected, *grad_h0, *grad_c0;
  A *grad_peephole, *grad_norm, *grad_norm_c;
  // In work. What the letters are of: the states, p; a row of H numbers; what adds up.
  A *dh, *dc, *dp, *side, *down, *of_peephole, *of_norm, *of_norm_c;

  explicit Backward(const RnnBackward& args) : RnnProblem<T>(args.weights, args.kind) {
    const auto read = [](const Tensor& tensor) { return static_cast<const T*>(tensor.data); };
    const auto written = [](const Tensor& tensor) { return static_cast<T*>(tensor.data); };
    const auto sums = [](const Tensor& tensor) { return static_cast<A*>(tensor.data); };
    grad_y = read(args.grad_y);
    grad_h_n = read(args.grad_h_n);
    grad_c_n = read(args.grad_c_n);
    y = read(args.y);
    activated = read(args.saved.activated);
    normalised = read(args.saved.normalised);
    kept_c = sums(args.saved.c);
    rstd = sums(args.saved.rstd);
    grad_gates = written(args.grad_gates);
    grad_products = written(args.grad_products);
    grad_projected = written(args.grad_projected);
    grad_h0 = written(args.grad_h0);
    grad_c0 = written(args.grad_c0);
    grad_peephole = sums(args.grad_peephole);
    grad_norm = sums(args.grad_norm);
    grad_norm_c = sums(args.grad_norm_c);
    A* room = sums(args.work);
    const auto take_rows = [&](int64_t columns) {
      A* const rows = room;
      room += this->sequences * columns;
      return rows;
    };
    const int64_t H = this->hidden;
    dp = take_rows(this->gates * H);
    dh = take_rows(H);
    dc = take_rows(H);
    side = take_rows(H);
    down = take_rows(H);
    of_peephole = this->peephole == nullptr ? nullptr : take_rows(3 * H);
    of_norm = this->norm == nullptr ? nullptr : take_rows(2 * this->gates * H);
    of_norm_c = this->norm_c == nullptr ? nullptr : take_rows(2 * H);
  }
};

template <class T>
__global__ void begin(Backward<T> f, int64_t sums_a_sequence) {
  using A = accumulate_t<T>;
  const int64_t i = thread_number();
  if (i < f.sequences * f.state) f.dh[i] = f.grad_h_n == nullptr ? A(0) : A(f.grad_h_n[i]);
  if (i < f.sequences * f.hidden) f.dc[i] = f.grad_c_n == nullptr ? A(0) : A(f.grad_c_n[i]);
  // What adds up lies behind `down`.
  if (i < f.sequences * sums_a_sequence) f.down[f.sequences * f.hidden + i] = 0;
}

template <class T>
__global__ void end(Backward<T> f) {
  const int64_t i = thread_number();
  if (i < f.sequences * f.state) f.grad_h0[i] = T(f.dh[i]);
  if (f.c0 != nullptr && i < f.sequences * f.hidden) f.grad_c0[i] = T(f.dc[i]);
}

template <class A>
__global__ void join(const A* rows, A* out, int64_t count, int64_t columns) {
  const int64_t i = thread_number();
  if (i >= columns) return;
  A sum = 0;
  for (int64_t b = 0; b < count; ++b) sum += rows[b * columns + i];
  out[i] = sum;
}

// The gradient of h', of that of y and of what later steps brought; dh keeps the part that zoneout
// hands on to the old h.
template <class T>
__device__ accumulate_t<T> take_dh(const Backward<T>& f, int64_t row, int64_t b, int64_t p) {
  using A = accumulate_t<T>;
  A& kept = f.dh[b * f.state + p];
  A dh = kept;
  if (f.grad_y != nullptr) dh += A(f.grad_y[row * f.state + p]);
  const A old = f.old_h(row, p);
  kept = old != 0 ? old * dh : A(0);
  return old != 0 ? (1 - old) * dh : dh;
}

template <class T>
__device__ accumulate_t<T> h_before(const Backward<T>& f, const RnnStep& step, int64_t b,
                                    int64_t p) {
  using A = accumulate_t<T>;
  if (b < step.before_count) return A(f.y[(step.before_first + b) * f.state + p]);
  return A(f.h0[b * f.state + p]);
}

template <class T>
__device__ accumulate_t<T> c_before(const Backward<T>& f, const RnnStep& step, int64_t b,
                                    int64_t unit) {
  using A = accumulate_t<T>;
  if (b < step.before_count) return f.kept_c[(step.before_first + b) * f.hidden + unit];
  return A(f.c0[b * f.hidden + unit]);
}

template <class T>
__global__ void projected(Backward<T> f, RnnStep step) {
  int64_t b = thread_number();
  const int64_t p = take(b, f.state);
  if (b >= step.count) return;
  const accumulate_t<T> dh = take_dh(f, step.first + b, b, p);
  f.grad_projected[(step.first + b) * f.state + p] = T(dh);
  f.down[b * f.state + p] = dh;
}

// For dq of the gates first to last of a sequence in dp, where the products are normalised: that of
// p in its place, and what it adds to the gradients of norm and bias. Stores it.
template <class T>
__device__ void through_norm(const Backward<T>& f, int64_t row, int64_t b, int first, int last) {
  using A = accumulate_t<T>;
  if (f.norm == nullptr) return;
  const int64_t from = first * f.hidden, count = (last - first) * f.hidden;
  const int64_t columns = f.gates * f.hidden;
  A* dp = f.dp + b * columns + from;
  const T* hats = f.normalised + row * columns + from;
  A* of_gain = f.of_norm + b * 2 * columns + from;
  __syncthreads();  // dq is written
  A sum = 0, along = 0;
  for (int64_t i = threadIdx.x; i < count; i += block_size) {
    const A dq = dp[i], hat = A(hats[i]), d = dq * A(f.norm[from + i]);
    of_gain[i] += dq * hat;
    of_gain[columns + i] += dq;
    dp[i] = d;
    sum += d;
    along += d * hat;
  }
  const A mean = block_sum(sum) / count;
  along = block_sum(along) / count;
  const A rstd = f.rstd[row * (f.gates == 3 ? 2 : 1) + (first == 2)];
  for (int64_t i = threadIdx.x; i < count; i += block_size) {
    const A d = rstd * (dp[i] - mean - A(hats[i]) * along);
    dp[i] = d;
    f.grad_products[row * columns + from + i] = T(d);
  }
}

template <class T>
__device__ void lstm_row(const Backward<T>& f, const RnnStep& step, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden, row = step.first + b;
  const T* gates = f.activated + row * 4 * H;
  A* dp = f.dp + b * 4 * H;
  const auto c_next = [&](int64_t unit) {
    if (!f.zones_c()) return f.kept_c[row * H + unit];
    return A(gates[H + unit]) * c_before(f, step, b, unit) +
           A(gates[unit]) * A(gates[2 * H + unit]);
  };
  Moments<A> its = {};
  A mean = 0, along = 0;
  if (f.norm_c != nullptr) {
    for (int64_t unit = threadIdx.x; unit < H; unit += block_size) dp[unit] = c_next(unit);
    __syncthreads();
    its = row_moments(dp, H, f.eps);
    __syncthreads();
  }
  // dp keeps the gradient of u times tanh(v), for o, and that of v, c' or the normalised one.
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A du = f.weight_hr == nullptr ? take_dh(f, row, b, unit) : f.side[b * H + unit];
    A shown = c_next(unit), hat = 0;
    if (f.norm_c != nullptr) {
      hat = (shown - its.mean) * its.rstd;
      shown = hat * A(f.norm_c[unit]) + A(f.bias_c[unit]);
    }
    const A o = A(gates[3 * H + unit]), v = std::tanh(shown);
    A dv = du * o * (1 - v * v);
    if (f.norm_c != nullptr) {
      f.of_norm_c[b * 2 * H + unit] += dv * hat;
      f.of_norm_c[b * 2 * H + H + unit] += dv;
      dv *= A(f.norm_c[unit]);
      mean += dv;
      along += dv * hat;
    }
    dp[unit] = dv;
    dp[3 * H + unit] = du * v;
  }
  if (f.norm_c != nullptr) {
    mean = block_sum(mean) / H;
    along = block_sum(along) / H;
  }
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const LstmGates<A> now = {A(gates[unit]), A(gates[H + unit]), A(gates[2 * H + unit]),
                              A(gates[3 * H + unit])};
    const A c = c_before(f, step, b, unit), next = c_next(unit);
    A through = dp[unit];
    if (f.norm_c != nullptr)
      through = its.rstd * (through - mean - (next - its.mean) * its.rstd * along);
    A* dc = f.dc + b * H + unit;
    const A old = f.old_c(row, unit), kept = old != 0 ? old * *dc : A(0);
    const A onward = old != 0 ? (1 - old) * *dc : *dc;
    LstmGates<A> d;
    *dc =
        kept + lstm_grad<true>(now, f.peephole_of(unit), c, dp[3 * H + unit], onward + through, d);
    T* to = f.grad_gates + row * 4 * H + unit;
    dp[unit] = d.i, dp[H + unit] = d.f, dp[2 * H + unit] = d.g, dp[3 * H + unit] = d.o;
    to[0] = T(d.i), to[H] = T(d.f), to[2 * H] = T(d.g), to[3 * H] = T(d.o);
    if (f.of_peephole == nullptr) continue;
    A* of = f.of_peephole + b * 3 * H + unit;
    of[0] += d.i * c;
    of[H] += d.f * c;
    of[2 * H] += d.o * next;
  }
  through_norm(f, row, b, 0, 4);
}

// n and z of both GRUs; of gru r as well. dp's part of r is dn where r waits for the second half.
template <class T>
__device__ void gru_row(const Backward<T>& f, const RnnStep& step, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden, row = step.first + b;
  const bool resets = f.cell == RnnCell::gru_reset_before;
  const T* gates = f.activated + row * (resets ? 3 : 4) * H;
  A* dp = f.dp + b * 3 * H;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A dh = take_dh(f, row, b, unit), r = A(gates[unit]);
    const rnn::GruGrad<A> d = rnn::gru_backward(dh, A(gates[H + unit]), A(gates[2 * H + unit]),
                                                h_before(f, step, b, unit));
    f.dh[b * H + unit] += d.h;
    T* to = f.grad_gates + row * 3 * H + unit;
    to[H] = T(d.z), to[2 * H] = T(d.n);
    dp[H + unit] = d.z;
    dp[2 * H + unit] = resets ? d.n : d.n * r;
    if (resets) continue;
    const A dr = rnn::sigmoid_backward(d.n * A(gates[3 * H + unit]), r);
    to[0] = T(dr);
    dp[unit] = dr;
    if (f.norm == nullptr) f.grad_products[row * H + unit] = T(d.n * r);
  }
  if (!resets) through_norm(f, row, b, 0, 2);
  through_norm(f, row, b, 2, 3);
}

// The second half of gru_reset_before, where the gradient of r * h * drop is known.
template <class T>
__device__ void reset_row(const Backward<T>& f, const RnnStep& step, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden, row = step.first + b;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A r = A(f.activated[row * 3 * H + unit]), d = f.side[b * H + unit];
    const A h = f.dropped(h_before(f, step, b, unit), b, unit);
    const A dr = rnn::sigmoid_backward(d * h, r);
    f.dp[b * 3 * H + unit] = dr;
    f.grad_gates[row * 3 * H + unit] = T(dr);
    f.dh[b * H + unit] += f.dropped(d * r, b, unit);
  }
  through_norm(f, row, b, 0, 2);
}

template <class T>
__device__ void simple_row(const Backward<T>& f, const RnnStep& step, int64_t b) {
  using A = accumulate_t<T>;
  const int64_t H = f.hidden, row = step.first + b;
  for (int64_t unit = threadIdx.x; unit < H; unit += block_size) {
    const A d =
        rnn::activate_backward(f.cell, take_dh(f, row, b, unit), A(f.activated[row * H + unit]));
    f.dp[b * H + unit] = d;
    f.grad_gates[row * H + unit] = T(d);
  }
  through_norm(f, row, b, 0, 1);
}

template <class T>
__global__ void rows(Backward<T> f, RnnStep step, int half) {
  const int64_t b = blockIdx.x;
  if (half == 1)
    reset_row(f, step, b);
  else if (f.cell == RnnCell::lstm)
    lstm_row(f, step, b);
  else if (f.gates == 3)
    gru_row(f, step, b);
  else
    simple_row(f, step, b);
}

}  // namespace

template <class T>
void rnn_backward_steps(const RnnBackward& args, const RnnSteps& steps, int64_t stream) {
  using A = accumulate_t<T>;
  const Backward<T> f(args);
  const int64_t H = f.hidden, P = f.state, columns = f.gates * H, B = f.sequences;
  const int64_t adds = (f.of_peephole == nullptr ? 0 : 3 * H) +
                       (f.of_norm == nullptr ? 0 : 2 * columns) +
                       (f.of_norm_c == nullptr ? 0 : 2 * H);
  launch(begin<T>, blocks_for(B * (H > adds ? H : adds)), block_size, 0, stream, f, adds);
  for (int64_t number = steps.count() - 1; number >= 0; --number) {
    const RnnStep step = steps.at(number);
    if (step.count == 0) continue;
    if (f.weight_hr != nullptr) {
      launch(projected<T>, blocks_for(step.count * P), block_size, 0, stream, f, step);
      rnn_product_transposed<T>(f.weight_hr, P, H, f.down, P, nullptr, step.count, f.side, false,
                                stream);
    }
    launch(rows<T>, step.count, block_size, 0, stream, f, step, 0);
    const bool resets = f.cell == RnnCell::gru_reset_before;
    if (resets) {
      rnn_product_transposed<T>(f.weight_hh + 2 * H * P, H, P, f.dp + 2 * H, columns, nullptr,
                                step.count, f.side, false, stream);
      launch(rows<T>, step.count, block_size, 0, stream, f, step, 1);
    }
    rnn_product_transposed<T>(f.weight_hh, resets ? 2 * H : columns, P, f.dp, columns, f.drop,
                              step.count, f.dh, true, stream);
  }
  launch(end<T>, blocks_for(B * H), block_size, 0, stream, f);
  const auto add_up = [&](const A* rows, A* out, int64_t count) {
    if (rows != nullptr)
      launch(join<A>, blocks_for(count), block_size, 0, stream, rows, out, B, count);
  };
  add_up(f.of_peephole, f.grad_peephole, 3 * H);
  add_up(f.of_norm, f.grad_norm, 2 * columns);
  add_up(f.of_norm_c, f.grad_norm_c, 2 * H);
}

template void rnn_backward_steps<float>(const RnnBackward&, const RnnSteps&, int64_t);
template void rnn_backward_steps<double>(const RnnBackward&, const RnnSteps&, int64_t);
template void rnn_backward_steps<float16>(const RnnBackward&, const RnnSteps&, int64_t);
template void rnn_backward_steps<bfloat16>(const RnnBackward&, const RnnSteps&, int64_t);

}  // namespace pydl::cuda
