// What the recurrent kernels may rely on: dtypes, sizes, contiguous memory.
#pragma once

#include <initializer_list>

#include "rnn.h"

namespace pydl {

// A contiguous matrix, or with rows == 0 a vector; absent where `optional`.
inline void check_matrix(const char* name, const Tensor& tensor, DType dtype, int64_t rows,
                         int64_t columns, bool optional = false) {
  if (tensor.data == nullptr && (optional || tensor.numel() == 0 || rows * columns == 0)) return;
  const bool vector = rows == 0;
  const int64_t outer = vector ? columns : rows, inner = vector ? 1 : columns;
  check(tensor.data != nullptr && tensor.dtype == dtype && tensor.size[1] == outer &&
            tensor.size[4] == inner && tensor.numel() == outer * inner &&
            (inner <= 1 || tensor.stride[4] == 1) && (outer <= 1 || tensor.stride[1] == inner),
        "rnn needs ", name, " of ", outer, " x ", inner,
        ", contiguous and in the dtype of the rest");
}

struct RnnSizes {
  DType dtype, sums;
  int64_t tokens, sequences, gates, kept, units, outputs;
};

inline RnnSizes check_rnn_weights(const RnnWeights& w, const RnnKind& kind, DType dtype,
                                  int64_t tokens) {
  const bool lstm = kind.cell == RnnCell::lstm;
  RnnSizes sizes{dtype,
                 dtype == DType::float64 ? DType::float64 : DType::float32,
                 tokens,
                 w.h0.size[1],
                 gates_of(kind.cell),
                 kept_of(kind.cell),
                 w.weight_hh.size[1] / gates_of(kind.cell),
                 w.h0.size[4]};
  const auto [dt, sums, t, sequences, gates, kept, units, outputs] = sizes;
  check(t > 0 && sequences > 0 && units > 0 && outputs > 0, "rnn needs at least one token");
  check(lstm ? (w.weight_hr.data != nullptr || outputs == units)
             : (outputs == units && w.weight_hr.data == nullptr),
        "rnn needs a projection where h and the hidden units differ in size");
  check((w.norm_c.data != nullptr) == (w.bias_c.data != nullptr) &&
            (w.norm_c.data != nullptr) == (lstm && w.norm.data != nullptr),
        "rnn needs the norms of a layer's products and of an LSTM's c together");
  check_matrix("weight_hh", w.weight_hh, dt, gates * units, outputs);
  check_matrix("bias_hh", w.bias_hh, dt, 0, gates * units, true);
  check_matrix("h0", w.h0, dt, sequences, outputs);
  check_matrix("c0", w.c0, dt, sequences, units, !lstm);
  check_matrix("weight_hr", w.weight_hr, dt, outputs, units, true);
  check_matrix("peephole", w.peephole, dt, 3, units, true);
  check_matrix("norm", w.norm, dt, 0, gates * units, true);
  check_matrix("norm_c", w.norm_c, dt, 0, units, true);
  check_matrix("bias_c", w.bias_c, dt, 0, units, true);
  check_matrix("drop", w.drop, dt, sequences, outputs, true);
  check_matrix("zone_h", w.zone_h, DType::uint8, t, outputs, true);
  check_matrix("zone_c", w.zone_c, DType::uint8, t, units, true);
  if (w.batch_sizes.data == nullptr) {
    check(t % sequences == 0, "rnn needs as many tokens at every step as there are sequences");
    return sizes;
  }
  check_matrix("batch_sizes", w.batch_sizes, DType::int64, 0, w.batch_sizes.size[1]);
  const auto* at = static_cast<const int64_t*>(w.batch_sizes.data);
  int64_t sum = 0, most = sequences;
  for (int64_t step = 0; step < w.batch_sizes.size[1]; ++step) {
    check(at[step] >= 1 && at[step] <= most && (step > 0 || at[0] == sequences),
          "rnn needs batch_sizes that begin with the number of sequences and never grow");
    most = at[step];
    sum += most;
  }
  check(sum == t, "rnn needs batch_sizes that add up to the number of tokens");
  return sizes;
}

inline void check_rnn_saved(const RnnSaved& saved, const RnnWeights& w, const RnnKind& kind,
                            const RnnSizes& sizes, bool optional) {
  const auto [dt, sums, t, sequences, gates, kept, units, outputs] = sizes;
  check_matrix("activated", saved.activated, dt, t, kept * units, optional);
  if (saved.activated.data == nullptr) return;
  const bool norm = w.norm.data != nullptr;
  check_matrix("c", saved.c, sums, t, units, kind.cell != RnnCell::lstm);
  check_matrix("normalised", saved.normalised, dt, t, gates * units, !norm);
  check_matrix("rstd", saved.rstd, sums, t, is_gru(kind.cell) ? 2 : 1, !norm);
}

inline void check_rnn(const RnnForward& args) {
  const RnnWeights& w = args.weights;
  const RnnSizes sizes = check_rnn_weights(w, args.kind, args.gates.dtype, args.gates.size[1]);
  const auto [dt, sums, t, sequences, gates, kept, units, outputs] = sizes;
  const bool lstm = args.kind.cell == RnnCell::lstm;
  check_matrix("gates", args.gates, dt, t, gates * units);
  check_matrix("y", args.y, dt, t, outputs);
  check_matrix("h_n", args.h_n, dt, sequences, outputs);
  check_matrix("c_n", args.c_n, dt, sequences, units, !lstm);
  check_rnn_saved(args.saved, w, args.kind, sizes, true);
  check_matrix("unprojected", args.saved.unprojected, dt, t, units,
               args.saved.activated.data == nullptr || w.weight_hr.data == nullptr);
}

inline void check_rnn(const RnnBackward& args) {
  const RnnWeights& w = args.weights;
  const RnnSizes sizes = check_rnn_weights(w, args.kind, args.y.dtype, args.y.size[1]);
  const auto [dt, sums, t, sequences, gates, kept, units, outputs] = sizes;
  const bool lstm = args.kind.cell == RnnCell::lstm, norm = w.norm.data != nullptr;
  check_matrix("y", args.y, dt, t, outputs);
  check_rnn_saved(args.saved, w, args.kind, sizes, false);
  check_matrix("grad_y", args.grad_y, dt, t, outputs, true);
  check_matrix("grad_h_n", args.grad_h_n, dt, sequences, outputs, true);
  check_matrix("grad_c_n", args.grad_c_n, dt, sequences, units, true);
  check_matrix("grad_gates", args.grad_gates, dt, t, gates * units);
  check_matrix("grad_products", args.grad_products, dt, t, norm ? gates * units : units,
               !norm && args.kind.cell != RnnCell::gru);
  check_matrix("grad_projected", args.grad_projected, dt, t, outputs, w.weight_hr.data == nullptr);
  check_matrix("grad_h0", args.grad_h0, dt, sequences, outputs);
  check_matrix("grad_c0", args.grad_c0, dt, sequences, units, !lstm);
  check_matrix("grad_peephole", args.grad_peephole, sums, 3, units, w.peephole.data == nullptr);
  check_matrix("grad_norm", args.grad_norm, sums, 2, gates * units, !norm);
  check_matrix("grad_norm_c", args.grad_norm_c, sums, 2, units, !norm || !lstm);
}

inline void check_rnn_cell(const RnnCellForward& args) {
  const int64_t rows = args.h_next.size[1], units = args.h_next.size[4];
  const DType dtype = args.gates.dtype;
  const bool lstm = args.cell == RnnCell::lstm;
  check(args.cell != RnnCell::gru_reset_before && units > 0, "rnn_cell serves no such cell");
  check_matrix("gates", args.gates, dtype, rows, gates_of(args.cell) * units);
  check_matrix("products", args.products, dtype, rows, gates_of(args.cell) * units);
  check_matrix("h", args.h, dtype, rows, units, args.cell != RnnCell::gru);
  check_matrix("c", args.c, dtype, rows, units, !lstm);
  check_matrix("peephole", args.peephole, dtype, 3, units, true);
  check_matrix("h_next", args.h_next, dtype, rows, units);
  check_matrix("c_next", args.c_next, dtype, rows, units, !lstm);
  check_matrix("activated", args.activated, dtype, rows, kept_of(args.cell) * units, true);
}

inline void check_rnn_cell(const RnnCellBackward& args) {
  const DType dtype = args.activated.dtype;
  const DType sums = dtype == DType::float64 ? DType::float64 : DType::float32;
  const bool lstm = args.cell == RnnCell::lstm, gru = args.cell == RnnCell::gru;
  const int64_t rows = args.activated.size[1], gates = gates_of(args.cell);
  const int64_t units = args.activated.size[4] / kept_of(args.cell);
  check(args.cell != RnnCell::gru_reset_before && units > 0, "rnn_cell serves no such cell");
  check_matrix("activated", args.activated, dtype, rows, kept_of(args.cell) * units);
  check_matrix("grad_h", args.grad_h, dtype, rows, units, true);
  check_matrix("grad_c", args.grad_c, dtype, rows, units, true);
  check_matrix("h", args.h, dtype, rows, units, !gru);
  check_matrix("c", args.c, dtype, rows, units, !lstm);
  check_matrix("c_next", args.c_next, dtype, rows, units, !lstm);
  check_matrix("peephole", args.peephole, dtype, 3, units, true);
  check_matrix("grad_gates", args.grad_gates, dtype, rows, gates * units);
  check_matrix("grad_products", args.grad_products, dtype, rows, gates * units, !gru);
  check_matrix("grad_h_before", args.grad_h_before, dtype, rows, units, !gru);
  check_matrix("grad_c_before", args.grad_c_before, dtype, rows, units, !lstm);
  check_matrix("grad_peephole", args.grad_peephole, sums, 3, units, args.peephole.data == nullptr);
}

}  // namespace pydl
