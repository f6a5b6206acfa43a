// The gradient of a recurrent layer in one kernel for all steps, for what the forward of
// rnn_persistent.cu serves.
//
// A block owns a run of hidden units: their columns of weight_hh stay in its shared memory
// (rnn_slice.h), and so do the gradients of their h and c of all sequences. A step makes the
// gradients of its units' gates and stores them, which is all that the blocks exchange; then it
// waits for the others and multiplies those of all units, from which it makes the gradient of its
// units' old h. Each step has rows of its own, so one wait per step is enough; gru_reset_before
// waits for the gradients of n before it has those of r, twice in all.
//
// Least traffic of a step: what the forward kept read once, the gradients written once and read
// once per block, from L2. weight_hh is read once in all.
#include "rnn_slice.h"

namespace pydl::cuda {
namespace {

template <class T>
struct Backward : RnnProblem<T> {
  using A = accumulate_t<T>;
  const T *grad_y, *grad_h_n, *grad_c_n, *y, *activated;
  const A* kept_c;
  T *grad_gates, *grad_products, *grad_h0, *grad_c0;
  A* grad_peephole;
  RnnCounts counts;
  bool reverse;
  int units;  // of a block

  explicit Backward(const RnnBackward& args) : RnnProblem<T>(args.weights, args.kind) {
    const auto read = [](const Tensor& tensor) { return static_cast<const T*>(tensor.data); };
    const auto written = [](const Tensor& tensor) { return static_cast<T*>(tensor.data); };
    grad_y = read(args.grad_y);
    grad_h_n = read(args.grad_h_n);
    grad_c_n = read(args.grad_c_n);
    y = read(args.y);
    activated = read(args.saved.activated);
    kept_c = static_cast<const A*>(args.saved.c.data);
    grad_gates = written(args.grad_gates);
    grad_products = written(args.grad_products);
    grad_h0 = written(args.grad_h0);
    grad_c0 = written(args.grad_c0);
    grad_peephole = static_cast<A*>(args.grad_peephole.data);
    reverse = args.kind.reverse;
  }
};

// The numbers of gates whose products are multiplied together, and apart after them.
PYDL_HOST_DEVICE int early_gates(RnnCell cell) { return gates_of(cell) == 3 ? 2 : gates_of(cell); }
PYDL_HOST_DEVICE int late_gates(RnnCell cell) { return gates_of(cell) == 3 ? 1 : 0; }

// The shared memory of a block, part after part.
template <class T, bool tensor>
struct Layout {
  using A = accumulate_t<T>;
  using Slice = RnnSlice<T, tensor>;
  int64_t early, late, sums, stage, state, all;  // where they begin

  PYDL_HOST_DEVICE Layout(RnnCell cell, int64_t units, int64_t hidden, int64_t sequences) {
    early = 0;
    late = early + Slice::bytes(units, early_gates(cell) * hidden);
    sums = late + (late_gates(cell) == 0 ? 0 : Slice::bytes(units, hidden));
    stage = sums + Slice::sums_bytes(units);
    state = stage + Slice::stage_bytes;
    // The gradients of h and, in an LSTM, of c and of three peepholes.
    const int64_t rows = cell == RnnCell::lstm ? 2 * sequences + 3 * Slice::tile : sequences;
    all = state + rows * units * int64_t{sizeof(A)};
  }
};

// What a thread does to one unit of one sequence.
template <class T>
struct Unit {
  using A = accumulate_t<T>;
  const Backward<T>& f;
  RnnStep step;
  int64_t b, unit;
  A *dh, *dc, *of_peephole;  // in shared memory; three peepholes lie `apart`
  int apart;

  __device__ int64_t row() const { return step.first + b; }
  __device__ A kept(int gate) const {
    return A(f.activated[(row() * kept_of(f.cell) + gate) * f.hidden + unit]);
  }
  __device__ void store(int gate, A grad) const {
    f.grad_gates[(row() * f.gates + gate) * f.hidden + unit] = T(grad);
  }
  __device__ A h_before() const {
    if (b < step.before_count) return A(f.y[(step.before_first + b) * f.hidden + unit]);
    return A(f.h0[b * f.hidden + unit]);
  }
  __device__ A c_before() const {
    if (b < step.before_count) return f.kept_c[(step.before_first + b) * f.hidden + unit];
    return A(f.c0[b * f.hidden + unit]);
  }
  // The gradient of h'; leaves in dh what zoneout hands on to the old h.
  __device__ A take_dh() const {
    A grad = *dh;
    if (f.grad_y != nullptr) grad += A(f.grad_y[row() * f.hidden + unit]);
    const A old = f.old_h(row(), unit);
    *dh = old != 0 ? old * grad : A(0);
    return old != 0 ? (1 - old) * grad : grad;
  }

