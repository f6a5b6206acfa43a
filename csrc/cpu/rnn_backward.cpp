// The gradient of a recurrent layer's steps, from the last to the first (definition in ../rnn.h).
//
// A step multiplies the gates' gradients of the step before by weight_hh, which makes that of h, and
// takes the gates' derivatives. A thread owns the columns of its units; threads meet once per step,
// once or twice more for a projection, a reset before the product and layer norm. What adds up over
// tokens is added row by row, then over the rows, so that it does not depend on who owns what.
#include "rnn_steps.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

template <class T, RnnCell cell>
class Backward {
  using A = accumulate_t<T>;
  using V = Wide<A>;
  using Math = GateMath<A, kWidth<A>>;
  static constexpr int kGates = gates_of(cell), kKept = kept_of(cell), kWide = kWidth<A>;
  static constexpr bool kResetBefore = cell == RnnCell::gru_reset_before;

 public:
  Backward(const RnnBackward& args, int64_t threads)
      : args_(args),
        w_(args.weights),
        steps_(w_, args.y.size[1], args.kind.reverse),
        units_(args.grad_gates.size[4] / kGates),
        outputs_(w_.h0.size[4]),
        sequences_(w_.h0.size[1]),
        projects_(w_.weight_hr.data != nullptr),
        norm_(w_.norm.data != nullptr),
        zone_h_(w_.zone_h, args.kind.zoneout_h, outputs_.size),
        zone_c_(w_.zone_c, args.kind.zoneout_c, units_.size),
        gain_(spread<T>(w_.norm, kGates, units_.size, units_.stretch)),
        peephole_(spread<T>(w_.peephole, 3, units_.size, units_.stretch)),
        gain_c_(spread<T>(w_.norm_c, 1, units_.size, units_.stretch)),
        bias_c_(spread<T>(w_.bias_c, 1, units_.size, units_.stretch)),
        drop_(w_.drop.data == nullptr ? 0 : sequences_, outputs_.stretch),
        dh_(sequences_, outputs_.stretch),
        dc_(cell == RnnCell::lstm ? sequences_ : 0, units_.stretch),
        dq_{Rows<A>(sequences_, kGates * units_.stretch),
            Rows<A>(sequences_, kGates * units_.stretch)},
        inner_(projects_ || kResetBefore ? sequences_ : 0, units_.stretch),
        dprojected_(projects_ ? sequences_ : 0, outputs_.stretch),
        shown_(gain_c_needed() ? sequences_ : 0, 3 * units_.stretch),
        sums_(peeps() || gain_c_needed() ? sequences_ : 0, 5 * units_.stretch),
        panels_(1, kGates * units_.stretch * outputs_.stretch),
        panels_hr_(1, projects_ ? outputs_.stretch * units_.stretch : 0),
        team_(
            rnn_team(sequences_ * outputs_.size * kGates * units_.size, outputs_.count, threads)) {}

  void run() {
    begin();
    if (team_ == 1) {
      all_steps(0, 1);
    } else {
#pragma omp parallel num_threads(static_cast<int>(team_))
      all_steps(omp_get_thread_num(), omp_get_num_threads());
    }
    add_up();
  }

 private:
  bool peeps() const { return w_.peephole.data != nullptr; }
  bool gain_c_needed() const { return w_.norm_c.data != nullptr; }

