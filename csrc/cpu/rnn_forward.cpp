// A recurrent layer's steps (definition in ../rnn.h).
//
// A step reads all of weight_hh: where that fits a cache the arithmetic bounds it, 2 B P G H
// operations, and for a single sequence the cache. PyTorch goes through five to ten operators per
// step. Here a thread keeps the packed columns of its units for all steps, makes a tile of their
// products in registers, and turns it into gates while it is in the first-level cache; threads meet
// once per step, to exchange h. A reset before the product, a projection and layer norm need one or
// two meetings more.
#include "rnn_steps.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

template <class T, RnnCell cell>
class Forward {
  using A = accumulate_t<T>;
  using V = Wide<A>;
  using Math = GateMath<A, kWidth<A>>;
  static constexpr int kGates = gates_of(cell), kKept = kept_of(cell), kWide = kWidth<A>;
  static constexpr bool kResetBefore = cell == RnnCell::gru_reset_before;
  // A panel holds all gates of a vector of units; of one gate there are several vectors of units.
  static constexpr bool kOneGate = kGates == 1;
  static constexpr int kPanelGates = kResetBefore ? 2 : kGates;

 public:
  Forward(const RnnForward& args, int64_t threads)
      : args_(args),
        w_(args.weights),
        steps_(w_, args.gates.size[1], args.kind.reverse),
        units_(args.gates.size[4] / kGates),
        outputs_(w_.h0.size[4]),
        sequences_(w_.h0.size[1]),
        projects_(w_.weight_hr.data != nullptr),
        norm_(w_.norm.data != nullptr),
        drops_(w_.drop.data != nullptr),
        zone_h_(w_.zone_h, args.kind.zoneout_h, outputs_.size),
        zone_c_(w_.zone_c, args.kind.zoneout_c, units_.size),
        bias_(spread<T>(w_.bias_hh, kGates, units_.size, units_.stretch)),
        gain_(spread<T>(w_.norm, kGates, units_.size, units_.stretch)),
        peephole_(spread<T>(w_.peephole, 3, units_.size, units_.stretch)),
        gain_c_(spread<T>(w_.norm_c, 1, units_.size, units_.stretch)),
        bias_c_(spread<T>(w_.bias_c, 1, units_.size, units_.stretch)),
        h_{Rows<A>(sequences_, outputs_.stretch), Rows<A>(sequences_, outputs_.stretch)},
        state_{Rows<A>(drops_ ? sequences_ : 0, outputs_.stretch),
               Rows<A>(drops_ ? sequences_ : 0, outputs_.stretch)},
        c_(cell == RnnCell::lstm ? sequences_ : 0, units_.stretch),
        q_(sequences_, kGates * units_.stretch),
        inner_(kResetBefore || projects_ || norm_ ? sequences_ : 0, units_.stretch),
        projected_(projects_ ? sequences_ : 0, outputs_.stretch),
        panels_(1, units_.stretch * kGates * outputs_.stretch),
        panels_hr_(1, projects_ ? outputs_.stretch * units_.stretch : 0),
        team_(rnn_team(sequences_ * outputs_.size * kGates * units_.size, units_.count, threads)) {}

  void run() {
    begin();
    if (team_ == 1) return all_steps(0, 1);
#pragma omp parallel num_threads(static_cast<int>(team_))
    all_steps(omp_get_thread_num(), omp_get_num_threads());
  }

 private:
  // h and c before the first step.
  void begin() {
    for (int64_t row = 0; row < sequences_; ++row) {
      for (int64_t u = 0; u < outputs_.size; u += kWide) {
        const int64_t count = outputs_.left(u), at = row * outputs_.size + u;
        const V h = load_some(pointer<T>(w_.h0) + at, count);
        for (int which = 0; which < 2; ++which) {
          store_whole<A>(h, h_[which].of(row) + u);
          if (drops_)
            store_whole<A>(h * load_some(pointer<T>(w_.drop) + at, count),
                           state_[which].of(row) + u);
        }
      }
      if constexpr (cell == RnnCell::lstm) {
        for (int64_t u = 0; u < units_.size; u += kWide)
          store_whole<A>(load_some(pointer<T>(w_.c0) + row * units_.size + u, units_.left(u)),
                         c_.of(row) + u);
      }
    }
  }

