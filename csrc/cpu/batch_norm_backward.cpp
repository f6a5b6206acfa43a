// Gradients of batch normalisation with its activation (definition in ../batch_norm.h).
//
//   sum_g  = sum of g
//   sum_gx = sum of g * (x - mean) / deviation
//   grad_x = weight / deviation * (g - sum_g / P - (x - mean) / deviation * sum_gx / P)
//
// N, C, D, H, W: a task is a run of channels, whose planes are read once from memory for the sums
// and then, backwards, from the second-level cache for the gradient. Channels last: the sums are a
// pass of their own over runs of pixels. x-hat and g are computed anew each time, from x and the
// mask's bits: nothing else was saved.
//
// Sums are joined in double after each chunk, as the statistics do.
//
// Bytes: grad_y, x and one bit per element read, grad_x (and grad_residual) written; channels last
// the first three are read twice.
#include "batch_norm.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// g from grad_y and the mask's bits.
template <Activation activation, int lanes, class A>
PYDL_INLINE Vec<A, lanes> passed(const Vec<A, lanes>& grad_y, const uint8_t* mask, int64_t i,
                                 [[maybe_unused]] A slope) {
  using V = Vec<A, lanes>;
  if constexpr (activation == Activation::relu)
    return choose<lanes, A>(read_bits<lanes>(mask, i), grad_y, V{});
  if constexpr (activation == Activation::leaky_relu)
    return choose<lanes, A>(read_bits<lanes>(mask, i), grad_y, V(grad_y * slope));
  return grad_y;
}

// The operands of a piece of a channel, rows as in Rows.
template <class T>
struct Pieces {
  Rows<T> grad_y, x;
  const uint8_t* mask;
  int64_t mask_stride;  // bytes from row to row
};

template <Activation activation, int lanes, class T>
PYDL_INLINE void add_rows(const Pieces<T>& pieces, accumulate_t<T> mean, accumulate_t<T> slope,
                          double& sum_g, double& sum_gx) {
  using A = accumulate_t<T>;
  using V = Vec<A, lanes>;
  V s[4] = {}, q[4] = {};
  const int64_t size = pieces.x.size;
  for (int64_t r = 0; r < pieces.x.count; ++r) {
    const T* grad_y = pieces.grad_y.first + r * pieces.grad_y.stride;
    const T* x = pieces.x.first + r * pieces.x.stride;
    const uint8_t* mask = pieces.mask + r * pieces.mask_stride;
    const auto g = [&](int64_t i) PYDL_INLINE_BODY {
      return passed<activation, lanes, A>(load_vec<lanes>(grad_y + i), mask, i, slope);
    };
    int64_t i = 0;
    for (; i + 4 * lanes <= size; i += 4 * lanes) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const V a = g(i + j * lanes);
        s[j] += a, q[j] += a * (load_vec<lanes>(x + i + j * lanes) - mean);
      }
    }
    for (; i + lanes <= size; i += lanes) {
      const V a = g(i);
      s[0] += a, q[0] += a * (load_vec<lanes>(x + i) - mean);
    }
    if (i < size) {
      const int64_t at = size - lanes;
      const V a = g(at), product = a * (load_vec<lanes>(x + at) - mean);
      s[1] += last_lanes<lanes, A>(a, size - i), q[1] += last_lanes<lanes, A>(product, size - i);
    }
  }
  sum_g += sum_lanes<lanes, A>((s[0] + s[1]) + (s[2] + s[3]));
  sum_gx += sum_lanes<lanes, A>((q[0] + q[1]) + (q[2] + q[3]));
}

