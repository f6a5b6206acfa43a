// Local response normalisation over the five channels and with the beta = 3/4 that networks have, of
// maps that lie alike: ../lrn.h has the equations, lrn.cu the kernels for all others.
//
// A map without gaps, of at most 2^29 elements, is [images][channels][pixels], or channels last
// [images * pixels][channels][1]. A thread has a strip of eight channels of one position. It loads
// what their windows reach at once, 16 bytes at a time in channels last, and has it in registers, so
// that each square of a window is one multiplication and addition. Windows beyond the first and last
// channel have zeros there. Offsets are 32 bits wide, and the divisions are those of dense.h.
//
// Backward makes twelve terms for eight elements, each from a scale of its own; only the reciprocal
// root of it is computed, and 1 / scale is that one's square.
//
// Sums are fresh for each channel and in ascending order, as those of lrn.cu are.
#include "dense.h"
#include "lrn_kernels.h"

namespace pydl::cuda {
namespace {

constexpr int strip = 8, window = 5, reach = window / 2;

struct Columns {
  int channels, pixels;
  // Threads are numbered through [images][strips][pixels].
  Divisor of_image, of_strip;
  uint32_t threads;

  Columns(const Tensor& map, bool channels_last)
      : channels(static_cast<int>(map.size[1])),
        pixels(static_cast<int>(channels_last ? 1 : map.size[2] * map.size[3] * map.size[4])),
        of_image(static_cast<uint32_t>(blocks_for(channels, strip) * pixels)),
        of_strip(static_cast<uint32_t>(pixels)) {
    const int64_t images = map.numel() / (int64_t{channels} * pixels);
    threads = static_cast<uint32_t>(images) * of_image.divisor;
  }
};

// A thread's strip of channels of one position.
struct Strip {
  int first, step;  // offsets: of its first channel, to the next
  int left;         // channels from its first to the map's last
  bool lowest;      // it has the map's first

  __device__ explicit Strip(const Columns& columns) : step(columns.pixels) {
    const uint32_t number = static_cast<uint32_t>(thread_number());
    const uint32_t image = columns.of_image.quotient(number);
    const uint32_t rest = number - image * columns.of_image.divisor;
    const uint32_t its_number = columns.of_strip.quotient(rest);
    const int start = static_cast<int>(its_number) * strip;
    first = (static_cast<int>(image) * columns.channels + start) * step +
            static_cast<int>(rest - its_number * columns.of_strip.divisor);
    left = columns.channels - start;
    lowest = start == 0;
  }
  // Whether the channel `at` behind its first is there: a strip at most before it, or two behind.
  __device__ bool has(int at) const { return at < 0 ? !lowest : at < left; }
};

// The strip's channels and `margin` more on either side, zeros where there are none.
template <class T, int margin>
struct Values {
  accumulate_t<T> at[strip + 2 * margin];