  A* panel(int64_t unit, int64_t gate) const {
    // The gates of one panel follow each other; n of a reset before is a panel of its own kind.
    const int64_t terms = outputs_.stretch;
    if constexpr (kResetBefore) {
      if (gate == 2) return panels_.of(0) + (2 * units_.stretch + unit) * terms;
    }
    return panels_.of(0) + unit * kPanelGates * terms;
  }

  void pack(const Share& groups) {
    const T* weight = pointer<T>(w_.weight_hh);
    const int64_t terms = outputs_.size, stretch = outputs_.stretch;
    for (int64_t group = groups.first; group < groups.last; ++group) {
      Columns columns[4];
      for (int64_t v = 0; v < units_.vectors; ++v) {
        const int64_t unit = units_.units_of(group) + v * kWide;
        if constexpr (kOneGate) {
          columns[v] = {unit, units_.left(unit)};
        } else {
          for (int gate = 0; gate < kPanelGates; ++gate)
            columns[gate] = {gate * units_.size + unit, units_.left(unit)};
          pack_panel<A>(weight, terms, 1, 1, terms, stretch, columns, kPanelGates, panel(unit, 0));
        }
      }
      const int64_t first = units_.units_of(group);
      if constexpr (kOneGate)
        pack_panel<A>(weight, terms, 1, 1, terms, stretch, columns, units_.vectors,
                      panel(first, 0));
      if constexpr (kResetBefore) {
        for (int64_t v = 0; v < units_.vectors; ++v) {
          const int64_t unit = first + v * kWide;
          columns[v] = {2 * units_.size + unit, units_.left(unit)};
        }
        pack_panel<A>(weight, terms, 1, 1, terms, stretch, columns, units_.vectors,
                      panel(first, 2));
      }
    }
  }

  void pack_hr(const Share& groups) {
    for (int64_t group = groups.first; group < groups.last; ++group) {
      Columns columns[4];
      for (int64_t v = 0; v < outputs_.vectors; ++v) {
        const int64_t unit = outputs_.units_of(group) + v * kWide;
        columns[v] = {unit, outputs_.left(unit)};
      }
      pack_panel<A>(pointer<T>(w_.weight_hr), units_.size, 1, 1, units_.size, units_.stretch,
                    columns, outputs_.vectors,
                    panels_hr_.of(0) + outputs_.units_of(group) * units_.stretch);
    }
  }

  void all_steps(int64_t member, int64_t members) {
    const Share groups(units_.count, member, members), outputs(outputs_.count, member, members);
    pack(groups);
    if (projects_) pack_hr(outputs);
    const int64_t first = units_.units_of(groups.first), last = units_.units_of(groups.last);
    const auto meet = [&] {
      if (members > 1) {
#pragma omp barrier
      }
    };
    for (int64_t at = 0; at < steps_.count(); ++at) {
      const int64_t t = steps_.step(at), rows = steps_.rows(t);
      const Share mine(rows, member, members);
      const int now = at % 2;
      const Now step{t, steps_.first[t], steps_.rows_after(t), now};
      const Rows<A>& state = drops_ ? state_[now] : h_[now];
      if (norm_) {
        products(groups, rows, state, [](int64_t, int64_t, int64_t, int64_t) {});
        meet();
        normalise(step, mine, 0, kPanelGates);
        open(step, mine.first, mine.last, 0, units_.stretch);
      } else if (rows == 1) {
        // The chains of gates are long: those of several vectors overlap, if no sums come between.
        products(groups, rows, state, [](int64_t, int64_t, int64_t, int64_t) {});
        open(step, 0, 1, first, last);
      } else {
        products(groups, rows, state, [&](int64_t r0, int64_t r1, int64_t u0, int64_t u1) {
          open(step, r0, r1, u0, u1);
        });
      }
      if constexpr (kResetBefore) {
        meet();
        products_of_n(groups, rows);
        if (norm_) {
          meet();
          normalise(step, mine, 2, 3);
          shut(step, mine.first, mine.last, 0, units_.stretch);
        } else {
          shut(step, 0, rows, first, last);
        }
      }
      if (projects_) {
        meet();
        project(step, outputs, rows);
      }
      meet();
    }
  }