// sum of g and of g * (x - mean) of a channel; its operands begin at image 0.
template <Activation activation, class T>
void plane_sums(const T* grad_y, const T* x, const uint8_t* mask, const Map& map,
                accumulate_t<T> mean, accumulate_t<T> slope, double& sum_g, double& sum_gx) {
  using A = accumulate_t<T>;
  sum_g = sum_gx = 0;
  const int64_t stride = map.channels * map.plane;
  const int64_t mask_stride = map.channels * ((map.plane + 7) / 8);
  with_lanes<A>(std::min(map.plane, kChunk), [&]<int lanes>(Lanes<lanes>) {
    for_chunks(map, [&](int64_t n, int64_t planes, int64_t offset, int64_t size) {
      const int64_t first = n * stride + offset;
      const Pieces<T> pieces{
          {grad_y + first, planes, stride, size},
          {x + first, planes, stride, size},
          activation == Activation::none ? mask : mask + n * mask_stride + offset / 8,
          activation == Activation::none ? 0 : mask_stride};
      if (size >= lanes)
        add_rows<activation, lanes>(pieces, mean, slope, sum_g, sum_gx);
      else
        add_rows<activation, 1>(pieces, mean, slope, sum_g, sum_gx);
    });
  });
}

// sums and products += those of `count` pixels.
template <Activation activation, int count, class T>
PYDL_INLINE void add_pixels(const T* grad_y, const T* x, const uint8_t* mask, int64_t channels,
                            const accumulate_t<T>* mean, accumulate_t<T> slope,
                            accumulate_t<T>* sums, accumulate_t<T>* products) {
  using A = accumulate_t<T>;
  const int64_t bytes = activation == Activation::none ? 0 : (channels + 7) / 8;
  for_vectors_once<A>(channels, [=]<int lanes>(int64_t c, Lanes<lanes>) PYDL_INLINE_BODY {
    using V = Vec<A, lanes>;
    const V from = load_vec<lanes>(mean + c);
    V s = load_vec<lanes>(sums + c), q = load_vec<lanes>(products + c);
#pragma GCC unroll 4
    for (int p = 0; p < count; ++p) {
      const V g = passed<activation, lanes, A>(load_vec<lanes>(grad_y + p * channels + c),
                                               mask + p * bytes, c, slope);
      s += g, q += g * (load_vec<lanes>(x + p * channels + c) - from);
    }
    store_vec<lanes>(s, sums + c), store_vec<lanes>(q, products + c);
  });
}

