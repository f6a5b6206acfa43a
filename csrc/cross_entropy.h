// Cross entropy between the softmax of x along its classes and a target, in one pass. x is read as
// (N, C, inner); a position is a pair (n, i). With class indices t[n, i], weights w[c] (1 where
// there are none) and smoothing s,
//
//   loss[n, i] = (1 - s) w[t] (lse - x[t]) + s / C * sum over c of w[c] (lse - x[c])
//
// and 0 where t == ignore_index, with
//
//   peak  = max over c of x[c]
//   total = sum over c of exp(x[c] - peak)
//   lse   = peak + log(total)
//
// With class probabilities q[n, c, i] in place of indices,
//
//   loss[n, i] = sum over c of w[c] ((1 - s) q[c] + s / C) (lse - x[c])
//
// Reductions: none; sum; mean, which divides the sum by `divisor`: the sum of w[t] over the
// positions that count, or the number of positions where the target is probabilities.
//
// What is saved is peak and total of each position, two numbers where a probability map has C.
// (One, lse, would do but for its rounding error: at x = 100 it is 4e-6, and so is that of every
// probability.) The gradient recomputes the probabilities,
//
//   p[c]      = exp(x[c] - peak) / total
//
//   indices:
//   W         = (1 - s) w[t] + s / C sum(w)
//   grad_x[c] = g (p[c] W - (1 - s) w[t] [c == t] - s / C w[c])
//
//   probabilities:
//   q'        = (1 - s) q + s / C
//   W         = sum over c of w[c] q'[c]
//   grad_x[c] = g (p[c] W - w[c] q'[c])
//
// with g = grad_loss (/ divisor for the mean), 0 at positions that are ignored.
#pragma once

#include "tensor.h"

namespace pydl {

enum class Reduction : int { none, sum, mean };

struct Criterion {
  int64_t ignore_index;
  double label_smoothing;
  Reduction reduction;
};

struct CrossEntropyForward {
  Tensor x;        // (N, C, inner)
  Tensor target;   // (N * inner,) of int64, or like x
  Tensor weight;   // (C,), x's dtype; data == nullptr where there is none
  Tensor loss;     // (1,), or (N * inner,) without reduction; x's dtype, written
  Tensor peak;     // (N * inner,) of float32 (float64 for float64), written
  Tensor total;    // like peak, written
  Tensor divisor;  // (1,), like peak, written: what the mean divides by, 1 for other reductions
  Criterion criterion;
};

struct CrossEntropyBackward {
  Tensor grad_loss;                                // like loss
  Tensor x, target, weight, peak, total, divisor;  // as above
  Tensor grad_x;                                   // like x, written; must not overlap it
  Criterion criterion;
};

// CPU: every tensor contiguous. Throws std::out_of_range (IndexError) for a class index that is not
// in [0, C) and not ignore_index.
namespace cpu {
void cross_entropy_forward(const CrossEntropyForward& args, int64_t threads);
void cross_entropy_backward(const CrossEntropyBackward& args, int64_t threads);
}  // namespace cpu

}  // namespace pydl
