// Response normalisation within a channel: ../spatial_norm.h has the equations.
//
//   forward    scale[p]  = k + rate * sum of x[p']^2 over the box of p
//              y[p]      = x[p] * scale[p]^-beta
//   backward   term[p]   = grad_y[p] * x[p] * scale[p]^(-beta - 1)
//              grad_x[p] = grad_y[p] * scale[p]^-beta
//                          - 2 * rate * beta * x[p] * sum of term[p'] over the transposed box of p
//
// A thread owns one column of a map, (n, c, d, w) and a strip of neighbouring lines, with a sum for
// each in registers. It walks the positions that any box of the strip reaches, once and in scan
// order, and adds each to the sums whose boxes hold it: (size + strip - 1) * size values serve
// `strip` outputs of a plane. Backward would need a box of boxes, so it makes the terms in a first
// launch and adds them up in a second. Every box is summed anew, in a fixed order.
//
// The strip is 8 lines: neighbouring threads are neighbours in memory in either layout, and every
// load coalesces.
//
// Least traffic: forward reads x and writes y, 8 bytes per element in float32; backward reads
// grad_y and x twice, and writes and reads the terms: 28 bytes with the result. A box of boxes from
// shared memory would save 16 of them; no network that trains needs it.
#include <algorithm>
#include <cmath>

#include "../spatial_norm.h"
#include "element.h"

namespace pydl::cuda {
namespace {

constexpr int strip = 8;  // lines of a thread

// How far a box reaches from its position, along every axis.
struct Reach {
  int64_t before, after;
};

template <class A>
struct Norm {
  Reach reach;
  A rate, beta, k;

