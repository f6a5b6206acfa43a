// Max unpooling: ../unpool.h has the definition.
//
//   forward    y[o] = x[i] of the last i in scan order with index[i] = o, else 0
//   backward   grad_x[i] = grad_y[index[i]]
//
// Forward is two kernels. In the first a thread owns an element of x and enters its number at the
// place it names, if no later one is there; in the second a thread owns an element of y and fetches
// what won it. The largest number wins in whatever order threads come, so the result repeats bit
// for bit; a scatter of the values themselves would not. Backward gathers.
//
// Least traffic, for each element of x: 4 + 8 bytes of value and index read, and for each of y 4
// written; the numbers cost 8 more each way.
#include "../unpool.h"
#include "element.h"

namespace pydl::cuda {
namespace {

__global__ void enter(View<const int64_t> index, View<unsigned long long> winner,
                      bool channels_last, int64_t count) {
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, index.size, channels_last);
  int64_t at = index.at(n, c, d, h, w);
  if (!inside(at, winner.size[2] * winner.size[3] * winner.size[4])) return;
  const unsigned long long mine = (d * index.size[3] + h) * index.size[4] + w + 1;
  const int64_t ow = take(at, winner.size[4]), oh = take(at, winner.size[3]);
  unsigned long long* place = &winner.at(n, c, at, oh, ow);
  unsigned long long seen = 0;
  while (seen < mine) {
    const unsigned long long before = atomicCAS(place, seen, mine);
    if (before == seen) return;
    seen = before;
  }
}

template <class T>
__global__ void fetch(View<const T> x, View<const unsigned long long> winner, View<T> y,
                      bool channels_last, int64_t count) {
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, y.size, channels_last);
  int64_t from = static_cast<int64_t>(winner.at(n, c, d, h, w)) - 1;
  T value = T(0.0f);
  if (from >= 0) {
    const int64_t iw = take(from, x.size[4]), ih = take(from, x.size[3]);
    value = x.at(n, c, from, ih, iw);
  }
  y.at(n, c, d, h, w) = value;
}

template <class T>
__global__ void gather(View<const T> grad_y, View<const int64_t> index, View<T> grad_x,
                       bool channels_last, int64_t count) {
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  int64_t at = index.at(n, c, d, h, w);
  T value = T(0.0f);
  if (inside(at, grad_y.size[2] * grad_y.size[3] * grad_y.size[4])) {
    const int64_t ow = take(at, grad_y.size[4]), oh = take(at, grad_y.size[3]);
    value = grad_y.at(n, c, at, oh, ow);
  }
  grad_x.at(n, c, d, h, w) = value;
}

}  // namespace

void max_unpool_forward(const MaxUnpoolForward& args, int64_t stream) {
  const auto& [x, index, y, winner] = args;
  check_unpool(x, index, y);
  check(winner.dtype == DType::int64 && same_size(winner, y),
        "max unpooling expects room for one number per place");
  if (y.numel() == 0) return;
  if (x.numel() > 0) {
    launch(enter, blocks_for(x.numel()), block_size, 0, stream, View<const int64_t>(index),
           View<unsigned long long>(winner), x.channels_last(), x.numel());
  }
  dispatch_floating(x.dtype, "max unpooling", [&](auto type) {
    using T = decltype(type);
    launch(fetch<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x),
           View<const unsigned long long>(winner), View<T>(y), y.channels_last(), y.numel());
  });
}

void max_unpool_backward(const MaxUnpoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, grad_x] = args;
  check_unpool(grad_x, index, grad_y);
  if (grad_x.numel() == 0) return;
  dispatch_floating(grad_x.dtype, "max unpooling", [&](auto type) {
    using T = decltype(type);
    launch(gather<T>, blocks_for(grad_x.numel()), block_size, 0, stream, View<const T>(grad_y),
           View<const int64_t>(index), View<T>(grad_x), grad_x.channels_last(), grad_x.numel());
  });
}

}  // namespace pydl::cuda
