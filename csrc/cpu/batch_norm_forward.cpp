// Statistics, normalisation, residual and activation in one pass over a map (definition in
// ../batch_norm.h).
//
// N, C, D, H, W: a task is a run of channels. The planes of one channel, some hundred KB, are read
// once from memory for its statistics and then, backwards, from the second-level cache to be
// normalised. Channels last: the statistics are a pass of their own over runs of pixels; the second
// pass goes backwards too, so that it begins with what the first has left in the caches.
//
// Statistics: deviations from the mean so far, and their squares, are added up over a chunk in the
// type of the arithmetic; chunks are joined in double. A chunk's own spread is the difference of
// two such sums, which loses digits only where its mean lies far from the mean so far, and then the
// distance between the two, which joins the total, is larger than what is lost. The first chunk has
// its own mean to begin with.
//
// Bytes: x (and residual) read, y and one bit per element written; channels last x is read twice.
#include "batch_norm.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// Of `count` values: their mean and the sum of the squared deviations from it.
struct Moments {
  double count = 0, mean = 0, squares = 0;

  void join(double n, double its_mean, double its_squares) {
    const double total = count + n, distance = its_mean - mean;
    // Infinities have no distance: a weighted mean keeps them.
    const double between = std::isfinite(distance)
                               ? mean + distance * (n / total)
                               : mean * (count / total) + its_mean * (n / total);
    const double joined = count == 0 ? its_mean : between;
    squares += its_squares + (count == 0 ? 0 : distance * distance * (count * n / total));
    mean = joined, count = total;
  }
  double variance() const { return squares / count; }
};

template <class A>
A as_shift(double mean) {
  return std::isfinite(mean) ? static_cast<A>(mean) : A{0};
}

// `sum` and `squares`: of the deviations from `shift` of n values.
template <class A>
void join(Moments& moments, double n, A shift, double sum, double squares) {
  const double beyond = sum / n, own = squares - sum * beyond;
  moments.join(n, shift + beyond, own < 0 ? 0 : own);
}

template <int lanes, class T>
PYDL_INLINE void add_rows(const Rows<T>& rows, accumulate_t<T> shift, double& sum,
                          double& squares) {
  using A = accumulate_t<T>;
  using V = Vec<A, lanes>;
  V s[4] = {}, q[4] = {};
  for (int64_t r = 0; r < rows.count; ++r) {
    const T* row = rows.first + r * rows.stride;
    int64_t i = 0;
    for (; i + 4 * lanes <= rows.size; i += 4 * lanes) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const V a = load_vec<lanes>(row + i + j * lanes) - shift;
        s[j] += a, q[j] += a * a;
      }
    }
    for (; i + lanes <= rows.size; i += lanes) {
      const V a = load_vec<lanes>(row + i) - shift;
      s[0] += a, q[0] += a * a;
    }
    if (i < rows.size) {
      const V a =
          last_lanes<lanes, A>(load_vec<lanes>(row + rows.size - lanes) - shift, rows.size - i);
      s[1] += a, q[1] += a * a;
    }
  }
  sum = sum_lanes<lanes, A>((s[0] + s[1]) + (s[2] + s[3]));
  squares = sum_lanes<lanes, A>((q[0] + q[1]) + (q[2] + q[3]));
}

template <class T>
Moments plane_moments(const T* x, const Map& map) {
  using A = accumulate_t<T>;
  Moments moments;
  with_lanes<A>(std::min(map.plane, kChunk), [&]<int lanes>(Lanes<lanes>) {
    for_chunks(map, [&](int64_t n, int64_t planes, int64_t offset, int64_t size) {
      const int64_t stride = map.channels * map.plane;
      const Rows<T> rows{x + n * stride + offset, planes, stride, size};
      const double count = static_cast<double>(planes * size);
      double sum, squares;
      const auto add = [&](A shift) {
        // The end of a plane may be shorter than a vector.
        if (size >= lanes)
          add_rows<lanes>(rows, shift, sum, squares);
        else
          add_rows<1>(rows, shift, sum, squares);
      };
      if (moments.count == 0) add(A{0});
      const A shift = as_shift<A>(moments.count == 0 ? sum / count : moments.mean);
      add(shift);
      join(moments, count, shift, sum, squares);
    });
  });
  return moments;
}

// sums and squares += the deviations of `count` pixels.
template <int count, class T>
PYDL_INLINE void add_pixels(const T* pixels, int64_t channels, const accumulate_t<T>* shift,
                            accumulate_t<T>* sums, accumulate_t<T>* squares) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(channels, [=]<int lanes>(int64_t c, Lanes<lanes>) PYDL_INLINE_BODY {
    using V = Vec<A, lanes>;
    const V from = load_vec<lanes>(shift + c);
    V s = load_vec<lanes>(sums + c), q = load_vec<lanes>(squares + c);
#pragma GCC unroll 8
    for (int p = 0; p < count; ++p) {
      const V a = load_vec<lanes>(pixels + p * channels + c) - from;
      s += a, q += a * a;
    }
    store_vec<lanes>(s, sums + c), store_vec<lanes>(q, squares + c);
  });
}