  __device__ void lstm() const {
    const LstmGates<A> now = {kept(0), kept(1), kept(2), kept(3)};
    const A c = c_before();
    const A next = f.zones_c() ? now.f * c + now.i * now.g : f.kept_c[row() * f.hidden + unit];
    const A du = take_dh(), shown = std::tanh(next), old = f.old_c(row(), unit);
    const A handed_on = old != 0 ? old * *dc : A(0), onward = old != 0 ? (1 - old) * *dc : *dc;
    LstmGates<A> d;
    *dc = handed_on + lstm_grad<true>(now, f.peephole_of(unit), c, du * shown,
                                      onward + du * now.o * (1 - shown * shown), d);
    store(0, d.i);
    store(1, d.f);
    store(2, d.g);
    store(3, d.o);
    if (f.grad_peephole == nullptr) return;
    of_peephole[0] += d.i * c;
    of_peephole[apart] += d.f * c;
    of_peephole[2 * apart] += d.o * next;
  }
  __device__ void gru() const {
    const A r = kept(0), z = kept(1), n = kept(2);
    const rnn::GruGrad<A> d = rnn::gru_backward(take_dh(), z, n, h_before());
    *dh += d.h;
    store(1, d.z);
    store(2, d.n);
    if (f.cell == RnnCell::gru_reset_before) return;
    store(0, rnn::sigmoid_backward(d.n * kept(3), r));
    f.grad_products[row() * f.hidden + unit] = T(d.n * r);
  }
  // Where the gradient of r * h * drop is d.
  __device__ void reset(A d) const {
    const A r = kept(0);
    store(0, rnn::sigmoid_backward(d * f.dropped(h_before(), b, unit), r));
    *dh += f.dropped(d * r, b, unit);
  }
  __device__ void simple() const { store(0, rnn::activate_backward(f.cell, take_dh(), kept(0))); }
};

template <class T>
__device__ RnnStep step_of(const Backward<T>& f, int64_t t, int64_t first) {
  const int64_t count = f.counts.of(t);
  if (f.reverse) {
    const int64_t before = t + 1 < f.counts.steps ? f.counts.of(t + 1) : 0;
    return {first, count, first + count, before};
  }
  return {first, count, t > 0 ? first - f.counts.of(t - 1) : 0, t > 0 ? count : 0};
}

template <class T, bool tensor>
__global__ void __launch_bounds__(block_size, 1) backward(Backward<T> f) {
  using A = accumulate_t<T>;
  using Slice = RnnSlice<T, tensor>;
  DYNAMIC_SHARED(uint4, shared);
  const int units = f.units, columns = f.gates * static_cast<int>(f.hidden);
  const int64_t H = f.hidden, first_unit = static_cast<int64_t>(blockIdx.x) * units;
  const int there = static_cast<int>(H - first_unit < units ? H - first_unit : units);
  const Layout<T, tensor> at(f.cell, units, H, f.sequences);
  const auto part = [&](int64_t offset) { return reinterpret_cast<char*>(shared) + offset; };
  const int early_columns = early_gates(f.cell) * static_cast<int>(H);
  Slice early = {units, early_columns, reinterpret_cast<uint4*>(part(at.early))};
  Slice late = {units, static_cast<int>(H), reinterpret_cast<uint4*>(part(at.late))};
  A* sums = reinterpret_cast<A*>(part(at.sums));
  A* stage = reinterpret_cast<A*>(part(at.stage));
  A* dh = reinterpret_cast<A*>(part(at.state));  // (B, units)
  A* dc = dh + f.sequences * units;              // (B, units)
  A* of_peephole = dc + f.sequences * units;     // (3, tile, units)

  const auto weight = [&](int64_t row, int u) {
    return u < there ? f.weight_hh[row * H + first_unit + u] : T(0.0f);
  };
  early.load([&](int u, int column) { return weight(column, u); });
  if (late_gates(f.cell) > 0)
    late.load([&](int u, int column) { return weight(2 * H + column, u); });
  for (int64_t i = threadIdx.x; i < f.sequences * units; i += block_size) {
    const int64_t b = quotient(i, units), from = b * H + first_unit + i - b * units;
    if (i - b * units >= there) continue;
    dh[i] = f.grad_h_n == nullptr ? A(0) : A(f.grad_h_n[from]);
    if (f.c0 != nullptr) dc[i] = f.grad_c_n == nullptr ? A(0) : A(f.grad_c_n[from]);
  }
  if (f.grad_peephole != nullptr) {
    for (int i = threadIdx.x; i < 3 * Slice::tile * units; i += block_size) of_peephole[i] = 0;
  }
  __syncthreads();

  int64_t edge = f.reverse ? 0 : f.counts.tokens;
  for (int64_t number = 0; number < f.counts.steps; ++number) {
    const int64_t t = f.reverse ? number : f.counts.steps - 1 - number;
    const RnnStep step = step_of(f, t, f.reverse ? edge : edge - f.counts.of(t));
    edge = f.reverse ? step.first + step.count : step.first;
    // body(unit, s) for the units of a tile of sequences, of which each thread has the same at
    // every step: what it leaves in shared memory it finds itself.
    const auto for_units = [&](int64_t tile, const auto& body) {
      for (int e = threadIdx.x; e < Slice::tile * units; e += block_size) {
        const int64_t b = tile + e / units;
        const int u = e % units;
        if (b >= step.count || u >= there) continue;
        body(Unit<T>{f, step, b, first_unit + u, dh + b * units + u, dc + b * units + u,
                     of_peephole + e, Slice::tile * units},
             e / units, u);
      }
    };
    // A product with the gradients from `of` on, then body(unit, its sum).
    const auto sweep = [&](const Slice& slice, const T* of, int64_t stride, const auto& body) {
      for (int64_t tile = 0; tile < step.count; tile += Slice::tile) {
        slice.multiply(
            [&](int s) {
              return tile + s < step.count ? of + (step.first + tile + s) * stride : nullptr;
            },
            stage, sums);
        for_units(tile,
                  [&](const Unit<T>& one, int s, int u) { body(one, slice.sum(sums, s, u)); });
        __syncthreads();  // the sums are read
      }
    };
    const auto add = [&](const Unit<T>& one, A sum) { *one.dh += f.dropped(sum, one.b, one.unit); };

    for (int64_t tile = 0; tile < step.count; tile += Slice::tile) {
      for_units(tile, [&](const Unit<T>& one, int, int) {
        if (f.cell == RnnCell::lstm)
          one.lstm();
        else if (f.gates == 3)
          one.gru();
        else
          one.simple();
      });
    }
    grid_barrier();
    if (f.cell == RnnCell::gru) {
      sweep(late, f.grad_products, H, add);
    } else if (f.cell == RnnCell::gru_reset_before) {
      sweep(late, f.grad_gates + 2 * H, columns,
            [&](const Unit<T>& one, A sum) { one.reset(sum); });
      grid_barrier();
    }
    sweep(early, f.grad_gates, columns, add);
  }

  // No wait here: each sweep ends with one.
  for (int64_t i = threadIdx.x; i < f.sequences * units; i += block_size) {
    const int64_t b = quotient(i, units), to = b * H + first_unit + i - b * units;
    if (i - b * units >= there) continue;
    f.grad_h0[to] = T(dh[i]);
    if (f.c0 != nullptr) f.grad_c0[to] = T(dc[i]);
  }
  if (f.grad_peephole == nullptr) return;
  for (int i = threadIdx.x; i < 3 * units; i += block_size) {
    const int gate = i / units, u = i % units;
    A sum = 0;
    for (int s = 0; s < Slice::tile; ++s) sum += of_peephole[(gate * Slice::tile + s) * units + u];
    if (u < there) f.grad_peephole[gate * H + first_unit + u] = sum;
  }
}

template <class T, bool tensor>
RnnPlan plan(RnnCell cell, int64_t hidden, int64_t sequences) {
  return rnn_plan(backward<T, tensor>, hidden, tensor ? 8 : 1, 1, [&](int64_t units) {
    return Layout<T, tensor>(cell, units, hidden, sequences).all;
  });
}

template <class T, bool tensor>
void run(const RnnBackward& args, const RnnSteps& steps, const RnnPlan& plan, int64_t stream) {
  Backward<T> f(args);
  f.units = static_cast<int>(plan.units);
  f.counts = rnn_counts(steps, f.sequences, static_cast<int*>(args.work.data), stream);
  launch_cooperative(backward<T, tensor>, plan.blocks, block_size, plan.shared_bytes, stream, f);
}

}  // namespace

template <class T>
RnnPlan rnn_backward_plan(RnnCell cell, int64_t hidden, int64_t sequences, bool tensor) {
  if constexpr (sizeof(T) == 2) {
    if (tensor) return plan<T, true>(cell, hidden, sequences);
  }
  return plan<T, false>(cell, hidden, sequences);
}

template <class T>
void rnn_backward_persistent(const RnnBackward& args, const RnnSteps& steps, const RnnPlan& plan,
                             bool tensor, int64_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (tensor) return run<T, true>(args, steps, plan, stream);
  }
  run<T, false>(args, steps, plan, stream);
}

#define PYDL_RNN_BACKWARD(T)                                                                    \
  template RnnPlan rnn_backward_plan<T>(RnnCell, int64_t, int64_t, bool);                       \
  template void rnn_backward_persistent<T>(const RnnBackward&, const RnnSteps&, const RnnPlan&, \
                                           bool, int64_t)
PYDL_RNN_BACKWARD(float);
PYDL_RNN_BACKWARD(double);
PYDL_RNN_BACKWARD(float16);
PYDL_RNN_BACKWARD(bfloat16);
#undef PYDL_RNN_BACKWARD

}  // namespace pydl::cuda
