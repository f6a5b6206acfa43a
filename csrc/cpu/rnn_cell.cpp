// One step of a recurrent layer after both products (definition in ../rnn.h): every operand is read
// and every result written once, which is what bounds it. A task is a run of rows.
#include "rnn_steps.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// A matrix (rows, parts * units) of T; or none.
template <class T>
struct Matrix {
  T* data;
  int64_t units, step;

  Matrix(const Tensor& tensor, int64_t units_of_row, int parts)
      : data(pointer_to<T>(tensor)), units(units_of_row), step(parts * units_of_row) {}
  explicit operator bool() const { return data != nullptr; }
  PYDL_INLINE Wide<accumulate_t<T>> load(int64_t row, int part, int64_t unit) const {
    return load_some(data + row * step + part * units + unit, units - unit);
  }
  PYDL_INLINE Wide<accumulate_t<T>> load_or_zero(int64_t row, int64_t unit) const {
    return data == nullptr ? Wide<accumulate_t<T>>{} : load(row, 0, unit);
  }
  PYDL_INLINE void store(const Wide<accumulate_t<T>>& x, int64_t row, int part,
                         int64_t unit) const {
    store_some(x, data + row * step + part * units + unit, units - unit);
  }
};

// Calls body(row, unit) for every vector of units, its rows shared out.
template <class A, class Body>
void for_units(int64_t rows, int64_t units, int64_t numbers, int64_t threads, Body body) {
  share_out(rows, team_size(rows, rows * units * numbers, threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t row = first; row < last; ++row) {
                for (int64_t unit = 0; unit < units; unit += kWidth<A>) body(row, unit);
              }
            });
}

template <class T, bool peeps>
Peephole<Wide<accumulate_t<T>>> peephole_of(const Matrix<T>& weights, int64_t unit) {
  if constexpr (peeps) {
    return {weights.load(0, 0, unit), weights.load(1, 0, unit), weights.load(2, 0, unit)};
  } else {
    return Peephole<Wide<accumulate_t<T>>>{};
  }
}

template <class T, RnnCell cell, bool peeps>
void forward(const RnnCellForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  using V = Wide<A>;
  using Math = GateMath<A, kWidth<A>>;
  constexpr int gates_count = gates_of(cell);
  const int64_t rows = args.gates.size[1], units = args.h_next.size[4];
  const Matrix<T> x(args.gates, units, gates_count), q(args.products, units, gates_count),
      h(args.h, units, 1), c(args.c, units, 1), peephole(args.peephole, units, 1),
      h_next(args.h_next, units, 1), c_next(args.c_next, units, 1),
      kept(args.activated, units, kept_of(cell));
  for_units<A>(rows, units, 2 * gates_count, threads, [&](int64_t row, int64_t unit) {
    const auto sum = [&](int gate) { return x.load(row, gate, unit) + q.load(row, gate, unit); };
    const auto keep = [&](std::initializer_list<V> values) {
      int part = 0;
      if (kept) {
        for (const V& value : values) kept.store(value, row, part++, unit);
      }
    };
    if constexpr (cell == RnnCell::lstm) {
      LstmGates<V> gates{sum(0), sum(1), sum(2), sum(3)};
      const Peephole<V> seen = peephole_of<T, peeps>(peephole, unit);
      const V next = lstm_open<peeps, Math>(gates, seen, c.load(row, 0, unit));
      lstm_shut<peeps, Math>(gates, seen, next);
      keep({gates.i, gates.f, gates.g, gates.o});
      c_next.store(next, row, 0, unit);
      h_next.store(gates.o * Math::tanh(next), row, 0, unit);
    } else if constexpr (cell == RnnCell::gru) {
      const V r = Math::sigmoid(sum(0)), z = Math::sigmoid(sum(1)), q_n = q.load(row, 2, unit);
      const V n = Math::tanh(x.load(row, 2, unit) + r * q_n);
      keep({r, z, n, q_n});
      h_next.store(gru_mix(z, n, h.load(row, 0, unit)), row, 0, unit);
    } else {
      const V a = rnn_act<cell == RnnCell::rnn_tanh, Math>(sum(0));
      keep({a});
      h_next.store(a, row, 0, unit);
    }
  });
}

