// A map times a number: ../gain.h has the definition. A thread owns one element, in the order of
// the result's memory.
#include "../gain.h"
#include "element.h"

namespace pydl::cuda {
namespace {

template <class T>
__global__ void forward(View<const T> x, View<T> y, accumulate_t<T> factor, bool channels_last,
                        int64_t count) {
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, y.size, channels_last);
  y.at(n, c, d, h, w) = T(accumulate_t<T>(x.at(n, c, d, h, w)) * factor);
}

}  // namespace

void gain_forward(const GainForward& args, int64_t stream) {
  const auto& [x, y, factor] = args;
  check(x.dtype == y.dtype && same_size(x, y), "gain expects an input of the result's size");
  if (y.numel() == 0) return;
  dispatch_floating(y.dtype, "gain", [&](auto type) {
    using T = decltype(type);
    launch(forward<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x), View<T>(y),
           accumulate_t<T>(factor), y.channels_last(), y.numel());
  });
}

}  // namespace pydl::cuda