  __device__ A scale(A squares) const { return k + rate * squares; }
  __device__ A power(A scale) const { return std::pow(scale, -beta); }
};

// The first line of a thread's strip, and the rest of where it is.
__device__ Element strip_of(int64_t item, const int64_t (&size)[5], bool channels_last) {
  const int64_t strips[5] = {size[0], size[1], size[2], (size[3] + strip - 1) / strip, size[4]};
  Element e = element_of(item, strips, channels_last);
  e.h *= strip;
  return e;
}

// sum[j] = the values in the box of line at.h + j, for every line of the strip.
template <class T, class A, class Map>
__device__ void box_sums(const View<const T>& values, const Element& at, const Reach& reach,
                         A (&sum)[strip], Map map) {
  const int64_t first_d = max(at.d - reach.before, int64_t{0}),
                last_d = min(at.d + reach.after, values.size[2] - 1);
  const int64_t first_h = max(at.h - reach.before, int64_t{0}),
                last_h = min(at.h + strip - 1 + reach.after, values.size[3] - 1);
  const int64_t first_w = max(at.w - reach.before, int64_t{0}),
                last_w = min(at.w + reach.after, values.size[4] - 1);
  const int64_t size = reach.before + reach.after + 1;
  for (int64_t d = first_d; d <= last_d; ++d) {
    for (int64_t h = first_h; h <= last_h; ++h) {
      const T* line = &values.at(at.n, at.c, d, h, first_w);
      A along = 0;
      for (int64_t w = first_w; w <= last_w; ++w, line += values.stride[4]) along += map(A(*line));
      UNROLLED
      for (int j = 0; j < strip; ++j) {
        if (inside(h - at.h - j + reach.before, size)) sum[j] += along;
      }
    }
  }
}

template <class A>
__device__ A square(A value) {
  return value * value;
}

template <class T>
__global__ void forward(View<const T> x, View<T> y, Norm<accumulate_t<T>> norm, bool channels_last,
                        int64_t items) {
  using A = accumulate_t<T>;
  const int64_t item = thread_number();
  if (item >= items) return;
  const Element at = strip_of(item, x.size, channels_last);
  A sum[strip] = {};
  box_sums(x, at, norm.reach, sum, square<A>);
  UNROLLED
  for (int j = 0; j < strip; ++j) {
    if (at.h + j >= x.size[3]) break;
    const A value = x.at(at.n, at.c, at.d, at.h + j, at.w);
    y.at(at.n, at.c, at.d, at.h + j, at.w) = T(value * norm.power(norm.scale(sum[j])));
  }
}

// term = grad_y * x * scale^(-beta - 1), and grad_y * scale^-beta where grad_x is to be.
template <class T>
__global__ void terms(View<const T> grad_y, View<const T> x, View<accumulate_t<T>> term,
                      Norm<accumulate_t<T>> norm, bool channels_last, int64_t items) {
  using A = accumulate_t<T>;
  const int64_t item = thread_number();
  if (item >= items) return;
  const Element at = strip_of(item, x.size, channels_last);
  A sum[strip] = {};
  box_sums(x, at, norm.reach, sum, square<A>);
  UNROLLED
  for (int j = 0; j < strip; ++j) {
    if (at.h + j >= x.size[3]) break;
    const A scale = norm.scale(sum[j]);
    const A direct = A(grad_y.at(at.n, at.c, at.d, at.h + j, at.w)) * norm.power(scale);
    term.at(at.n, at.c, at.d, at.h + j, at.w) =
        direct * (A(x.at(at.n, at.c, at.d, at.h + j, at.w)) / scale);
  }
}

template <class T>
__global__ void backward(View<const T> grad_y, View<const T> x, View<const accumulate_t<T>> term,
                         View<T> grad_x, Norm<accumulate_t<T>> norm, bool channels_last,
                         int64_t items) {
  using A = accumulate_t<T>;
  const int64_t item = thread_number();
  if (item >= items) return;
  const Element at = strip_of(item, x.size, channels_last);
  A squares[strip] = {}, through[strip] = {};
  box_sums(x, at, norm.reach, squares, square<A>);
  const Reach transposed{norm.reach.after, norm.reach.before};
  box_sums(term, at, transposed, through, [](A value) { return value; });
  const A slope = 2 * norm.rate * norm.beta;
  UNROLLED
  for (int j = 0; j < strip; ++j) {
    if (at.h + j >= x.size[3]) break;
    const A direct =
        A(grad_y.at(at.n, at.c, at.d, at.h + j, at.w)) * norm.power(norm.scale(squares[j]));
    const A value = x.at(at.n, at.c, at.d, at.h + j, at.w);
    grad_x.at(at.n, at.c, at.d, at.h + j, at.w) = T(direct - slope * value * through[j]);
  }
}

// Calls launch_strips with the element type, the window's numbers and the number of threads.
template <class Arguments, class Launch>
void dispatch(const Arguments& args, const Tensor& output, Launch&& launch_strips) {
  check(args.size >= 1, "spatial norm expects a window of at least 1 position, got ", args.size);
  check(same_size(args.x, output), "spatial norm expects tensors of one size");
  check(args.x.dtype == output.dtype, "spatial norm expects tensors of one dtype");
  if (output.numel() == 0) return;
  // A window that reaches past the map from every position holds no more than one that just does.
  const int64_t longest = std::max(std::max(args.x.size[2], args.x.size[3]), args.x.size[4]);
  const Reach reach{std::min(args.size / 2, longest), std::min((args.size - 1) / 2, longest)};
  const int64_t lines = args.x.size[3];
  const int64_t items = output.numel() / lines * ((lines + strip - 1) / strip);
  dispatch_floating(args.x.dtype, "spatial norm", [&](auto type) {
    using A = accumulate_t<decltype(type)>;
    const Norm<A> norm{reach, static_cast<A>(args.rate), static_cast<A>(args.beta),
                       static_cast<A>(args.k)};
    launch_strips(type, norm, output.channels_last(), items);
  });
}

}  // namespace

void spatial_norm_forward(const SpatialNormForward& args, int64_t stream) {
  dispatch(args, args.y, [&](auto type, const auto& norm, bool channels_last, int64_t items) {
    using T = decltype(type);
    launch(forward<T>, blocks_for(items), block_size, 0, stream, View<const T>(args.x),
           View<T>(args.y), norm, channels_last, items);
  });
}

void spatial_norm_backward(const SpatialNormBackward& args, int64_t stream) {
  check(same_size(args.x, args.grad_y) && same_size(args.x, args.term),
        "spatial norm expects tensors of one size");
  check(args.x.dtype == args.grad_y.dtype, "spatial norm expects tensors of one dtype");
  dispatch(args, args.grad_x, [&](auto type, const auto& norm, bool channels_last, int64_t items) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    check(args.term.dtype == (sizeof(A) == 8 ? DType::float64 : DType::float32),
          "spatial norm expects terms of the type sums are in");
    const int64_t blocks = blocks_for(items);
    launch(terms<T>, blocks, block_size, 0, stream, View<const T>(args.grad_y),
           View<const T>(args.x), View<A>(args.term), norm, channels_last, items);
    launch(backward<T>, blocks, block_size, 0, stream, View<const T>(args.grad_y),
           View<const T>(args.x), View<const A>(args.term), View<T>(args.grad_x), norm,
           channels_last, items);
  });
}

}  // namespace pydl::cuda
