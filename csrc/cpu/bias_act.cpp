// Bias, residual and activation of a map, forward and backward (definition in ../bias_act.h).
//
// A task is a run of rows: with a bias, planes (n, c) of maps (N, C, ...), whose bias is one
// number, or pixels of channels-last maps, whose bias is a row; without one, runs of 4096 elements
// in whatever layout.
//
// Bytes: x (and residual) read, y written once; backward grad_y and saved read, grad_x written
// once. Operations: a comparison per element; for silu an exponential and a division, 30
// operations.
#include "../bias_act.h"

#include "epilogue.h"
#include "parallel.h"
#include "stream.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kRun = 4096;

// y = activation(x + bias + residual). `bias` is one number or, where it is `per_element`, a row; y
// may be x, so no element is computed twice.
template <Activation activation, bool per_element, class T, class Out>
void forward_row(const T* x, const accumulate_t<T>* bias, const T* residual, Out* y, int64_t size,
                 accumulate_t<T> slope) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(size, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
    using V = Vec<A, lanes>;
    V z = load_vec<lanes>(x + i);
    if constexpr (per_element) {
      z += load_vec<lanes>(bias + i);
    } else {
      z += *bias;
    }
    if (residual != nullptr) z += load_vec<lanes>(residual + i);
    write_vec<lanes>(activated<activation, lanes, A>(z, slope), y + i);
  });
}

// Rows of `size` elements, row r with the bias bias_of(r).
template <bool per_element, class T, class BiasOf>
void forward_rows(const BiasActForward& args, int64_t size, int64_t threads, BiasOf bias_of) {
  using A = accumulate_t<T>;
  const int64_t elements = args.x.numel(), rows = (elements + size - 1) / size;
  const T *x = static_cast<const T*>(args.x.data),
          *residual = static_cast<const T*>(args.residual.data);
  T* y = static_cast<T*>(args.y.data);
  const bool streams = x != y && worth_streaming<T>(elements);
  with_activation(args.epilogue.activation, [&]<Activation activation>() {
    share_out(rows, team_size(rows, elements, threads), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t first = row * size;
        const A* bias = bias_of(row);
        write_row(y + first, streams, [&](auto* out) {
          forward_row<activation, per_element>(
              x + first, bias, residual == nullptr ? nullptr : residual + first, out,
              std::min(size, elements - first), static_cast<A>(args.epilogue.slope));
        });
      }
    });
  });
}

template <class T>
void forward(const BiasActForward& args, bool channels_last, int64_t threads) {
  using A = accumulate_t<T>;
  // x + -0 is x, whatever its sign.
  static constexpr A none = -A{0};
  if (args.bias.data == nullptr)
    return forward_rows<false, T>(args, kRun, threads, [](int64_t) { return &none; });
  const int64_t channels = args.x.size[1];
  const T* from = static_cast<const T*>(args.bias.data);
  if (!channels_last) {
    const Scratch<A> memory(1, channels);
    load_row(from, memory.of(0), channels);
    return forward_rows<false, T>(args, args.x.numel() / (args.x.size[0] * channels), threads,
                                  [&](int64_t row) { return memory.of(0) + row % channels; });
  }
  // Rows of several pixels where there are few channels.
  const int64_t pixels = std::max<int64_t>(1, 256 / channels);
  const Scratch<A> memory(1, pixels * channels);
  for (int64_t p = 0; p < pixels; ++p) load_row(from, memory.of(0) + p * channels, channels);
  forward_rows<true, T>(args, pixels * channels, threads, [&](int64_t) { return memory.of(0); });
}

template <Activation activation, class T, class Out>
void backward_row(const T* grad_y, const T* saved, Out* grad_x, int64_t size,
                  accumulate_t<T> slope) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(size, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
    write_vec<lanes>(differentiated<activation, lanes, A>(load_vec<lanes>(grad_y + i),
                                                          load_vec<lanes>(saved + i), slope),
                     grad_x + i);
  });
}

}  // namespace

void bias_act_forward(const BiasActForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "bias_act",
                    [&]<class T>(T) { forward<T>(args, channels_last, threads); });
}

void bias_act_backward(const BiasActBackward& args, int64_t threads) {
  dispatch_floating(args.grad_y.dtype, "bias_act", [&]<class T>(T) {
    const int64_t elements = args.grad_y.numel(), rows = (elements + kRun - 1) / kRun;
    const bool streams = worth_streaming<T>(elements);
    with_activation(args.epilogue.activation, [&]<Activation activation>() {
      share_out(rows, team_size(rows, elements, threads), [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t first = begin * kRun; first < std::min(end * kRun, elements); first += kRun) {
          write_row(static_cast<T*>(args.grad_x.data) + first, streams, [&](auto* out) {
            backward_row<activation>(static_cast<const T*>(args.grad_y.data) + first,
                                     static_cast<const T*>(args.saved.data) + first, out,
                                     std::min(kRun, elements - first),
                                     static_cast<accumulate_t<T>>(args.epilogue.slope));
          });
        }
      });
    });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