  void begin() {
    const auto fill = [](const Tensor& from, const Rows<A>& to, const Groups<A>& units,
                         int64_t rows) {
      if (from.data == nullptr) return;
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t u = 0; u < units.size; u += kWide)
          store_whole<A>(load_some(pointer<T>(from) + row * units.size + u, units.left(u)),
                         to.of(row) + u);
      }
    };
    fill(args_.grad_h_n, dh_, outputs_, sequences_);
    fill(w_.drop, drop_, outputs_, sequences_);
    if constexpr (cell == RnnCell::lstm) fill(args_.grad_c_n, dc_, units_, sequences_);
  }

  // Columns of weight_hh (G H, P): a sum runs over the units of each gate. The gates of a panel are
  // one after another, so those of n can be left for later.
  A* panel(int64_t unit) const { return panels_.of(0) + unit * kGates * units_.stretch; }

  void pack(const Share& groups, const Share& units) {
    Columns columns[4];
    const auto columns_of = [&](const Groups<A>& of, int64_t group) {
      for (int64_t v = 0; v < of.vectors; ++v) {
        const int64_t unit = of.units_of(group) + v * kWide;
        columns[v] = {unit, of.left(unit)};
      }
      return static_cast<int>(of.vectors);
    };
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int vectors = columns_of(outputs_, group);
      pack_panel<A>(pointer<T>(w_.weight_hh), 1, outputs_.size, kGates, units_.size, units_.stretch,
                    columns, vectors, panel(outputs_.units_of(group)));
    }
    if (!projects_) return;
    for (int64_t group = units.first; group < units.last; ++group) {
      const int vectors = columns_of(units_, group);
      pack_panel<A>(pointer<T>(w_.weight_hr), 1, units_.size, 1, outputs_.size, outputs_.stretch,
                    columns, vectors, panels_hr_.of(0) + units_.units_of(group) * outputs_.stretch);
    }
  }

  struct Now {
    int64_t t, token;
    int which;
  };

  void all_steps(int64_t member, int64_t members) {
    const Share outputs(outputs_.count, member, members), units(units_.count, member, members);
    pack(outputs, units);
    const int64_t first = units_.units_of(units.first), last = units_.units_of(units.last);
    const int64_t first_output = outputs_.units_of(outputs.first),
                  last_output = outputs_.units_of(outputs.last);
    const auto meet = [&] {
      if (members > 1) {
#pragma omp barrier
      }
    };
    int64_t rows_before = 0;
    constexpr int product_gates = kResetBefore ? 2 : kGates;
    for (int64_t at = steps_.count(); at-- > 0;) {
      const int64_t t = steps_.step(at), rows = steps_.rows(t);
      const int which = at % 2;
      const Now now{t, steps_.first[t], which};
      const Share mine(rows, member, members);
      into_h(outputs, rows_before, dq_[1 - which], product_gates);
      rows_before = rows;
      if (projects_) {
        for (int64_t row = 0; row < rows; ++row) receive(now, row, first_output, last_output);
        meet();
        through_projection(units, rows);
      }
      const bool by_rows = norm_;
      if (by_rows) meet();
      for (int64_t row = by_rows ? mine.first : 0; row < (by_rows ? mine.last : rows); ++row) {
        gates(now, row, by_rows ? 0 : first, by_rows ? units_.stretch : last);
        if (norm_ && kResetBefore) through_norm(now, row, 2, 3);
        if (norm_ && !kResetBefore) through_norm(now, row, 0, kGates);
      }
      if constexpr (kResetBefore) {
        meet();
        into_inner(units, rows, dq_[which]);
        if (by_rows) meet();
        for (int64_t row = by_rows ? mine.first : 0; row < (by_rows ? mine.last : rows); ++row) {
          reset(now, row, by_rows ? 0 : first, by_rows ? units_.stretch : last);
          if (norm_) through_norm(now, row, 0, 2);
        }
      }
      meet();
    }
    into_h(outputs, rows_before, dq_[0], product_gates);
    for (int64_t row = 0; row < sequences_; ++row) {
      for (int64_t u = first_output; u < last_output; u += kWide)
        store_some(load_whole(dh_.of(row) + u),
                   pointer_to<T>(args_.grad_h0) + row * outputs_.size + u, outputs_.left(u));
      if constexpr (cell == RnnCell::lstm) {
        for (int64_t u = first; u < last; u += kWide)
          store_some(load_whole(dc_.of(row) + u),
                     pointer_to<T>(args_.grad_c0) + row * units_.size + u, units_.left(u));
      }
    }
  }

  // grad of h += (grad of p times weight_hh) * drop, for columns of h.
  void into_h(const Share& groups, int64_t rows, const Rows<A>& dq, int gates) {
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int64_t u = outputs_.units_of(group);
      with_vectors(outputs_.vectors, [&]<int vectors>(Lanes<vectors>) {
        for_tiles(rows, [&](int64_t row, int64_t count) {
          multiply_rows<vectors>(count, dq.of(row), kGates * units_.stretch, panel(u),
                                 gates * units_.stretch, dh_.of(row) + u, outputs_.stretch, kWide,
                                 w_.drop.data == nullptr ? nullptr : drop_.of(row) + u, true);
        });
      });
    }
  }

  // The product of n's part alone: the gradient of r h drop.
  void into_inner(const Share& groups, int64_t rows, const Rows<A>& dq) {
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int64_t u = units_.units_of(group);
      with_vectors(units_.vectors, [&]<int vectors>(Lanes<vectors>) {
        for_tiles(rows, [&](int64_t row, int64_t count) {
          multiply_rows<vectors>(count, dq.of(row) + 2 * units_.stretch, kGates * units_.stretch,
                                 panel(u) + 2 * units_.stretch * vectors * kWide, units_.stretch,
                                 inner_.of(row) + u, units_.stretch, kWide);
        });
      });
    }
  }

  void through_projection(const Share& groups, int64_t rows) {
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int64_t u = units_.units_of(group);
      with_vectors(units_.vectors, [&]<int vectors>(Lanes<vectors>) {
        for_tiles(rows, [&](int64_t row, int64_t count) {
          multiply_rows<vectors>(count, dprojected_.of(row), outputs_.stretch,
                                 panels_hr_.of(0) + u * outputs_.stretch, outputs_.stretch,
                                 inner_.of(row) + u, units_.stretch, kWide);
        });
      });
    }
  }

  // The gradient of h' at a step; what zoneout passes on to the old h stays behind in dh_.
  V arriving(const Now& now, int64_t row, int64_t unit) {
    const int64_t count = outputs_.left(unit), token = now.token + row;
    V grad = load_whole(dh_.of(row) + unit);
    if (args_.grad_y.data != nullptr)
      grad += load_some(pointer<T>(args_.grad_y) + token * outputs_.size + unit, count);
    V stays{};
    if (zone_h_) {
      const V old = zone_h_.of(token, unit, count);
      stays = old * grad;
      grad = (A{1} - old) * grad;
    }
    store_whole<A>(stays, dh_.of(row) + unit);
    return grad;
  }

  void receive(const Now& now, int64_t row, int64_t u0, int64_t u1) {
    for (int64_t u = u0; u < u1; u += kWide) {
      const V grad = arriving(now, row, u);
      store_whole<A>(grad, dprojected_.of(row) + u);
      store_some(grad, pointer_to<T>(args_.grad_projected) + (now.token + row) * outputs_.size + u,
                 outputs_.left(u));
    }
  }

  V kept(int64_t token, int gate, int64_t unit) const {
    return load_some(
        pointer<T>(args_.saved.activated) + (token * kKept + gate) * units_.size + unit,
        units_.left(unit));
  }
  // A row of states after the step before, or of those the sequence begins with.
  template <class S>
  const S* row_before(const Now& now, int64_t row, const Tensor& after, const Tensor& first,
                      int64_t size) const {
    const int64_t token = steps_.before(now.t, row);
    return token < 0 ? pointer<S>(first) + row * size : pointer<S>(after) + token * size;
  }
  V h_before(const Now& now, int64_t row, int64_t unit) const {
    return load_some(row_before<T>(now, row, args_.y, w_.h0, outputs_.size) + unit,
                     outputs_.left(unit));
  }
  V c_before(const Now& now, int64_t row, int64_t unit) const {
    const int64_t token = steps_.before(now.t, row), count = units_.left(unit);
    if (token < 0) return load_some(pointer<T>(w_.c0) + row * units_.size + unit, count);
    return load_some(pointer<A>(args_.saved.c) + token * units_.size + unit, count);
  }

  // The gradient of a gate's sum: to the caller, and for the product.
  void give(const Now& now, int64_t row, int gate, int64_t unit, V grad) {
    give_gate(now, row, gate, unit, grad);
    give_product(now, row, gate, unit, grad);
  }
  void give_gate(const Now& now, int64_t row, int gate, int64_t unit, V grad) {
    const int64_t token = now.token + row;
    store_some(grad, pointer_to<T>(args_.grad_gates) + (token * kGates + gate) * units_.size + unit,
               units_.left(unit));
  }
  void give_product(const Now& now, int64_t row, int gate, int64_t unit, V grad) {
    store_whole<A>(grad, dq_[now.which].of(row) + gate * units_.stretch + unit);
  }

  void gates(const Now& now, int64_t row, int64_t u0, int64_t u1) {
    const int64_t token = now.token + row;
    if constexpr (cell == RnnCell::lstm) {
      if (gain_c_needed()) shown_of(now, row, u0, u1);
      for (int64_t u = u0; u < u1; u += kWide) {
        if (peeps()) {
          lstm<true>(now, row, u);
        } else {
          lstm<false>(now, row, u);
        }
      }
    } else {
      for (int64_t u = u0; u < u1; u += kWide) {
        const V grad = arriving(now, row, u);
        if constexpr (is_gru(cell)) {
          const V z = kept(token, 1, u), n = kept(token, 2, u);
          V grad_z, grad_n;
          gru_grad(z, n, h_before(now, row, u), grad, grad_z, grad_n);
          store_whole<A>(load_whole(dh_.of(row) + u) + grad * z, dh_.of(row) + u);
          give(now, row, 1, u, grad_z);
          if constexpr (kResetBefore) {
            give(now, row, 2, u, grad_n);
          } else {
            const V r = kept(token, 0, u), product = grad_n * r;
            give(now, row, 0, u, grad_n * kept(token, 3, u) * r * (A{1} - r));
            give_gate(now, row, 2, u, grad_n);
            give_product(now, row, 2, u, product);
            if (!norm_)
              store_some(product, pointer_to<T>(args_.grad_products) + token * units_.size + u,
                         units_.left(u));
          }
        } else {
          give(now, row, 0, u, rnn_act_grad<cell == RnnCell::rnn_tanh>(grad, kept(token, 0, u)));
        }
      }
    }
  }

  // The gradient of r, of that of r h drop.
  void reset(const Now& now, int64_t row, int64_t u0, int64_t u1) {
    const int64_t token = now.token + row;
    for (int64_t u = u0; u < u1; u += kWide) {
      const V r = kept(token, 0, u), grad = load_whole(inner_.of(row) + u);
      V state = h_before(now, row, u), direct = grad * r;
      if (w_.drop.data != nullptr) {
        const V drop = load_whole(drop_.of(row) + u);
        state *= drop;
        direct *= drop;
      }
      give(now, row, 0, u, grad * state * r * (A{1} - r));
      store_whole<A>(load_whole(dh_.of(row) + u) + direct, dh_.of(row) + u);
    }
  }

  V c_after(const Now& now, int64_t row, int64_t unit) const {
    const int64_t token = now.token + row;
    if (zone_c_)  // what was kept has gone through zoneout
      return kept(token, 1, unit) * c_before(now, row, unit) +
             kept(token, 0, unit) * kept(token, 2, unit);
    return load_some(pointer<A>(args_.saved.c) + token * units_.size + unit, units_.left(unit));
  }

  // The gradient of an LSTM's u.
  V grad_shown(const Now& now, int64_t row, int64_t unit) {
    return projects_ ? load_whole(inner_.of(row) + unit) : arriving(now, row, unit);
  }

  // With a norm of c: in shown_, the gradients of o's sum (except for o's own derivative) and of
  // c'.
  void shown_of(const Now& now, int64_t row, int64_t u0, int64_t u1) {
    A *hat = shown_.of(row), *by_o = hat + units_.stretch, *grads = by_o + units_.stretch;
    A* sums = sums_.of(row) + 3 * units_.stretch;
    for (int64_t u = u0; u < u1; u += kWide) store_whole<A>(c_after(now, row, u), hat + u);
    const A rstd = centre(hat, 1, units_.size, units_.stretch, args_.kind.eps);
    V mean{}, along{};
    for (int64_t u = u0; u < u1; u += kWide) {
      const V x = load_whole(hat + u) * rstd, gain = load_whole(gain_c_.of(0) + u);
      const V tanh = Math::tanh(x * gain + load_whole(bias_c_.of(0) + u));
      const V grad = grad_shown(now, row, u), o = kept(now.token + row, 3, u);
      const V grad_x = grad * o * (A{1} - tanh * tanh);
      store_whole<A>(x, hat + u);
      store_whole<A>(grad * tanh, by_o + u);
      store_whole<A>(load_whole(sums + u) + grad_x * x, sums + u);
      store_whole<A>(load_whole(sums + units_.stretch + u) + grad_x, sums + units_.stretch + u);
      store_whole<A>(grad_x * gain, grads + u);
      mean += grad_x * gain;
      along += grad_x * gain * x;
    }
    const A size = static_cast<A>(units_.size);
    const A mean_of = sum_lanes<kWide, A>(mean) / size,
            along_of = sum_lanes<kWide, A>(along) / size;
    for (int64_t u = u0; u < u1; u += kWide)
      store_whole<A>((load_whole(grads + u) - mean_of - load_whole(hat + u) * along_of) * rstd,
                     hat + u);
  }
  template <bool peeps>
  void lstm(const Now& now, int64_t row, int64_t u) {
    const int64_t token = now.token + row, count = units_.left(u);
    const LstmGates<V> gates{kept(token, 0, u), kept(token, 1, u), kept(token, 2, u),
                             kept(token, 3, u)};
    const V c = c_before(now, row, u), next = c_after(now, row, u);
    V grad_c = load_whole(dc_.of(row) + u), stays{}, by_o;
    if (zone_c_) {
      const V old = zone_c_.of(token, u, count);
      stays = old * grad_c;
      grad_c = (A{1} - old) * grad_c;
    }
    if (gain_c_needed()) {
      grad_c += load_whole(shown_.of(row) + u);
      by_o = load_whole(shown_.of(row) + units_.stretch + u);
    } else {
      const V grad = grad_shown(now, row, u), tanh = Math::tanh(next);
      grad_c += grad * gates.o * (A{1} - tanh * tanh);
      by_o = grad * tanh;
    }
    Peephole<V> peephole{};
    if constexpr (peeps) {
      const A* from = peephole_.of(0) + u;
      peephole = {load_whole(from), load_whole(from + units_.stretch),
                  load_whole(from + 2 * units_.stretch)};
    }
    LstmGates<V> grad;
    const V before = lstm_grad<peeps>(gates, peephole, c, by_o, grad_c, grad);
    store_whole<A>(stays + before, dc_.of(row) + u);
    give(now, row, 0, u, grad.i);
    give(now, row, 1, u, grad.f);
    give(now, row, 2, u, grad.g);
    give(now, row, 3, u, grad.o);
    if constexpr (peeps) {
      A* sums = sums_.of(row) + u;
      const V added[] = {grad.i * c, grad.f * c, grad.o * next};
      for (int which = 0; which < 3; ++which) {
        A* to = sums + which * units_.stretch;
        store_whole<A>(load_whole(to) + added[which], to);
      }
    }
  }

  // Layer norm of the products of these gates: from the gradient of q to that of p.
  void through_norm(const Now& now, int64_t row, int first_gate, int last_gate) {
    const int64_t token = now.token + row;
    for (int gate = first_gate; gate < last_gate;) {
      const int parts = is_gru(cell) ? (gate == 0 ? 2 : 1) : kGates;
      V mean{}, along{};
      const auto each = [&](auto body) {
        for (int part = 0; part < parts; ++part) {
          for (int64_t u = 0; u < units_.size; u += kWide) {
            const int64_t at = (token * kGates + gate + part) * units_.size + u;
            body((gate + part) * units_.stretch + u, at, units_.left(u),
                 load_some(pointer<T>(args_.saved.normalised) + at, units_.left(u)));
          }
        }
      };
      A* dq = dq_[now.which].of(row);
      each([&](int64_t inside, int64_t, int64_t, V hat) {
        const V grad = load_whole(dq + inside) * load_whole(gain_.of(0) + inside);
        store_whole<A>(grad, dq + inside);
        mean += grad;
        along += grad * hat;
      });
      const A size = static_cast<A>(parts * units_.size);
      const A mean_of = sum_lanes<kWide, A>(mean) / size,
              along_of = sum_lanes<kWide, A>(along) / size;
      constexpr int groups = is_gru(cell) ? 2 : 1;
      const A rstd =
          pointer<A>(args_.saved.rstd)[token * groups + (gate == 2 && groups == 2 ? 1 : 0)];
      each([&](int64_t inside, int64_t at, int64_t count, V hat) {
        const V grad = (load_whole(dq + inside) - mean_of - hat * along_of) * rstd;
        store_some(grad, pointer_to<T>(args_.grad_products) + at, count);
        // Behind its end a row stays zero: the weights there are.
        store_whole<A>(grad, dq + inside);
      });
      gate += parts;
    }
  }

  // What was added row by row; the gradients of norm and bias_hh from what was returned.
  void add_up() {
    const auto rows_into = [&](const Tensor& to, int from, int parts) {
      if (to.data == nullptr || to.numel() == 0) return;
      for (int64_t row = 0; row < sequences_; ++row) {
        for (int part = 0; part < parts; ++part) {
          for (int64_t u = 0; u < units_.size; ++u) {
            A& sum = pointer_to<A>(to)[part * units_.size + u];
            sum = (row == 0 ? A{} : sum) + sums_.of(row)[(from + part) * units_.stretch + u];
          }
        }
      }
    };
    if (peeps()) rows_into(args_.grad_peephole, 0, 3);
    if (gain_c_needed()) rows_into(args_.grad_norm_c, 3, 2);
    if (!norm_) return;
    const int64_t columns = kGates * units_.size, tokens = steps_.first.back();
    A* sums = pointer_to<A>(args_.grad_norm);
    std::fill_n(sums, 2 * columns, A{});
    for (int64_t token = 0; token < tokens; ++token) {
      for (int gate = 0; gate < kGates; ++gate) {
        for (int64_t u = 0; u < units_.size; u += kWide) {
          const int64_t count = units_.left(u), at = gate * units_.size + u;
          V grad = load_some(pointer<T>(args_.grad_gates) + token * columns + at, count);
          if (cell == RnnCell::gru && gate == 2) grad *= kept(token, 0, u);
          const V hat = load_some(pointer<T>(args_.saved.normalised) + token * columns + at, count);
          store_some(load_some(sums + at, count) + grad * hat, sums + at, count);
          store_some(load_some(sums + columns + at, count) + grad, sums + columns + at, count);
        }
      }
    }
  }

  const RnnBackward& args_;
  const RnnWeights& w_;
  Steps steps_;
  Groups<A> units_, outputs_;
  int64_t sequences_;
  bool projects_, norm_;
  Zone<A> zone_h_, zone_c_;
  Rows<A> gain_, peephole_, gain_c_, bias_c_, drop_;
  // The gradients of h and c after a step, then before it; of the products of this step and the
  // next.
  Rows<A> dh_, dc_, dq_[2];
  // The gradient of r h drop, or of u before a projection.
  Rows<A> inner_, dprojected_, shown_, sums_, panels_, panels_hr_;
  int64_t team_;
};

}  // namespace

void rnn_backward(const RnnBackward& args, int64_t threads) {
  run_for_cell<Backward>(args.kind.cell, args.y.dtype, args, threads);
}

}  // namespace pydl::cpu::PYDL_ISA