  __device__ __forceinline__ accumulate_t<T> operator[](int i) const { return at[i + margin]; }
};

template <int margin, int vector, class T>
__device__ __forceinline__ Values<T, margin> load_strip(const T* map, const Strip& its) {
  Values<T, margin> out;
  constexpr int outside = (margin + vector - 1) / vector * vector;
  UNROLLED for (int i = -outside; i < strip + outside; i += vector) {
    Vector<T, vector> values = {};
    if (its.has(i)) values = load<vector>(map + (its.first + i * its.step));
    UNROLLED for (int j = 0; j < vector; ++j) {
      const int place = i + j + margin;
      if (place >= 0 && place < strip + 2 * margin) out.at[place] = accumulate_t<T>(values.at[j]);
    }
  }
  return out;
}

template <int vector, class T>
__device__ __forceinline__ void store_strip(T* map, const Strip& its, const Values<T, 0>& numbers) {
  UNROLLED for (int i = 0; i < strip; i += vector) {
    Vector<T, vector> values;
    UNROLLED for (int j = 0; j < vector; ++j) values.at[j] = T(numbers[i + j]);
    if (its.has(i)) store(map + (its.first + i * its.step), values);
  }
}

// The sum over the window of the channel that lies `at` behind the first.
template <class T, int margin>
__device__ __forceinline__ accumulate_t<T> squares(const Values<T, margin>& x, int at) {
  accumulate_t<T> sum = 0;
  UNROLLED for (int i = at - reach; i <= at + reach; ++i) sum += x[i] * x[i];
  return sum;
}

template <class T, int vector>
__global__ void dense_forward(const T* x, T* y, accumulate_t<T> alpha_by_size, accumulate_t<T> k,
                              Columns columns) {
  using A = accumulate_t<T>;
  if (thread_number() >= columns.threads) return;
  const Strip its(columns);
  const auto value = load_strip<reach, vector>(x, its);
  Values<T, 0> out;
  UNROLLED for (int i = 0; i < strip; ++i) {
    const A scale = k + alpha_by_size * squares(value, i);
    out.at[i] = value[i] * three_quarters(reciprocal_sqrt(scale));
  }
  store_strip<vector>(y, its, out);
}

template <class T, int vector>
__global__ void dense_backward(const T* grad_y, const T* x, T* grad_x,
                               accumulate_t<T> alpha_by_size, accumulate_t<T> k, Columns columns) {
  using A = accumulate_t<T>;
  if (thread_number() >= columns.threads) return;
  const Strip its(columns);
  const auto value = load_strip<2 * reach, vector>(x, its);
  const auto gradient = load_strip<reach, vector>(grad_y, its);
  Values<T, reach> scaled, term;
  UNROLLED for (int i = -reach; i < strip + reach; ++i) {
    const A root = reciprocal_sqrt(k + alpha_by_size * squares(value, i));
    scaled.at[i + reach] = gradient[i] * three_quarters(root);
    // Where there is no channel its scale may be 0.
    term.at[i + reach] = its.has(i) ? scaled[i] * (value[i] * (root * root)) : A(0);
  }
  const A factor = A(1.5) * alpha_by_size;  // 2 * beta * alpha / size
  Values<T, 0> out;
  UNROLLED for (int i = 0; i < strip; ++i) {
    A sum = 0;
    UNROLLED for (int j = i - reach; j <= i + reach; ++j) sum += term[j];
    out.at[i] = scaled[i] - factor * value[i] * sum;
  }
  store_strip<vector>(grad_x, its, out);
}

// Calls function(T{}, vector, alpha / size, k, columns), and says so, where these kernels serve the
// maps.
template <class Arguments, class Function>
bool dispatch_dense_lrn(const Arguments& args, const Tensor& output,
                        std::initializer_list<const Tensor*> maps, const Function& function) {
  if (args.size != window || args.beta != 0.75 || output.numel() > 1 << 29) return false;
  const bool channels_last = output.channels_last();
  bool alike = true, aligned = true;
  for (const Tensor* map : maps) {
    alike = alike && is_dense(*map, channels_last);
    aligned = aligned && reinterpret_cast<uintptr_t>(map->data) % 16 == 0;
  }
  bool served = false;
  dispatch_floating(output.dtype, "LRN", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    constexpr int wide = 16 / sizeof(T);
    if (!alike || std::is_same_v<T, double>) return;
    if (channels_last && (!aligned || output.size[1] % wide != 0)) return;
    if constexpr (!std::is_same_v<T, double>) {
      const auto call = [&](auto vector) {
        function(type, vector, static_cast<A>(args.alpha / window), static_cast<A>(args.k),
                 Columns(output, channels_last));
      };
      if (channels_last)
        call(std::integral_constant<int, wide>{});
      else
        call(std::integral_constant<int, 1>{});
      served = true;
    }
  });
  return served;
}

}  // namespace

bool launch_dense_lrn(const LrnForward& args, int64_t stream) {
  const Tensor &x = args.x, &y = args.y;
  return dispatch_dense_lrn(
      args, y, {&x, &y},
      [&](auto type, auto vector, auto alpha_by_size, auto k, const Columns& columns) {
        using T = decltype(type);
        launch(dense_forward<T, vector>, blocks_for(columns.threads), block_size, 0, stream,
               static_cast<const T*>(x.data), static_cast<T*>(y.data), alpha_by_size, k, columns);
      });
}

bool launch_dense_lrn(const LrnBackward& args, int64_t stream) {
  const Tensor &grad_y = args.grad_y, &x = args.x, &grad_x = args.grad_x;
  return dispatch_dense_lrn(
      args, grad_x, {&grad_y, &x, &grad_x},
      [&](auto type, auto vector, auto alpha_by_size, auto k, const Columns& columns) {
        using T = decltype(type);
        launch(dense_backward<T, vector>, blocks_for(columns.threads), block_size, 0, stream,
               static_cast<const T*>(grad_y.data), static_cast<const T*>(x.data),
               static_cast<T*>(grad_x.data), alpha_by_size, k, columns);
      });
}

}  // namespace pydl::cuda