template <class T>
void add_all_pixels(const T* x, int64_t count, int64_t channels, const accumulate_t<T>* shift,
                    accumulate_t<T>* sums, accumulate_t<T>* squares) {
  using A = accumulate_t<T>;
  std::fill_n(sums, channels, A{0});
  std::fill_n(squares, channels, A{0});
  int64_t p = 0;
  for (; p + 8 <= count; p += 8) add_pixels<8>(x + p * channels, channels, shift, sums, squares);
  for (; p < count; ++p) add_pixels<1>(x + p * channels, channels, shift, sums, squares);
}

// The moments of every channel, arrays of C values.
struct ChannelMoments {
  double *mean, *squares;
};

// As Moments::join and join above for all channels at once, without a branch; leaves the new means
// as shifts.
template <class A>
void join_channels(const ChannelMoments& of, int64_t channels, double count, double n, A* shift,
                   const A* sums, const A* squares) {
  const double each = 1 / n, share = n / (count + n), between = count * share;
  PYDL_LANES
  for (int64_t c = 0; c < channels; ++c) {
    const double sum = sums[c], beyond = sum * each, spread = squares[c] - sum * beyond;
    const double its_mean = shift[c] + beyond, distance = its_mean - of.mean[c];
    const double weighted = of.mean[c] * (1 - share) + its_mean * share;
    const double mean = distance - distance == 0 ? of.mean[c] + distance * share : weighted;
    of.squares[c] += (spread < 0 ? 0 : spread) + distance * distance * between;
    of.mean[c] = mean;
    shift[c] = static_cast<A>(mean - mean == 0 ? mean : 0);
  }
}

