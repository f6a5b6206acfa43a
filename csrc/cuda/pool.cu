// Max and average pooling: ../pool.h has the definitions.
//
//   max forward    y[o]      = max over taps t inside x of x[o * stride - padding + t * dilation]
//                  index[o]  = which tap that was
//   max backward   grad_x[i] = sum of grad_y[o] over the windows o that chose i
//   avg forward    y[o]      = sum of x[o * stride - padding + t] / divisor[o]
//   avg backward   grad_x[i] = sum of grad_y[o] / divisor[o] over the windows o that cover i
//
// A thread owns one element of the output: of y forward, of grad_x backward. Backward gathers. An
// input element lies in at most ceil(kernel / stride) windows per axis, fewer with dilation, and
// asks each in ascending order: no atomics, no output zeroed beforehand, the same bits every time.
// A scatter from y reads each index once only, but needs both.
//
// Least traffic, 2x2 windows with stride 2 in float32, for each element of x: forward reads 4 bytes
// and writes a quarter of (4 + index), backward the other way round; an index is 1 byte as uint8
// and 8 as int64, which is why the former exists. What overlapping windows share comes from L1.
// Arithmetic: a comparison or an addition per tap. Large windows that tile the map, as that of a
// global pooling does, are adaptive pooling's, several threads each; the windows that networks have
// are those of pool_dense.h, where the maps lie alike.
#include <cmath>

#include "../pool.h"
#include "../pool_adaptive.h"
#include "pool_window.h"

namespace pydl::cuda {
namespace {

// Index: uint8_t keeps the tap's number inside the window, int64_t the flat position in the input's
// plane.
template <class T, class Index>
__global__ void max_forward(View<const T> x, View<T> y, View<Index> index, PoolWindow window,
                            bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, od, oh, ow] = element_of(number, y.size, channels_last);
  const T* plane = &x.at(n, c, 0, 0, 0);  // [D, H, W]

  const Tap first_d = first_tap(window, 0, od), first_h = first_tap(window, 1, oh),
            first_w = first_tap(window, 2, ow);
  const auto index_of = [&](const Tap& d, const Tap& h, const Tap& w) {
    if constexpr (flat) return (d.at * x.size[3] + h.at) * x.size[4] + w.at;
    return (d.number * window.kernel[1] + h.number) * window.kernel[2] + w.number;
  };
  A best = -A(INFINITY);
  int64_t chosen = index_of(first_d, first_h, first_w);
  for (Tap d = first_d; d.number < window.kernel[0] && d.at < x.size[2];
       d.advance(window.dilation[0])) {
    for (Tap h = first_h; h.number < window.kernel[1] && h.at < x.size[3];
         h.advance(window.dilation[1])) {
      const T* row = plane + d.at * x.stride[2] + h.at * x.stride[3];  // [W]
      for (Tap w = first_w; w.number < window.kernel[2] && w.at < x.size[4];
           w.advance(window.dilation[2])) {
        const A value = row[w.at * x.stride[4]];
        if (value > best || value != value) {
          best = value;
          chosen = index_of(d, h, w);
        }
      }
    }
  }
  y.at(n, c, od, oh, ow) = T(best);
  if (index.data != nullptr) index.at(n, c, od, oh, ow) = static_cast<Index>(chosen);
}

template <class T, class Index>
__global__ void max_backward(View<const T> grad_y, View<const Index> index, View<T> grad_x,
                             PoolWindow window, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  constexpr bool flat = std::is_same_v<Index, int64_t>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  const int64_t position = (d * grad_x.size[3] + h) * grad_x.size[4] + w;
  const T* gradients = &grad_y.at(n, c, 0, 0, 0);   // [OD, OH, OW]
  const Index* indices = &index.at(n, c, 0, 0, 0);  // [OD, OH, OW]

  const Windows over_d = windows_over(window, 0, d, grad_y.size[2]);
  const Windows over_h = windows_over(window, 1, h, grad_y.size[3]);
  const Windows over_w = windows_over(window, 2, w, grad_y.size[4]);
  A sum = 0;
  for (int64_t od = over_d.first; od <= over_d.last; ++od) {
    const int64_t tap_d = tap_at(over_d.reach - od * window.stride[0], window.dilation[0]);
    if (tap_d < 0) continue;
    for (int64_t oh = over_h.first; oh <= over_h.last; ++oh) {
      const int64_t tap_h = tap_at(over_h.reach - oh * window.stride[1], window.dilation[1]);
      if (tap_h < 0) continue;
      const T* gradient_row = gradients + od * grad_y.stride[2] + oh * grad_y.stride[3];  // [OW]
      const Index* index_row = indices + od * index.stride[2] + oh * index.stride[3];     // [OW]
      ROLLED
      for (int64_t ow = over_w.first; ow <= over_w.last; ++ow) {
        const int64_t tap_w = tap_at(over_w.reach - ow * window.stride[2], window.dilation[2]);
        if (tap_w < 0) continue;
        const int64_t mine =
            flat ? position : (tap_d * window.kernel[1] + tap_h) * window.kernel[2] + tap_w;
        if (index_row[ow * index.stride[4]] == mine) sum += A(gradient_row[ow * grad_y.stride[4]]);
      }
    }
  }
  grad_x.at(n, c, d, h, w) = T(sum);
}

template <class T>
__global__ void avg_forward(View<const T> x, View<T> y, PoolWindow window, bool count_include_pad,
                            int64_t divisor, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, od, oh, ow] = element_of(number, y.size, channels_last);
  const T* plane = &x.at(n, c, 0, 0, 0);  // [D, H, W]

