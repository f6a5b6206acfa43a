// A recurrent layer in one direction: what is required of the operands, and which kernels serve a
// call. ../rnn.h has the definitions.
#include <mutex>

#include "../rnn_checks.h"
#include "rnn_kernels.h"

namespace pydl::cuda {

RnnSteps::RnnSteps(const Tensor& batch_sizes, int64_t tokens, int64_t sequences, bool reverse)
    : first{0}, reverse(reverse) {
  const auto* sizes = static_cast<const int64_t*>(batch_sizes.data);
  const int64_t steps = sizes == nullptr ? tokens / sequences : batch_sizes.size[1];
  for (int64_t t = 0; t < steps; ++t)
    first.push_back(first.back() + (sizes == nullptr ? sequences : sizes[t]));
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

constexpr int counts_a_launch = 512;
struct Counts {
  int count[counts_a_launch];
};

__global__ void put_counts(Counts counts, int* to, int64_t count) {
  for (int64_t i = threadIdx.x; i < count; i += block_size) to[i] = counts.count[i];
}

bool persistent_allowed = true;
// Guards what CUDA remembers about a kernel, how much shared memory it may have, which a plan asks
// for and a launch sets: no other thread may come in between.
std::mutex planning;

void check_work(const Tensor& work, DType dtype, int64_t wanted) {
  const bool right = work.dtype == (dtype == DType::float64 ? DType::float64 : DType::float32);
  check(work.data != nullptr && right && work.numel() >= wanted, "rnn wants room for ", wanted,
        " sums to compute in, got ", work.data == nullptr ? 0 : work.numel());
}

bool aligned(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0; }

// Which kernels serve a call, before any is launched.
struct Path {
  bool tensor;   // with tensor cores
  RnnPlan plan;  // its reason says why the steps go one by one, where they do
};

template <class T>
Path path_of(RnnCell cell, int64_t hidden, int64_t sequences, bool projects, bool layer_norm,
             bool backward, bool whole_chunks) {
  Path path = {sizeof(T) == 2 && hidden % 8 == 0 && whole_chunks, {}};
  if (projects)
    path.plan.reason = "h is projected";
  else if (layer_norm)
    path.plan.reason = "layer norm";
  else if (hidden == 0 || sequences == 0)
    path.plan.reason = "nothing to compute";
  else
    path.plan = (backward ? rnn_backward_plan<T> : rnn_forward_plan<T>)(cell, hidden, sequences,
                                                                        path.tensor);
  return path;
}

}  // namespace

RnnCounts rnn_counts(const RnnSteps& steps, int64_t sequences, int* room, int64_t stream) {
  const int64_t count = steps.count();
  bool all = true;
  for (int64_t t = 0; t < count; ++t) all = all && steps.first[t + 1] - steps.first[t] == sequences;
  if (all) return {nullptr, count, sequences, steps.first.back()};
  for (int64_t from = 0; from < count; from += counts_a_launch) {
    Counts counts;
    const int64_t n = count - from < counts_a_launch ? count - from : counts_a_launch;
    for (int64_t i = 0; i < n; ++i)
      counts.count[i] = static_cast<int>(steps.first[from + i + 1] - steps.first[from + i]);
    launch(put_counts, 1, block_size, 0, stream, counts, room + from, n);
  }
  return {room, count, sequences, steps.first.back()};
}

void rnn_forward(const RnnForward& args, int64_t stream) {
  check_rnn(args);
  const RnnWeights& weights = args.weights;
  const int64_t B = weights.h0.size[1], tokens = args.y.size[1];
  const RnnSteps steps(weights.batch_sizes, tokens, B, args.kind.reverse);
  const int64_t gates = gates_of(args.kind.cell), hidden = weights.weight_hh.size[1] / gates;
  check_work(args.work, weights.weight_hh.dtype, steps.count() + B * (gates + 2) * hidden);
  dispatch_floating(weights.weight_hh.dtype, "rnn_forward", [&]<class T>(T) {
    const std::lock_guard lock(planning);
    const Path path = path_of<T>(args.kind.cell, hidden, B, weights.weight_hr.data != nullptr,
                                 weights.norm.data != nullptr, false, aligned(args.work));
    if (path.plan.reason.empty() && persistent_allowed)
      rnn_forward_persistent<T>(args, steps, path.plan, path.tensor, stream);
    else
      rnn_forward_steps<T>(args, steps, stream);
  });
}

void rnn_backward(const RnnBackward& args, int64_t stream) {
  check_rnn(args);
  const RnnWeights& weights = args.weights;
  const int64_t B = weights.h0.size[1], tokens = args.y.size[1];
  const RnnSteps steps(weights.batch_sizes, tokens, B, args.kind.reverse);
  const int64_t gates = gates_of(args.kind.cell), hidden = weights.weight_hh.size[1] / gates;
  const int64_t extra = (weights.peephole.data == nullptr ? 0 : 3) +
                        (weights.norm.data == nullptr ? 0 : 2 * gates + 2);
  check_work(args.work, weights.weight_hh.dtype, steps.count() + B * (gates + 4 + extra) * hidden);
  dispatch_floating(weights.weight_hh.dtype, "rnn_backward", [&]<class T>(T) {
    const std::lock_guard lock(planning);
    const Path path = path_of<T>(args.kind.cell, hidden, B, weights.weight_hr.data != nullptr,
                                 weights.norm.data != nullptr, true,
                                 aligned(args.grad_gates) && aligned(args.grad_products));
    if (path.plan.reason.empty() && persistent_allowed)
      rnn_backward_persistent<T>(args, steps, path.plan, path.tensor, stream);
    else
      rnn_backward_steps<T>(args, steps, stream);
  });
}

std::string rnn_path(const Tensor& weight_hh, RnnCell cell, int64_t sequences, bool layer_norm,
                     bool backward) {
  std::ostringstream words;
  dispatch_floating(weight_hh.dtype, "rnn_path", [&]<class T>(T) {
    const std::lock_guard lock(planning);
    const int64_t hidden = weight_hh.size[1] / gates_of(cell);
    const auto [tensor, plan] = path_of<T>(cell, hidden, sequences, weight_hh.size[4] != hidden,
                                           layer_norm, backward, true);
    if (plan.reason.empty())
      words << "persistent, " << plan.blocks << " blocks of " << plan.units << " units, "
            << plan.shared_bytes << " bytes of shared memory each"
            << (tensor ? ", tensor cores" : "");
    else
      words << "step by step: " << plan.reason;
  });
  return words.str();
}

void rnn_allow_persistent(bool allowed) {
  const std::lock_guard lock(planning);
  persistent_allowed = allowed;
}

}  // namespace pydl::cuda