// The two sums of every channel of channels-last maps, into arrays of C values.
template <Activation activation, class T>
void pixel_sums(const T* grad_y, const T* x, const uint8_t* mask, const Map& map,
                const accumulate_t<T>* mean, const accumulate_t<T>* var, double eps,
                accumulate_t<T> slope, accumulate_t<T>* sum_g, accumulate_t<T>* sum_gx,
                int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = map.channels, runs = map.runs();
  const int64_t bytes = activation == Activation::none ? 0 : (channels + 7) / 8;
  const int64_t team = team_size(runs, map.pixels * channels, threads);
  const Scratch<double> of_run(runs, 2 * channels);
  const Scratch<A> memory(team, 2 * channels);
  share_out(runs, team, [&](int64_t member, int64_t begin, int64_t end) {
    A *sums = memory.of(member), *products = sums + channels;
    for (int64_t run = begin; run < end; ++run) {
      double* totals = of_run.of(run);
      std::fill_n(totals, 2 * channels, 0.0);
      const int64_t last = map.pixels * (run + 1) / runs;
      for (int64_t first = map.pixels * run / runs; first < last; first += kChunkPixels) {
        const int64_t stop = std::min(first + kChunkPixels, last);
        std::fill_n(sums, 2 * channels, A{0});
        const auto add = [&]<int count>(int64_t p, Lanes<count>) {
          add_pixels<activation, count>(grad_y + p * channels, x + p * channels, mask + p * bytes,
                                        channels, mean, slope, sums, products);
        };
        int64_t p = first;
        for (; p + 4 <= stop; p += 4) add(p, Lanes<4>{});
        for (; p < stop; ++p) add(p, Lanes<1>{});
        for (int64_t c = 0; c < 2 * channels; ++c) totals[c] += sums[c];
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    double g = 0, gx = 0;
    for (int64_t run = 0; run < runs; ++run)
      g += of_run.of(run)[c], gx += of_run.of(run)[channels + c];
    sum_g[c] = static_cast<A>(g);
    sum_gx[c] = static_cast<A>(gx * inverse_deviation(var[c], eps));
  }
}

// The coefficients of a row's gradient: four arrays of C values, one per channel.
template <class A>
struct Coefficients {
  A *mean, *scale, *level, *tilt;

  // Without sums: from running statistics.
  void set(int64_t c, const BatchNormGradInput& args) const {
    const A* weight = static_cast<const A*>(args.weight.data);
    const A *sum_g = static_cast<const A*>(args.sum_g.data),
            *sum_gx = static_cast<const A*>(args.sum_gx.data);
    const double inverse = inverse_deviation(static_cast<const A*>(args.var.data)[c], args.eps);
    mean[c] = static_cast<const A*>(args.mean.data)[c];
    scale[c] = static_cast<A>((weight == nullptr ? 1.0 : weight[c]) * inverse);
    if (sum_g == nullptr) return;
    level[c] = static_cast<A>(sum_g[c] / args.count);
    tilt[c] = static_cast<A>(sum_gx[c] / args.count * inverse);
  }
};

// grad_x = scale * (g - level - (x - mean) * tilt) of a row, or scale * g; and g as grad_residual.
template <Activation activation, bool per_element, bool centred, class T>
void gradient_row(const T* grad_y, const T* x, const uint8_t* mask, const accumulate_t<T>* mean,
                  const accumulate_t<T>* scale, const accumulate_t<T>* level,
                  const accumulate_t<T>* tilt, T* grad_x, T* grad_residual, int64_t size,
                  accumulate_t<T> slope, bool streams) {
  using A = accumulate_t<T>;
  for_row<A>(
      size, streamed(grad_x, streams),
      [=]<int lanes>(int64_t i, Lanes<lanes>, auto past_caches) PYDL_INLINE_BODY {
        using V = Vec<A, lanes>;
        const V g = passed<activation, lanes, A>(load_vec<lanes>(grad_y + i), mask, i, slope);
        V grad = g;
        if constexpr (centred) {
          const V deviation = load_vec<lanes>(x + i) - coefficient<per_element, lanes>(mean, i);
          grad = g - coefficient<per_element, lanes>(level, i) -
                 deviation * coefficient<per_element, lanes>(tilt, i);
        }
        write<lanes, T>(V(grad * coefficient<per_element, lanes>(scale, i)), grad_x + i,
                        past_caches);
        if (grad_residual != nullptr) write<lanes, T>(g, grad_residual + i, past_caches);
      });
}

template <Activation activation, bool centred, class T>
void grad_input(const BatchNormGradInput& args, bool channels_last, int64_t threads) {
  using A = accumulate_t<T>;
  const Map map(args.x);
  const int64_t channels = map.channels, plane = map.plane, elements = args.x.numel();
  const T *grad_y = static_cast<const T*>(args.grad_y.data),
          *x = static_cast<const T*>(args.x.data);
  const uint8_t* mask = static_cast<const uint8_t*>(args.mask.data);
  T *grad_x = static_cast<T*>(args.grad_x.data),
    *grad_residual = static_cast<T*>(args.grad_residual.data);
  const A *mean = static_cast<const A*>(args.mean.data),
          *var = static_cast<const A*>(args.var.data);
  A *sum_g = static_cast<A*>(args.sum_g.data), *sum_gx = static_cast<A*>(args.sum_gx.data);
  const A slope = static_cast<A>(args.epilogue.slope);
  const Scratch<A> memory(4, channels);
  const Coefficients<A> of{memory.of(0), memory.of(1), memory.of(2), memory.of(3)};
  // Both results are streamed or neither: cache lines have to begin at the same elements of both.
  const auto apart =
      reinterpret_cast<uintptr_t>(grad_x) - reinterpret_cast<uintptr_t>(args.grad_residual.data);
  const bool streams =
      worth_streaming<T>(elements) && (grad_residual == nullptr || apart % kLineBytes == 0);
  constexpr bool masked = activation != Activation::none;
  if (!channels_last) {
    const int64_t bytes = (plane + 7) / 8;
    share_out(channels, team_size(channels, elements, threads),
              [&](int64_t, int64_t begin, int64_t end) {
                for (int64_t c = begin; c < end; ++c) {
                  if (args.training) {
                    double g, gx;
                    plane_sums<activation>(grad_y + c * plane, x + c * plane,
                                           masked ? mask + c * bytes : nullptr, map, mean[c], slope,
                                           g, gx);
                    sum_g[c] = static_cast<A>(g);
                    sum_gx[c] = static_cast<A>(gx * inverse_deviation(var[c], args.eps));
                  }
                  of.set(c, args);
                  for (int64_t n = map.batch - 1; n >= 0; --n) {
                    const int64_t row = n * channels + c, first = row * plane;
                    gradient_row<activation, false, centred>(
                        grad_y + first, x + first, masked ? mask + row * bytes : nullptr,
                        of.mean + c, of.scale + c, of.level + c, of.tilt + c, grad_x + first,
                        grad_residual == nullptr ? nullptr : grad_residual + first, plane, slope,
                        streams);
                  }
                }
              });
    return;
  }
  if (args.training)
    pixel_sums<activation>(grad_y, x, mask, map, mean, var, args.eps, slope, sum_g, sum_gx,
                           threads);
  for (int64_t c = 0; c < channels; ++c) of.set(c, args);
  const int64_t bytes = masked ? (channels + 7) / 8 : 0;
  share_out(map.pixels, team_size(map.pixels, elements, threads),
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t p = end - 1; p >= begin; --p) {
                const int64_t first = p * channels;
                gradient_row<activation, true, centred>(
                    grad_y + first, x + first, masked ? mask + p * bytes : nullptr, of.mean,
                    of.scale, of.level, of.tilt, grad_x + first,
                    grad_residual == nullptr ? nullptr : grad_residual + first, channels, slope,
                    streams);
              }
            });
}

}  // namespace