  const Tap first_d = first_tap(window, 0, od), first_h = first_tap(window, 1, oh),
            first_w = first_tap(window, 2, ow);
  A sum = 0;
  for (Tap d = first_d; d.number < window.kernel[0] && d.at < x.size[2]; d.advance(1)) {
    for (Tap h = first_h; h.number < window.kernel[1] && h.at < x.size[3]; h.advance(1)) {
      const T* row = plane + d.at * x.stride[2] + h.at * x.stride[3];  // [W]
      for (Tap w = first_w; w.number < window.kernel[2] && w.at < x.size[4]; w.advance(1)) {
        sum += A(row[w.at * x.stride[4]]);
      }
    }
  }
  if (divisor == 0) {
    divisor = counted_taps(window, 0, od, x.size[2], count_include_pad) *
              counted_taps(window, 1, oh, x.size[3], count_include_pad) *
              counted_taps(window, 2, ow, x.size[4], count_include_pad);
  }
  y.at(n, c, od, oh, ow) = T(sum / static_cast<A>(divisor));
}

template <class T>
__global__ void avg_backward(View<const T> grad_y, View<T> grad_x, PoolWindow window,
                             bool count_include_pad, int64_t divisor, bool channels_last,
                             int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [n, c, d, h, w] = element_of(number, grad_x.size, channels_last);
  const T* gradients = &grad_y.at(n, c, 0, 0, 0);  // [OD, OH, OW]

  const Windows over_d = windows_over(window, 0, d, grad_y.size[2]);
  const Windows over_h = windows_over(window, 1, h, grad_y.size[3]);
  const Windows over_w = windows_over(window, 2, w, grad_y.size[4]);
  A sum = 0;
  for (int64_t od = over_d.first; od <= over_d.last; ++od) {
    const int64_t taps_d = counted_taps(window, 0, od, grad_x.size[2], count_include_pad);
    for (int64_t oh = over_h.first; oh <= over_h.last; ++oh) {
      const T* gradient_row = gradients + od * grad_y.stride[2] + oh * grad_y.stride[3];  // [OW]
      const int64_t taps_dh =
          taps_d * counted_taps(window, 1, oh, grad_x.size[3], count_include_pad);
      ROLLED
      for (int64_t ow = over_w.first; ow <= over_w.last; ++ow) {
        const int64_t taps =
            taps_dh * counted_taps(window, 2, ow, grad_x.size[4], count_include_pad);
        sum +=
            A(gradient_row[ow * grad_y.stride[4]]) / static_cast<A>(divisor != 0 ? divisor : taps);
      }
    }
  }
  grad_x.at(n, c, d, h, w) = T(sum);
}

// Calls function(Index{}) with the type of the index.
template <class Function>
void dispatch_index(const Tensor& index, const PoolWindow& window, Function&& function) {
  if (index.dtype == DType::int64) return function(int64_t{});
  check(index.dtype == DType::uint8, "max pooling expects an index of uint8 or int64");
  const int64_t taps = window.kernel[0] * window.kernel[1] * window.kernel[2];
  check(taps <= 256, "max pooling with a uint8 index expects windows of at most 256 taps, got ",
        taps);
  function(uint8_t{});
}