  struct Now {
    int64_t t, token, rows_after;
    int which;
  };

  // The products of the units of these groups; then(rows, units) once those of a tile are there.
  template <class Then>
  void products(const Share& groups, int64_t rows, const Rows<A>& state, Then then) {
    const int64_t terms = outputs_.stretch, step = kGates * units_.stretch;
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int64_t begin = units_.units_of(group), end = units_.units_of(group + 1);
      if constexpr (kOneGate) {
        with_vectors(units_.vectors, [&]<int vectors>(Lanes<vectors>) {
          for_tiles(rows, [&](int64_t row, int64_t count) {
            multiply_rows<vectors>(count, state.of(row), outputs_.stretch, panel(begin, 0), terms,
                                   q_.of(row) + begin, step, kWide);
            then(row, row + count, begin, end);
          });
        });
      } else {
        for (int64_t unit = begin; unit < end; unit += kWide) {
          for_tiles(rows, [&](int64_t row, int64_t count) {
            multiply_rows<kPanelGates>(count, state.of(row), outputs_.stretch, panel(unit, 0),
                                       terms, q_.of(row) + unit, step, units_.stretch);
            then(row, row + count, unit, unit + kWide);
          });
        }
      }
    }
  }

  void products_of_n(const Share& groups, int64_t rows) {
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int64_t unit = units_.units_of(group);
      with_vectors(units_.vectors, [&]<int vectors>(Lanes<vectors>) {
        for_tiles(rows, [&](int64_t row, int64_t count) {
          multiply_rows<vectors>(count, inner_.of(row), units_.stretch, panel(unit, 2),
                                 outputs_.stretch, q_.of(row) + 2 * units_.stretch + unit,
                                 kGates * units_.stretch, kWide);
        });
      });
    }
  }

  void project(const Now& now, const Share& groups, int64_t rows) {
    for (int64_t group = groups.first; group < groups.last; ++group) {
      const int64_t begin = outputs_.units_of(group), end = outputs_.units_of(group + 1);
      with_vectors(outputs_.vectors, [&]<int vectors>(Lanes<vectors>) {
        for_tiles(rows, [&](int64_t row, int64_t count) {
          multiply_rows<vectors>(count, inner_.of(row), units_.stretch,
                                 panels_hr_.of(0) + begin * units_.stretch, units_.stretch,
                                 projected_.of(row) + begin, outputs_.stretch, kWide);
        });
      });
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t u = begin; u < end; u += kWide)
          finish(now, row, u, load_whole(projected_.of(row) + u));
      }
    }
  }

  // Layer norm of the products of these gates of whole rows, in groups as the cell has them.
  void normalise(const Now& now, const Share& rows, int first_gate, int last_gate) {
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const int64_t token = now.token + row;
      for (int gate = first_gate; gate < last_gate;) {
        const int parts = is_gru(cell) ? (gate == 0 ? 2 : 1) : kGates;
        A* q = q_.of(row) + gate * units_.stretch;
        const A rstd = centre(q, parts, units_.size, units_.stretch, args_.kind.eps);
        for (int part = 0; part < parts; ++part, ++gate) {
          for (int64_t u = 0; u < units_.size; u += kWide) {
            A* at = q_.of(row) + gate * units_.stretch + u;
            const V hat = load_whole(at) * rstd;
            if (keeps())
              store_some(
                  hat,
                  pointer_to<T>(args_.saved.normalised) + (token * kGates + gate) * units_.size + u,
                  units_.left(u));
            store_whole<A>(hat * load_whole(gain_.of(0) + gate * units_.stretch + u), at);
          }
        }
        if (keeps()) {
          constexpr int groups = is_gru(cell) ? 2 : 1;
          pointer_to<A>(args_.saved.rstd)[token * groups + (gate > 2 && groups == 2)] = rstd;
        }
      }
    }
  }

  bool keeps() const { return args_.saved.activated.data != nullptr; }

  V input(int64_t token, int gate, int64_t unit) const {
    return load_some(pointer<T>(args_.gates) + (token * kGates + gate) * units_.size + unit,
                     units_.left(unit));
  }
  V product(int64_t row, int gate, int64_t unit) const {
    const int64_t at = gate * units_.stretch + unit;
    const V p = load_whole(q_.of(row) + at);
    return w_.bias_hh.data == nullptr ? p : p + load_whole(bias_.of(0) + at);
  }
  void keep(int64_t token, int gate, int64_t unit, V value) const {
    if (keeps())
      store_some(value,
                 pointer_to<T>(args_.saved.activated) + (token * kKept + gate) * units_.size + unit,
                 units_.left(unit));
  }

  // From products to gates, and to what h becomes; where n's product comes later, up to it. Not
  // inlined: called from three places.
  [[gnu::noinline]] void open(const Now& now, int64_t r0, int64_t r1, int64_t u0, int64_t u1) {
    for (int64_t row = r0; row < r1; ++row) {
      const int64_t token = now.token + row;
      if constexpr (cell == RnnCell::lstm) {
        lstm(now, row, u0, u1);
      } else {
        for (int64_t u = u0; u < u1; u += kWide) {
          if constexpr (is_gru(cell)) {
            const V r = Math::sigmoid(input(token, 0, u) + product(row, 0, u));
            const V z = Math::sigmoid(input(token, 1, u) + product(row, 1, u));
            keep(token, 0, u, r);
            keep(token, 1, u, z);
            if constexpr (kResetBefore) {
              const Rows<A>& state = drops_ ? state_[now.which] : h_[now.which];
              store_whole<A>(r * load_whole(state.of(row) + u), inner_.of(row) + u);
              store_whole<A>(z, q_.of(row) + units_.stretch + u);
            } else {
              const V q_n = product(row, 2, u);
              const V n = Math::tanh(input(token, 2, u) + r * q_n);
              keep(token, 2, u, n);
              keep(token, 3, u, q_n);
              finish(now, row, u, gru_mix(z, n, load_whole(h_[now.which].of(row) + u)));
            }
          } else {
            const V a =
                rnn_act<cell == RnnCell::rnn_tanh, Math>(input(token, 0, u) + product(row, 0, u));
            keep(token, 0, u, a);
            finish(now, row, u, a);
          }
        }
      }
    }
  }

  // n and h of a reset before the product.
  void shut(const Now& now, int64_t r0, int64_t r1, int64_t u0, int64_t u1) {
    for (int64_t row = r0; row < r1; ++row) {
      for (int64_t u = u0; u < u1; u += kWide) {
        const V n = Math::tanh(input(now.token + row, 2, u) + product(row, 2, u));
        const V z = load_whole(q_.of(row) + units_.stretch + u);
        keep(now.token + row, 2, u, n);
        finish(now, row, u, gru_mix(z, n, load_whole(h_[now.which].of(row) + u)));
      }
    }
  }

  void lstm(const Now& now, int64_t row, int64_t u0, int64_t u1) {
    const int64_t token = now.token + row;
    const bool peeps = w_.peephole.data != nullptr, norm_c = w_.norm_c.data != nullptr;
    for (int64_t u = u0; u < u1; u += kWide) {
      LstmGates<V> gates{
          input(token, 0, u) + product(row, 0, u), input(token, 1, u) + product(row, 1, u),
          input(token, 2, u) + product(row, 2, u), input(token, 3, u) + product(row, 3, u)};
      const V c = load_whole(c_.of(row) + u);
      V next;
      if (peeps) {
        const A* from = peephole_.of(0) + u;
        const Peephole<V> peephole{load_whole(from), load_whole(from + units_.stretch),
                                   load_whole(from + 2 * units_.stretch)};
        next = lstm_open<true, Math>(gates, peephole, c);
        lstm_shut<true, Math>(gates, peephole, next);
      } else {
        next = lstm_open<false, Math>(gates, Peephole<V>{}, c);
        lstm_shut<false, Math>(gates, Peephole<V>{}, next);
      }
      keep(token, 0, u, gates.i);
      keep(token, 1, u, gates.f);
      keep(token, 2, u, gates.g);
      keep(token, 3, u, gates.o);
      V stays = next;
      if (zone_c_) {
        const V old = zone_c_.of(token, u, units_.left(u));
        stays = old * c + (A{1} - old) * next;
      }
      store_whole<A>(stays, c_.of(row) + u);
      if (keeps())
        store_some(stays, pointer_to<A>(args_.saved.c) + token * units_.size + u, units_.left(u));
      if (row >= now.rows_after)
        store_some(stays, pointer_to<T>(args_.c_n) + row * units_.size + u, units_.left(u));
      if (norm_c) {
        store_whole<A>(next, inner_.of(row) + u);
        store_whole<A>(gates.o, q_.of(row) + u);
      } else {
        show(now, row, u, gates.o * Math::tanh(next));
      }
    }
    if (!norm_c) return;
    A* shown = inner_.of(row);
    const A rstd = centre(shown, 1, units_.size, units_.stretch, args_.kind.eps);
    for (int64_t u = u0; u < u1; u += kWide) {
      const V x = load_whole(shown + u) * rstd * load_whole(gain_c_.of(0) + u) +
                  load_whole(bias_c_.of(0) + u);
      show(now, row, u, load_whole(q_.of(row) + u) * Math::tanh(x));
    }
  }

  // u of an LSTM: h, or what is projected to it.
  void show(const Now& now, int64_t row, int64_t unit, V u) {
    if (!projects_) return finish(now, row, unit, u);
    store_whole<A>(u, inner_.of(row) + unit);
    if (keeps())
      store_some(u, pointer_to<T>(args_.saved.unprojected) + (now.token + row) * units_.size + unit,
                 units_.left(unit));
  }

  void finish(const Now& now, int64_t row, int64_t unit, V h) {
    const int64_t count = outputs_.left(unit), token = now.token + row;
    if (zone_h_) {
      const V old = zone_h_.of(token, unit, count);
      h = old * load_whole(h_[now.which].of(row) + unit) + (A{1} - old) * h;
    }
    const int64_t at = row * outputs_.size + unit;
    store_some(h, pointer_to<T>(args_.y) + token * outputs_.size + unit, count);
    if (row >= now.rows_after) store_some(h, pointer_to<T>(args_.h_n) + at, count);
    h = as_stored<T>(h);
    store_whole<A>(h, h_[1 - now.which].of(row) + unit);
    if (drops_)
      store_whole<A>(h * load_some(pointer<T>(w_.drop) + at, count),
                     state_[1 - now.which].of(row) + unit);
  }

  const RnnForward& args_;
  const RnnWeights& w_;
  Steps steps_;
  Groups<A> units_, outputs_;
  int64_t sequences_;
  bool projects_, norm_, drops_;
  Zone<A> zone_h_, zone_c_;
  Rows<A> bias_, gain_, peephole_, gain_c_, bias_c_;
  // h, and that times the mask of recurrent dropout, before and after a step.
  Rows<A> h_[2], state_[2];
  Rows<A> c_, q_;
  // r h before its product; c' and then u before a projection, c' before its norm.
  Rows<A> inner_, projected_, panels_, panels_hr_;
  int64_t team_;
};

}  // namespace

void rnn_forward(const RnnForward& args, int64_t threads) {
  run_for_cell<Forward>(args.kind.cell, args.gates.dtype, args, threads);
}

}  // namespace pydl::cpu::PYDL_ISA
