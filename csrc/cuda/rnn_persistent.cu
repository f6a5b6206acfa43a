// A recurrent layer forward in one kernel for all steps: every cell, recurrent dropout, zoneout and
// peepholes; neither projections nor layer norm.
//
// A block owns a run of hidden units: their rows of weight_hh, of all gates, stay in its shared
// memory (rnn_slice.h), and so do their h and c of all sequences. A step multiplies the states of
// all units, which the blocks exchange through global memory, makes the gates of its own units and
// puts their new state, times the dropout, where the next step reads it; then it waits for the
// others. Two copies take turns, so that one wait per step is enough: whoever writes a copy knows
// that all have read it. gru_reset_before exchanges r * h * drop in between, through a third copy,
// and waits twice.
//
// Nobody waits for a block that does not run: the launch is cooperative, with at most one block per
// multiprocessor, and the number of waits depends on the number of steps alone.
//
// Least traffic of a step: x read, y and what is kept written once; the states read once per block,
// from L2. weight_hh is read once in all.
#include "rnn_slice.h"

namespace pydl::cuda {
namespace {

template <class T>
struct Forward : RnnProblem<T> {
  using A = accumulate_t<T>;
  const T* x;
  T *y, *h_n, *c_n, *activated;
  A* kept_c;
  T* exchange;  // in work: (3, B, H)
  RnnCounts counts;
  bool reverse;
  int units;  // of a block

  explicit Forward(const RnnForward& args) : RnnProblem<T>(args.weights, args.kind) {
    x = static_cast<const T*>(args.gates.data);
    y = static_cast<T*>(args.y.data);
    h_n = static_cast<T*>(args.h_n.data);
    c_n = static_cast<T*>(args.c_n.data);
    activated = static_cast<T*>(args.saved.activated.data);
    kept_c = static_cast<A*>(args.saved.c.data);
    exchange = static_cast<T*>(args.work.data);
    reverse = args.kind.reverse;
  }
};

// The shared memory of a block, part after part.
template <class T, bool tensor>
struct Layout {
  using A = accumulate_t<T>;
  using Slice = RnnSlice<T, tensor>;
  int64_t slice, late, sums, stage, state, all;  // where they begin

  // `late` is the slice of n in gru_reset_before.
  PYDL_HOST_DEVICE Layout(RnnCell cell, int64_t units, int64_t hidden, int64_t sequences) {
    const bool resets = cell == RnnCell::gru_reset_before;
    const int64_t rows = (resets ? 2 : gates_of(cell)) * units;
    slice = 0;
    late = slice + Slice::bytes(rows, hidden);
    sums = late + (resets ? Slice::bytes(units, hidden) : 0);
    const int64_t first = Slice::sums_bytes(rows), second = resets ? Slice::sums_bytes(units) : 0;
    stage = sums + (first > second ? first : second);
    state = stage + Slice::stage_bytes;
    // h, and c of lstm or z of gru_reset_before.
    all =
        state + (resets || cell == RnnCell::lstm ? 2 : 1) * units * sequences * int64_t{sizeof(A)};
  }
};

// What a thread does to one unit of one sequence.
template <class T, bool tensor>
struct Unit {
  using A = accumulate_t<T>;
  const Forward<T>& f;
  int64_t row, b, unit;  // of tokens; sequence; unit
  A *h, *second;         // in shared memory
  T* onward;             // the state as the next step reads it
  const A* sums;
  const RnnSlice<T, tensor>& slice;
  int s, u;  // in its tile, in its block

  __device__ A q(int gate, int slice_gate) const {
    return slice.sum(sums, s, slice_gate * f.units + u) + f.bias(gate * f.hidden + unit);
  }
  __device__ void keep(int gate, A value) const {
    if (f.activated != nullptr)
      f.activated[(row * kept_of(f.cell) + gate) * f.hidden + unit] = T(value);
  }
  __device__ void step_h(A next) const {
    const A old = f.old_h(row, unit);
    if (old != 0) next = rnn::zoned(old, *h, next);
    const T stored = T(next);
    f.y[row * f.hidden + unit] = stored;
    *h = A(stored);
    *onward = T(f.dropped(*h, b, unit));
  }

