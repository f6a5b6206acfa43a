// A layer of a recurrent network in one direction, over sequences that are packed (Elman 1990;
// LSTM: Hochreiter and Schmidhuber 1997, Gers et al. 2000; GRU: Cho et al. 2014).
//
// Sizes: T steps, B sequences, S = sum of batch_sizes tokens, H hidden units, P numbers in h (H, or
// less where weight_hr projects), G gates (1; lstm 4: i f g o; gru 3: r z n). Step t holds the
// tokens of the sequences b < batch_sizes[t], one row after another; batch_sizes never grows. All
// rows of B are there at step 0. `reverse` goes from t = T-1 down to 0, and sequence b enters at
// its own last step. What a sequence starts from is h0[b] and c0[b], what it ends with h_n[b] and
// c_n[b]; h and c below are those of its step before, of which h is y as it is stored.
//
//   x = gates                          the inputs' products with their bias, made outside
//   p = weight_hh (h * drop)           row j of G H: what gate j / H of unit j % H gets
//   q = p + bias_hh                    or, where `norm` is given (layer norm; Ba et al. 2016):
//   q = norm * (p - mean(p)) / sqrt(var(p) + eps) + bias_hh
//                                      with the biased var; over all G H rows, but in a GRU over
//                                      those of r and z together and over those of n
//
//   rnn_tanh  a = tanh(x + q)          rnn_relu  a = relu(x + q)
//             h' = a
//   lstm      i = sigmoid(x_i + q_i + peephole_i c)    f = sigmoid(x_f + q_f + peephole_f c)
//             g = tanh(x_g + q_g)
//             c' = f c + i g                           (peepholes: Gers et al. 2002)
//             o = sigmoid(x_o + q_o + peephole_o c')
//             u = o tanh(c')           or o tanh(norm_c (c' - mean(c')) / sqrt(var(c') + eps)
//                                      + bias_c), over the H units
//             h' = u                   or weight_hr u
//   gru       r = sigmoid(x_r + q_r)   z = sigmoid(x_z + q_z)
//             n = tanh(x_n + r q_n)    PyTorch's and cuDNN's: reset after the product
//             h' = (1 - z) n + z h
//   gru_reset_before                   as gru, but n = tanh(x_n + q_n) with
//             p_n = weight_hh_n (r * h * drop)
//
//   y = h'                             and the next c = c'; or with zoneout (Krueger et al. 2017)
//   y = h                              where zone_h is 1, and the old c where zone_c is 1
//   y = z h + (1 - z) h'               with z = zoneout_h, without these masks, and c likewise
//
// Every tensor is contiguous and in one dtype, except c, rstd and what adds up over tokens
// (grad_peephole, grad_norm, grad_norm_c), which are float32, or float64 for float64: `sums`. All
// arithmetic is in `sums`. A matrix (rows, columns) comes as (1, rows, 1, 1, columns), a vector as
// (1, size, 1, 1, 1). Tensors marked [..] have no data where they do not apply.
#pragma once

#include <string>

#include "tensor.h"

