// Gradient of a convolution's bias (definition in ../conv.h): the sum of grad_y over the batch and
// the outputs.
//
// Short sums are taken in the type of the arithmetic and added up in double, as PyTorch's are in a
// tree: one long sum would be less accurate. N, C, D, H, W: a task is a run of filters. Channels
// last: a task is a run of pixels, and the number of runs depends on the shape alone.
//
// Bytes: grad_y read once.
#include "../conv.h"
#include "parallel.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kMostRuns = 128;  // of pixels, each with sums of its own
constexpr int64_t kGroup = 32;      // pixels added up before they join the others in double

// The sum of `size` values, in runs of 4096.
template <class T>
double sum_row(const T* from, int64_t size) {
  using A = accumulate_t<T>;
  constexpr int lanes = kWidest<A>;
  using V = Vec<A, lanes>;
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += 4096) {
    const int64_t count = std::min<int64_t>(4096, size - begin), whole = count / (4 * lanes);
    V a{}, b{}, c{}, d{};
    const T* at = from + begin;
    for (int64_t i = 0; i < whole; ++i, at += 4 * lanes) {
      a += load_vec<lanes>(at);
      b += load_vec<lanes>(at + lanes);
      c += load_vec<lanes>(at + 2 * lanes);
      d += load_vec<lanes>(at + 3 * lanes);
    }
    double rest = 0;
    for (; at < from + begin + count; ++at) rest += static_cast<A>(*at);
    total += sum_lanes<lanes, A>((a + b) + (c + d)) + rest;
  }
  return total;
}

template <class T>
void bias_from_lines(const ConvGradBias& args, int64_t threads) {
  const int64_t batch = args.grad_y.size[0], filters = args.grad_y.size[1];
  const int64_t plane = args.grad_y.size[2] * args.grad_y.size[3] * args.grad_y.size[4];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_bias = static_cast<T*>(args.grad_bias.data);
  share_out(filters, team_size(filters, args.grad_y.numel(), threads),
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t f = begin; f < end; ++f) {
                double sum = 0;
                for (int64_t n = 0; n < batch; ++n)
                  sum += sum_row(grad_y + (n * filters + f) * plane, plane);
                grad_bias[f] = static_cast<T>(static_cast<accumulate_t<T>>(sum));
              }
            });
}

// sums += `count` pixels.
template <int count, class T>
PYDL_INLINE void add_pixels(const T* pixels, int64_t filters, accumulate_t<T>* sums) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(filters, [&]<int lanes>(int64_t f, Lanes<lanes>) PYDL_INLINE_BODY {
    Vec<A, lanes> sum = load_vec<lanes>(pixels + f);
#pragma GCC unroll 4
    for (int p = 1; p < count; ++p) sum += load_vec<lanes>(pixels + p * filters + f);
    store_vec<lanes>(Vec<A, lanes>(load_vec<lanes>(sums + f) + sum), sums + f);
  });
}

template <class T>
void bias_from_pixels(const ConvGradBias& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t filters = args.grad_y.size[1], pixels = args.grad_y.numel() / filters;
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_bias = static_cast<T*>(args.grad_bias.data);
  const int64_t runs =
      std::max<int64_t>(1, std::min({args.grad_y.numel() / 16384, pixels, kMostRuns}));
  const Scratch<double> partial(runs, filters);
  const Scratch<A> memory(runs, filters);
  share_out(runs, team_size(runs, args.grad_y.numel(), threads),
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t run = begin; run < end; ++run) {
                double* totals = partial.of(run);
                A* sums = memory.of(run);
                std::fill_n(totals, filters, 0.0);
                const int64_t last = pixels * (run + 1) / runs;
                for (int64_t first = pixels * run / runs; first < last; first += kGroup) {
                  std::fill_n(sums, filters, A{0});
                  const int64_t end = std::min(first + kGroup, last);
                  int64_t p = first;
                  for (; p + 4 <= end; p += 4) add_pixels<4>(grad_y + p * filters, filters, sums);
                  for (; p < end; ++p) add_pixels<1>(grad_y + p * filters, filters, sums);
                  for (int64_t f = 0; f < filters; ++f) totals[f] += sums[f];
                }
              }
            });
  for (int64_t f = 0; f < filters; ++f) {
    double sum = 0;
    for (int64_t run = 0; run < runs; ++run) sum += partial.of(run)[f];
    grad_bias[f] = static_cast<T>(static_cast<A>(sum));
  }
}

}  // namespace

void conv_grad_bias(const ConvGradBias& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_y.dtype, "convolution", [&]<class T>(T) {
    channels_last ? bias_from_pixels<T>(args, threads) : bias_from_lines<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