template <class T, RnnCell cell, bool peeps>
void backward(const RnnCellBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  using V = Wide<A>;
  using Math = GateMath<A, kWidth<A>>;
  constexpr int gates_count = gates_of(cell);
  const int64_t rows = args.activated.size[1], units = args.activated.size[4] / kept_of(cell);
  const Matrix<T> grad_h(args.grad_h, units, 1), grad_c(args.grad_c, units, 1),
      kept(args.activated, units, kept_of(cell)), h(args.h, units, 1), c(args.c, units, 1),
      c_next(args.c_next, units, 1), peephole(args.peephole, units, 1),
      grad_gates(args.grad_gates, units, gates_count),
      grad_products(args.grad_products, units, gates_count), h_before(args.grad_h_before, units, 1),
      c_before(args.grad_c_before, units, 1);
  for_units<A>(rows, units, 2 * gates_count, threads, [&](int64_t row, int64_t unit) {
    const V grad = grad_h.load_or_zero(row, unit);
    if constexpr (cell == RnnCell::lstm) {
      const LstmGates<V> gates{kept.load(row, 0, unit), kept.load(row, 1, unit),
                               kept.load(row, 2, unit), kept.load(row, 3, unit)};
      const V tanh = Math::tanh(c_next.load(row, 0, unit));
      const V grad_next = grad_c.load_or_zero(row, unit) + grad * gates.o * (A{1} - tanh * tanh);
      LstmGates<V> made;
      const V before = lstm_grad<peeps>(gates, peephole_of<T, peeps>(peephole, unit),
                                        c.load(row, 0, unit), grad * tanh, grad_next, made);
      c_before.store(before, row, 0, unit);
      grad_gates.store(made.i, row, 0, unit);
      grad_gates.store(made.f, row, 1, unit);
      grad_gates.store(made.g, row, 2, unit);
      grad_gates.store(made.o, row, 3, unit);
    } else if constexpr (cell == RnnCell::gru) {
      const V r = kept.load(row, 0, unit), z = kept.load(row, 1, unit);
      V grad_z, grad_n;
      gru_grad(z, kept.load(row, 2, unit), h.load(row, 0, unit), grad, grad_z, grad_n);
      const V grad_r = grad_n * kept.load(row, 3, unit) * r * (A{1} - r);
      h_before.store(grad * z, row, 0, unit);
      for (const Matrix<T>* to : {&grad_gates, &grad_products}) {
        to->store(grad_r, row, 0, unit);
        to->store(grad_z, row, 1, unit);
        to->store(to == &grad_gates ? grad_n : grad_n * r, row, 2, unit);
      }
    } else {
      grad_gates.store(rnn_act_grad<cell == RnnCell::rnn_tanh>(grad, kept.load(row, 0, unit)), row,
                       0, unit);
    }
  });
  if constexpr (peeps) {
    const Matrix<A> sums(args.grad_peephole, units, 1);
    for (int64_t unit = 0; unit < units; unit += kWidth<A>) {
      V i{}, f{}, o{};
      for (int64_t row = 0; row < rows; ++row) {
        const V before = c.load(row, 0, unit);
        i += grad_gates.load(row, 0, unit) * before;
        f += grad_gates.load(row, 1, unit) * before;
        o += grad_gates.load(row, 3, unit) * c_next.load(row, 0, unit);
      }
      sums.store(i, 0, 0, unit);
      sums.store(f, 1, 0, unit);
      sums.store(o, 2, 0, unit);
    }
  }
}

}  // namespace

void rnn_cell_forward(const RnnCellForward& args, int64_t threads) {
  dispatch_floating(args.gates.dtype, "rnn_cell", [&]<class T>(T) {
    if (args.cell == RnnCell::rnn_tanh) return forward<T, RnnCell::rnn_tanh, false>(args, threads);
    if (args.cell == RnnCell::rnn_relu) return forward<T, RnnCell::rnn_relu, false>(args, threads);
    if (args.cell == RnnCell::gru) return forward<T, RnnCell::gru, false>(args, threads);
    if (args.peephole.data != nullptr) return forward<T, RnnCell::lstm, true>(args, threads);
    forward<T, RnnCell::lstm, false>(args, threads);
  });
}

void rnn_cell_backward(const RnnCellBackward& args, int64_t threads) {
  dispatch_floating(args.activated.dtype, "rnn_cell", [&]<class T>(T) {
    if (args.cell == RnnCell::rnn_tanh) return backward<T, RnnCell::rnn_tanh, false>(args, threads);
    if (args.cell == RnnCell::rnn_relu) return backward<T, RnnCell::rnn_relu, false>(args, threads);
    if (args.cell == RnnCell::gru) return backward<T, RnnCell::gru, false>(args, threads);
    if (args.peephole.data != nullptr) return backward<T, RnnCell::lstm, true>(args, threads);
    backward<T, RnnCell::lstm, false>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