void batch_norm_grad_sums(const BatchNormGradSums& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "batch_norm", [&]<class T>(T) {
    using A = accumulate_t<T>;
    const Map map(args.x);
    const T *grad_y = static_cast<const T*>(args.grad_y.data),
            *x = static_cast<const T*>(args.x.data);
    const uint8_t* mask = static_cast<const uint8_t*>(args.mask.data);
    const A *mean = static_cast<const A*>(args.mean.data),
            *var = static_cast<const A*>(args.var.data);
    A *sum_g = static_cast<A*>(args.sum_g.data), *sum_gx = static_cast<A*>(args.sum_gx.data);
    const A slope = static_cast<A>(args.epilogue.slope);
    if (map.pixels == 0) {
      std::fill_n(sum_g, map.channels, A{0});
      std::fill_n(sum_gx, map.channels, A{0});
      return;
    }
    with_masked_activation(args.epilogue.activation, [&]<Activation activation>() {
      if (channels_last)
        return pixel_sums<activation>(grad_y, x, mask, map, mean, var, args.eps, slope, sum_g,
                                      sum_gx, threads);
      const int64_t bytes = activation == Activation::none ? 0 : (map.plane + 7) / 8;
      share_out(map.channels, team_size(map.channels, args.x.numel(), threads),
                [&](int64_t, int64_t begin, int64_t end) {
                  for (int64_t c = begin; c < end; ++c) {
                    double g, gx;
                    plane_sums<activation>(grad_y + c * map.plane, x + c * map.plane,
                                           mask + c * bytes, map, mean[c], slope, g, gx);
                    sum_g[c] = static_cast<A>(g);
                    sum_gx[c] = static_cast<A>(gx * inverse_deviation(var[c], args.eps));
                  }
                });
    });
  });
}

void batch_norm_grad_input(const BatchNormGradInput& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "batch_norm", [&]<class T>(T) {
    with_masked_activation(args.epilogue.activation, [&]<Activation activation>() {
      if (args.sum_g.data != nullptr)
        grad_input<activation, true, T>(args, channels_last, threads);
      else
        grad_input<activation, false, T>(args, channels_last, threads);
    });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