  __device__ void lstm(const A (&x)[4]) const {
    LstmGates<A> now = {x[0] + q(0, 0), x[1] + q(1, 1), x[2] + q(2, 2), x[3] + q(3, 3)};
    const A c = rnn::lstm(now, f.peephole_of(unit), *second);
    keep(0, now.i);
    keep(1, now.f);
    keep(2, now.g);
    keep(3, now.o);
    const A old = f.old_c(row, unit);
    *second = old != 0 ? rnn::zoned(old, *second, c) : c;
    if (f.kept_c != nullptr) f.kept_c[row * f.hidden + unit] = *second;
    step_h(now.o * std::tanh(c));
  }
  __device__ void gru(const A (&x)[4]) const {
    const A r = rnn::sigmoid(x[0] + q(0, 0)), z = rnn::sigmoid(x[1] + q(1, 1)), q_n = q(2, 2);
    const A n = std::tanh(x[2] + r * q_n);
    keep(0, r);
    keep(1, z);
    keep(2, n);
    keep(3, q_n);
    step_h(gru_mix(z, n, *h));
  }
  __device__ void reset(const A (&x)[4]) const {
    const A r = rnn::sigmoid(x[0] + q(0, 0)), z = rnn::sigmoid(x[1] + q(1, 1));
    keep(0, r);
    keep(1, z);
    *second = z;
    *onward = T(r * f.dropped(*h, b, unit));
  }
  __device__ void after_reset(A x_n) const {
    const A n = std::tanh(x_n + q(2, 0));
    keep(2, n);
    step_h(gru_mix(*second, n, *h));
  }
  __device__ void simple(A x) const {
    const A a = rnn::activate(f.cell, x + q(0, 0));
    keep(0, a);
    step_h(a);
  }
};

template <class T, bool tensor>
__global__ void __launch_bounds__(block_size, 1) forward(Forward<T> f) {
  using A = accumulate_t<T>;
  using Slice = RnnSlice<T, tensor>;
  DYNAMIC_SHARED(uint4, shared);
  const bool resets = f.cell == RnnCell::gru_reset_before;
  const int gates = resets ? 2 : f.gates, units = f.units;  // of the first product
  const int64_t H = f.hidden, first_unit = static_cast<int64_t>(blockIdx.x) * units;
  const int there = static_cast<int>(H - first_unit < units ? H - first_unit : units);
  const Layout<T, tensor> at(f.cell, units, H, f.sequences);
  const auto part = [&](int64_t offset) { return reinterpret_cast<char*>(shared) + offset; };
  Slice early = {gates * units, static_cast<int>(H), reinterpret_cast<uint4*>(part(at.slice))};
  Slice late = {units, static_cast<int>(H), reinterpret_cast<uint4*>(part(at.late))};
  A* sums = reinterpret_cast<A*>(part(at.sums));
  A* stage = reinterpret_cast<A*>(part(at.stage));
  A* h = reinterpret_cast<A*>(part(at.state));  // (B, units)
  A* second = h + f.sequences * units;          // (B, units): c, or z

  const auto weight = [&](int64_t gate, int u, int column) {
    return u < there ? f.weight_hh[(gate * H + first_unit + u) * H + column] : T(0.0f);
  };
  early.load([&](int row, int column) { return weight(row / units, row % units, column); });
  if (resets) late.load([&](int row, int column) { return weight(2, row, column); });
  const int64_t copy = f.sequences * H;
  for (int64_t i = threadIdx.x; i < f.sequences * units; i += block_size) {
    const int64_t b = quotient(i, units), u = i - b * units, unit = first_unit + u;
    if (u >= there) continue;
    h[i] = A(f.h0[b * H + unit]);
    if (f.c0 != nullptr) second[i] = A(f.c0[b * H + unit]);
    f.exchange[b * H + unit] = f.exchange[copy + b * H + unit] = T(f.dropped(h[i], b, unit));
  }
  grid_barrier();

  int64_t next_row = f.reverse ? f.counts.tokens : 0;
  for (int64_t number = 0; number < f.counts.steps; ++number) {
    const int64_t count = f.counts.of(f.reverse ? f.counts.steps - 1 - number : number);
    const int64_t first = f.reverse ? next_row - count : next_row;
    next_row = f.reverse ? first : first + count;
    T* const states = f.exchange + number % 2 * copy;
    T* const onward = f.exchange + (1 - number % 2) * copy;
    T* const between = f.exchange + 2 * copy;

    // A product with the states in `of`, then the units of each tile of sequences.
    const auto sweep = [&](const Slice& slice, const T* of, T* to, bool after) {
      for (int64_t tile = 0; tile < count; tile += Slice::tile) {
        // x does not wait for the product: the loads are under way meanwhile.
        const auto place = [&](int e, int64_t& b, int& u) {
          b = tile + e / units;
          u = e % units;
          return e < Slice::tile * units && b < count && u < there;
        };
        const auto load = [&](A(&x)[4], int64_t b, int u) {
          for (int gate = 0; gate < 4; ++gate) {
            if (gate < f.gates)
              x[gate] = A(f.x[((first + b) * f.gates + gate) * H + first_unit + u]);
          }
        };
        A x[4] = {};
        int64_t b;
        int u;
        if (place(threadIdx.x, b, u)) load(x, b, u);
        slice.multiply([&](int s) { return tile + s < count ? of + (tile + s) * H : nullptr; },
                       stage, sums);
        for (int e = threadIdx.x; e < Slice::tile * units; e += block_size) {
          if (!place(e, b, u)) continue;
          if (e >= block_size) load(x, b, u);
          const int64_t unit = first_unit + u;
          const Unit<T, tensor> one = {f,
                                       first + b,
                                       b,
                                       unit,
                                       h + b * units + u,
                                       second + b * units + u,
                                       to + b * H + unit,
                                       sums,
                                       slice,
                                       e / units,
                                       u};
          if (f.cell == RnnCell::lstm)
            one.lstm(x);
          else if (f.cell == RnnCell::gru)
            one.gru(x);
          else if (!resets)
            one.simple(x[0]);
          else if (!after)
            one.reset(x);
          else
            one.after_reset(x[2]);
        }
        __syncthreads();  // the sums are read
      }
    };
    sweep(early, states, resets ? between : onward, false);
    grid_barrier();
    if (!resets) continue;
    sweep(late, between, onward, true);
    grid_barrier();
  }

  for (int64_t i = threadIdx.x; i < f.sequences * units; i += block_size) {
    const int64_t b = quotient(i, units), u = i - b * units;
    if (u >= there) continue;
    f.h_n[b * H + first_unit + u] = T(h[i]);
    if (f.c0 != nullptr) f.c_n[b * H + first_unit + u] = T(second[i]);
  }
}

template <class T, bool tensor>
RnnPlan plan(RnnCell cell, int64_t hidden, int64_t sequences) {
  return rnn_plan(forward<T, tensor>, hidden, tensor ? 4 : 1,
                  cell == RnnCell::gru_reset_before ? 2 : gates_of(cell), [&](int64_t units) {
                    return Layout<T, tensor>(cell, units, hidden, sequences).all;
                  });
}

template <class T, bool tensor>
void run(const RnnForward& args, const RnnSteps& steps, const RnnPlan& plan, int64_t stream) {
  Forward<T> f(args);
  f.units = static_cast<int>(plan.units);
  // Behind the copies, at a whole number of ints.
  constexpr int64_t of_an_int = sizeof(T) < sizeof(int) ? sizeof(int) / sizeof(T) : 1;
  const int64_t copies = (3 * f.sequences * f.hidden + of_an_int - 1) / of_an_int * of_an_int;
  f.counts = rnn_counts(steps, f.sequences, reinterpret_cast<int*>(f.exchange + copies), stream);
  launch_cooperative(forward<T, tensor>, plan.blocks, block_size, plan.shared_bytes, stream, f);
}

}  // namespace

template <class T>
RnnPlan rnn_forward_plan(RnnCell cell, int64_t hidden, int64_t sequences, bool tensor) {
  if constexpr (sizeof(T) == 2) {
    if (tensor) return plan<T, true>(cell, hidden, sequences);
  }
  return plan<T, false>(cell, hidden, sequences);
}

template <class T>
void rnn_forward_persistent(const RnnForward& args, const RnnSteps& steps, const RnnPlan& plan,
                            bool tensor, int64_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (tensor) return run<T, true>(args, steps, plan, stream);
  }
  run<T, false>(args, steps, plan, stream);
}

#define PYDL_RNN_FORWARD(T)                                                                   \
  template RnnPlan rnn_forward_plan<T>(RnnCell, int64_t, int64_t, bool);                      \
  template void rnn_forward_persistent<T>(const RnnForward&, const RnnSteps&, const RnnPlan&, \
                                          bool, int64_t)
PYDL_RNN_FORWARD(float);
PYDL_RNN_FORWARD(double);
PYDL_RNN_FORWARD(float16);
PYDL_RNN_FORWARD(bfloat16);
#undef PYDL_RNN_FORWARD

}  // namespace pydl::cuda