// Whether the windows are large, and the bins of an adaptive pooling.
bool are_large_bins(const Tensor& x, const Tensor& y, const PoolWindow& window) {
  int64_t taps = 1, plane = 1;
  for (const int axis : {0, 1, 2}) {
    const int64_t kernel = window.kernel[axis], outputs = y.size[axis + 2];
    if (kernel * outputs != x.size[axis + 2] || window.padding[axis] != 0 ||
        window.dilation[axis] != 1 || (window.stride[axis] != kernel && outputs != 1))
      return false;
    taps *= kernel, plane *= x.size[axis + 2];
  }
  return taps >= 32 && plane <= INT32_MAX;
}

std::vector<Bins> bins_of(const Tensor& y) { return {{y.size[2], y.size[3], y.size[4]}}; }

}  // namespace

void max_pool_forward(const MaxPoolForward& args, int64_t stream) {
  const auto& [x, y, index, window] = args;
  check_pool(x, y, window);
  check(index.data == nullptr || same_size(index, y),
        "max pooling expects an index of the output's size");
  if (y.numel() == 0) return;
  if (are_large_bins(x, y, window))
    return adaptive_pool_forward({x, y, index, bins_of(y), /*pyramid=*/false, /*maximum=*/true},
                                 stream);
  if (launch_dense_max_forward(args, stream)) return;
  const auto run = [&](auto kind) {
    using Index = decltype(kind);
    dispatch_floating(x.dtype, "max pooling", [&](auto type) {
      using T = decltype(type);
      launch(max_forward<T, Index>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x),
             View<T>(y), View<Index>(index), window, y.channels_last(), y.numel());
    });
  };
  if (index.data == nullptr) return run(uint8_t{});
  dispatch_index(index, window, run);
}

void max_pool_backward(const MaxPoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, grad_x, window] = args;
  check_pool(grad_x, grad_y, window);
  check(same_size(index, grad_y), "max pooling expects an index of the gradient's size");
  if (grad_x.numel() == 0) return;
  if (are_large_bins(grad_x, grad_y, window))
    return adaptive_pool_backward(
        {grad_y, index, grad_x, bins_of(grad_y), /*pyramid=*/false, /*maximum=*/true}, stream);
  if (launch_dense_max_backward(args, stream)) return;
  dispatch_index(index, window, [&](auto kind) {
    using Index = decltype(kind);
    dispatch_floating(grad_x.dtype, "max pooling", [&](auto type) {
      using T = decltype(type);
      launch(max_backward<T, Index>, blocks_for(grad_x.numel()), block_size, 0, stream,
             View<const T>(grad_y), View<const Index>(index), View<T>(grad_x), window,
             grad_x.channels_last(), grad_x.numel());
    });
  });
}

void avg_pool_forward(const AvgPoolForward& args, int64_t stream) {
  const auto& [x, y, window, count_include_pad, divisor] = args;
  check_pool(x, y, window);
  if (y.numel() == 0) return;
  if (divisor == 0 && are_large_bins(x, y, window))
    return adaptive_pool_forward({x, y, {}, bins_of(y), /*pyramid=*/false, /*maximum=*/false},
                                 stream);
  if (launch_dense_avg_forward(args, stream)) return;
  dispatch_floating(x.dtype, "average pooling", [&](auto type) {
    using T = decltype(type);
    launch(avg_forward<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x),
           View<T>(y), window, count_include_pad, divisor, y.channels_last(), y.numel());
  });
}

void avg_pool_backward(const AvgPoolBackward& args, int64_t stream) {
  const auto& [grad_y, grad_x, window, count_include_pad, divisor] = args;
  check_pool(grad_x, grad_y, window);
  if (grad_x.numel() == 0) return;
  if (divisor == 0 && are_large_bins(grad_x, grad_y, window))
    return adaptive_pool_backward(
        {grad_y, {}, grad_x, bins_of(grad_y), /*pyramid=*/false, /*maximum=*/false}, stream);
  if (launch_dense_avg_backward(args, stream)) return;
  dispatch_floating(grad_x.dtype, "average pooling", [&](auto type) {
    using T = decltype(type);
    launch(avg_backward<T>, blocks_for(grad_x.numel()), block_size, 0, stream,
           View<const T>(grad_y), View<T>(grad_x), window, count_include_pad, divisor,
           grad_x.channels_last(), grad_x.numel());
  });
}

}  // namespace pydl::cuda