// Means and variances of channels-last maps, into arrays of C values.
template <class T>
void pixel_stats(const T* x, const Map& map, accumulate_t<T>* mean, accumulate_t<T>* var,
                 int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = map.channels, runs = map.runs();
  const int64_t team = team_size(runs, map.pixels * channels, threads);
  const Scratch<double> of_run(runs, 2 * channels);
  const Scratch<A> memory(team, 3 * channels);
  share_out(runs, team, [&](int64_t member, int64_t begin, int64_t end) {
    A *shift = memory.of(member), *sums = shift + channels, *squares = sums + channels;
    for (int64_t run = begin; run < end; ++run) {
      const ChannelMoments moments{of_run.of(run), of_run.of(run) + channels};
      std::fill_n(moments.mean, 2 * channels, 0.0);
      const int64_t first = map.pixels * run / runs, last = map.pixels * (run + 1) / runs;
      for (int64_t p = first; p < last; p += kChunkPixels) {
        const int64_t count = std::min(kChunkPixels, last - p);
        const double n = static_cast<double>(count);
        const T* chunk = x + p * channels;
        if (p == first) {
          std::fill_n(shift, channels, A{0});
          add_all_pixels(chunk, count, channels, shift, sums, squares);
          for (int64_t c = 0; c < channels; ++c) shift[c] = as_shift<A>(sums[c] / n);
        }
        add_all_pixels(chunk, count, channels, shift, sums, squares);
        join_channels(moments, channels, static_cast<double>(p - first), n, shift, sums, squares);
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    Moments total;
    for (int64_t run = 0; run < runs; ++run) {
      const double* of = of_run.of(run);
      const int64_t n = map.pixels * (run + 1) / runs - map.pixels * run / runs;
      total.join(static_cast<double>(n), of[c], of[channels + c]);
    }
    mean[c] = static_cast<A>(total.mean), var[c] = static_cast<A>(total.variance());
  }
}

// y = activation((x - mean) * scale + bias + residual) of a row, and its bits.
template <Activation activation, bool per_element, bool keeps, class T>
void normalise_row(const T* x, const accumulate_t<T>* mean, const accumulate_t<T>* scale,
                   const accumulate_t<T>* bias, const T* residual, T* y, uint8_t* mask,
                   int64_t size, accumulate_t<T> slope, bool streams) {
  using A = accumulate_t<T>;
  for_row<A>(size, streamed(y, streams),
             [=]<int lanes>(int64_t i, Lanes<lanes>, auto past_caches) PYDL_INLINE_BODY {
               using V = Vec<A, lanes>;
               V z = load_vec<lanes>(x + i) - coefficient<per_element, lanes>(mean, i);
               z = z * coefficient<per_element, lanes>(scale, i) +
                   coefficient<per_element, lanes>(bias, i);
               if (residual != nullptr) z += load_vec<lanes>(residual + i);
               if constexpr (keeps && activation == Activation::relu)
                 write_bits<lanes>(bits_of<lanes, A>(z <= A{0}) ^ ((1u << lanes) - 1), mask, i);
               if constexpr (keeps && activation == Activation::leaky_relu)
                 write_bits<lanes>(bits_of<lanes, A>(z > A{0}), mask, i);
               write<lanes, T>(activated<activation, lanes, A>(z, slope), y + i, past_caches);
             });
}

// The coefficients of every channel, three arrays of C values.
template <class A>
struct Coefficients {
  A *mean, *scale, *bias;

  void set(int64_t c, A its_mean, A var, const A* weight, const A* its_bias, double eps) const {
    mean[c] = its_mean;
    scale[c] = static_cast<A>((weight == nullptr ? 1.0 : weight[c]) * inverse_deviation(var, eps));
    bias[c] = its_bias == nullptr ? A{0} : its_bias[c];
  }
};

template <Activation activation, bool keeps, class T>
void forward(const BatchNormForward& args, bool channels_last, int64_t threads) {
  using A = accumulate_t<T>;
  const Map map(args.x);
  const int64_t channels = map.channels, plane = map.plane;
  const T* x = static_cast<const T*>(args.x.data);
  const T* residual = static_cast<const T*>(args.residual.data);
  T* y = static_cast<T*>(args.y.data);
  uint8_t* mask = static_cast<uint8_t*>(args.mask.data);
  A *mean = static_cast<A*>(args.mean.data), *var = static_cast<A*>(args.var.data);
  const A *weight = static_cast<const A*>(args.weight.data),
          *bias = static_cast<const A*>(args.bias.data);
  const A slope = static_cast<A>(args.epilogue.slope);
  const Scratch<A> memory(3, channels);
  const Coefficients<A> of{memory.of(0), memory.of(1), memory.of(2)};
  const bool streams = worth_streaming<T>(args.x.numel());
  const int64_t elements = args.x.numel();
  if (!channels_last) {
    const int64_t bytes = (plane + 7) / 8;
    share_out(channels, team_size(channels, elements, threads),
              [&](int64_t, int64_t begin, int64_t end) {
                for (int64_t c = begin; c < end; ++c) {
                  if (args.training) {
                    const Moments moments = plane_moments(x + c * plane, map);
                    mean[c] = static_cast<A>(moments.mean);
                    var[c] = static_cast<A>(moments.variance());
                  }
                  of.set(c, mean[c], var[c], weight, bias, args.eps);
                  for (int64_t n = map.batch - 1; n >= 0; --n) {
                    const int64_t row = n * channels + c, first = row * plane;
                    normalise_row<activation, false, keeps>(
                        x + first, of.mean + c, of.scale + c, of.bias + c,
                        residual == nullptr ? nullptr : residual + first, y + first,
                        keeps ? mask + row * bytes : nullptr, plane, slope, streams);
                  }
                }
              });
    return;
  }
  if (args.training) pixel_stats(x, map, mean, var, threads);
  for (int64_t c = 0; c < channels; ++c) of.set(c, mean[c], var[c], weight, bias, args.eps);
  const int64_t bytes = (channels + 7) / 8;
  share_out(map.pixels, team_size(map.pixels, elements, threads),
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t p = end - 1; p >= begin; --p) {
                const int64_t first = p * channels;
                normalise_row<activation, true, keeps>(
                    x + first, of.mean, of.scale, of.bias,
                    residual == nullptr ? nullptr : residual + first, y + first,
                    keeps ? mask + p * bytes : nullptr, channels, slope, streams);
              }
            });
}

}  // namespace

void batch_norm_stats(const BatchNormStats& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "batch_norm", [&]<class T>(T) {
    using A = accumulate_t<T>;
    const Map map(args.x);
    const T* x = static_cast<const T*>(args.x.data);
    A *mean = static_cast<A*>(args.mean.data), *var = static_cast<A*>(args.var.data);
    if (map.pixels == 0) {
      std::fill_n(mean, map.channels, A{0});
      std::fill_n(var, map.channels, A{0});
    } else if (channels_last) {
      pixel_stats(x, map, mean, var, threads);
    } else {
      share_out(map.channels, team_size(map.channels, args.x.numel(), threads),
                [&](int64_t, int64_t begin, int64_t end) {
                  for (int64_t c = begin; c < end; ++c) {
                    const Moments moments = plane_moments(x + c * map.plane, map);
                    mean[c] = static_cast<A>(moments.mean);
                    var[c] = static_cast<A>(moments.variance());
                  }
                });
    }
  });
}

void batch_norm_forward(const BatchNormForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "batch_norm", [&]<class T>(T) {
    with_masked_activation(args.epilogue.activation, [&]<Activation activation>() {
      if (args.mask.data != nullptr && activation != Activation::none)
        forward<activation, activation != Activation::none, T>(args, channels_last, threads);
      else
        forward<activation, false, T>(args, channels_last, threads);
    });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
