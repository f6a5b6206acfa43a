// A recurrent layer in one direction: what is asked of the operands, and which kernels serve a
// call.
// ../rnn.h has the definitions.
#include "rnn_kernels.h"

namespace pydl::cuda {

RnnSteps::RnnSteps(const Tensor& batch_sizes, int64_t tokens, int64_t sequences, bool reverse)
    : first{0}, reverse(reverse) {
  if (batch_sizes.data == nullptr) {
    const int64_t steps = sequences == 0 ? 0 : tokens / sequences;
    for (int64_t t = 0; t < steps; ++t) first.push_back(first.back() + sequences);
  } else {
    check(batch_sizes.dtype == DType::int64, "batch_sizes are int64");
    const auto* sizes = static_cast<const int64_t*>(batch_sizes.data);
    for (int64_t t = 0; t < batch_sizes.numel(); ++t) {
      const int64_t before = t == 0 ? sequences : sizes[t - 1];
      check(sizes[t] >= 0 && sizes[t] <= before, "batch_sizes grow to ", sizes[t], " at step ", t);
      first.push_back(first.back() + sizes[t]);
    }
  }
  check(first.back() == tokens, "batch_sizes are of ", first.back(), " tokens, got ", tokens);
}

RnnStep RnnSteps::at(int64_t number) const {
  const int64_t t = reverse ? count() - 1 - number : number, before = reverse ? t + 1 : t - 1;
  RnnStep step = {first[t], first[t + 1] - first[t], 0, 0};
  if (before >= 0 && before < count()) {
    step.before_first = first[before];
    const int64_t there = first[before + 1] - first[before];
    step.before_count = there < step.count ? there : step.count;
  }
  return step;
}

namespace {

void check_work(const Tensor& work, DType dtype, int64_t wanted) {
  const bool right = work.dtype == (dtype == DType::float64 ? DType::float64 : DType::float32);
  check(work.data != nullptr && right && work.numel() >= wanted, "rnn wants room for ", wanted,
        " sums to compute in, got ", work.data == nullptr ? 0 : work.numel());
}

}  // namespace

void rnn_forward(const RnnForward& args, int64_t stream) {
  const int64_t B = args.weights.h0.size[1], tokens = B == 0 ? 0 : args.y.size[1];
  const RnnSteps steps(args.weights.batch_sizes, tokens, B, args.kind.reverse);
  if (B == 0) return;
  check_work(args.work, args.weights.weight_hh.dtype,
             steps.count() + B * (args.weights.weight_hh.size[1] +
                                  2 * args.weights.weight_hh.size[1] / rnn_gates(args.kind.cell)));
  dispatch_floating(args.weights.weight_hh.dtype, "rnn_forward",
                    [&]<class T>(T) { rnn_forward_steps<T>(args, steps, stream); });
}

void rnn_backward(const RnnBackward& args, int64_t stream) {
  const RnnWeights& weights = args.weights;
  const int64_t B = weights.h0.size[1], tokens = B == 0 ? 0 : args.y.size[1];
  const RnnSteps steps(weights.batch_sizes, tokens, B, args.kind.reverse);
  const int64_t gates = rnn_gates(args.kind.cell);
  const int64_t extra = (weights.peephole.data == nullptr ? 0 : 3) +
                        (weights.norm.data == nullptr ? 0 : 2 * gates + 2);
  if (B > 0)
    check_work(args.work, weights.weight_hh.dtype,
               steps.count() + B * (gates + 4 + extra) * (weights.weight_hh.size[1] / gates));
  dispatch_floating(weights.weight_hh.dtype, "rnn_backward",
                    [&]<class T>(T) { rnn_backward_steps<T>(args, steps, stream); });
}

std::string rnn_path(const Tensor&, RnnCell, int64_t, bool, bool) { return "step by step"; }

}  // namespace pydl::cuda