namespace pydl {

enum class RnnCell : int { rnn_tanh, rnn_relu, lstm, gru, gru_reset_before };

PYDL_HOST_DEVICE constexpr bool is_gru(RnnCell cell) {
  return cell == RnnCell::gru || cell == RnnCell::gru_reset_before;
}
// G and K.
PYDL_HOST_DEVICE constexpr int gates_of(RnnCell cell) {
  return cell == RnnCell::lstm ? 4 : is_gru(cell) ? 3 : 1;
}
PYDL_HOST_DEVICE constexpr int kept_of(RnnCell cell) {
  return cell == RnnCell::gru ? 4 : gates_of(cell);
}

struct RnnKind {
  RnnCell cell;
  bool reverse;
  double zoneout_h;  // used where zone_h has no data
  double zoneout_c;
  double eps;  // of both norms
};

// What both passes read.
struct RnnWeights {
  Tensor weight_hh;    // (G H, P)
  Tensor bias_hh;      // (G H); [none: zeros]
  Tensor h0;           // (B, P)
  Tensor c0;           // (B, H); [lstm]
  Tensor weight_hr;    // (P, H); [lstm with a projection]
  Tensor peephole;     // (3, H): of i, f, o; [lstm]
  Tensor norm;         // (G H); [layer norm]
  Tensor norm_c;       // (H); [layer norm of lstm]
  Tensor bias_c;       // (H); [layer norm of lstm]
  Tensor drop;         // (B, P): 0 or 1 / (1 - p), one mask for all steps; [recurrent dropout]
  Tensor zone_h;       // (S, P), uint8; [zoneout while training]
  Tensor zone_c;       // (S, H), uint8; [zoneout of lstm while training]
  Tensor batch_sizes;  // (T,), int64, on the CPU; [none: every step has B tokens]
};

// What the forward leaves for the backward; no data where nothing is kept.
struct RnnSaved {
  Tensor c;            // (S, H), sums: the cell after each step; [lstm]
  Tensor activated;    // (S, K H): a; i f g o; gru r z n q_n (K = 4); gru_reset_before r z n
  Tensor normalised;   // (S, G H): (p - mean) / sqrt(var + eps); [layer norm]
  Tensor rstd;         // (S, R), sums: 1 / sqrt(var + eps) of p; R = 1, in a GRU 2; [layer norm]
  Tensor unprojected;  // (S, H): u; [projection]
};

struct RnnForward {
  Tensor gates;  // (S, G H)
  RnnWeights weights;
  Tensor y;    // (S, P), written
  Tensor h_n;  // (B, P), written
  Tensor c_n;  // (B, H), written; [lstm]
  RnnSaved saved;
  Tensor work;  // (T + (G + 2) B H), sums: room to compute in; [CUDA]
  RnnKind kind;
};

struct RnnBackward {
  Tensor grad_y;    // (S, P); [none: zeros]
  Tensor grad_h_n;  // (B, P); [none: zeros]
  Tensor grad_c_n;  // (B, H); [none: zeros]
  RnnWeights weights;
  Tensor y;  // (S, P)
  RnnSaved saved;
  Tensor grad_gates;      // (S, G H), written
  Tensor grad_products;   // of p where it is not grad_gates: (S, G H) with layer norm; (S, H), that
                          // of p_n, in a gru without; written
  Tensor grad_projected;  // (S, P): of weight_hr u, written; [projection]
  Tensor grad_h0;         // (B, P), written
  Tensor grad_c0;         // (B, H), written; [lstm]
  Tensor grad_peephole;   // (3, H), sums, written; [peephole]
  Tensor grad_norm;       // (2, G H), sums: of norm and of bias_hh, written; [layer norm]
  Tensor grad_norm_c;     // (2, H), sums: of norm_c and of bias_c, written; [layer norm of lstm]
  Tensor work;            // (T + (G + 4 + E) B H), sums: room to compute in, where E is 3 for
                          // peepholes and 2 G + 2 for layer norm; [CUDA]
  RnnKind kind;
};

// One step of rnn_tanh, rnn_relu, lstm or gru where both products are made outside: x = gates,
// q = products, each with its bias.
struct RnnCellForward {
  Tensor gates;      // (B, G H)
  Tensor products;   // (B, G H)
  Tensor h;          // (B, H); [gru]
  Tensor c;          // (B, H); [lstm]
  Tensor peephole;   // (3, H); [lstm]
  Tensor h_next;     // (B, H), written
  Tensor c_next;     // (B, H), written; [lstm]
  Tensor activated;  // (B, K H), written; no data: not kept
  RnnCell cell;
};

struct RnnCellBackward {
  Tensor grad_h;         // (B, H); [none: zeros]
  Tensor grad_c;         // (B, H); [none: zeros]
  Tensor activated;      // (B, K H)
  Tensor h;              // (B, H), before the step; [gru]
  Tensor c;              // (B, H), before the step; [lstm]
  Tensor c_next;         // (B, H); [lstm]
  Tensor peephole;       // (3, H); [lstm]
  Tensor grad_gates;     // (B, G H), written
  Tensor grad_products;  // (B, G H), written; [gru: elsewhere it is grad_gates]
  Tensor grad_h_before;  // (B, H), written: what does not go through the products; [gru]
  Tensor grad_c_before;  // (B, H), written; [lstm]
  Tensor grad_peephole;  // (3, H), sums, written; [peephole]
  RnnCell cell;
};

namespace cpu {
void rnn_forward(const RnnForward& args, int64_t threads);
void rnn_backward(const RnnBackward& args, int64_t threads);
void rnn_cell_forward(const RnnCellForward& args, int64_t threads);
void rnn_cell_backward(const RnnCellBackward& args, int64_t threads);
}  // namespace cpu

namespace cuda {
void rnn_forward(const RnnForward& args, int64_t stream);
void rnn_backward(const RnnBackward& args, int64_t stream);
void rnn_cell_forward(const RnnCellForward& args, int64_t stream);
void rnn_cell_backward(const RnnCellBackward& args, int64_t stream);
// How a call goes on the current device, in words: "persistent, ..." where one kernel takes all
// steps, else "step by step: " and why.
std::string rnn_path(const Tensor& weight_hh, RnnCell cell, int64_t sequences, bool layer_norm,
                     bool backward);
// Whether one kernel may take all steps; for tests and comparisons.
void rnn_allow_persistent(bool allowed);
}  // namespace cuda

}  // namespace pydl
