// Batch normalisation with residual and activation: ../batch_norm.h has the definitions.
//
// Sums over a channel (the statistics; sum_g and sum_gx of backward): a block owns a tile of
// channels and a run of pixels. Where w is innermost the tile is one channel and the block's 256
// threads take neighbouring pixels; channels last it is 32 channels by 8 pixels, so that a warp
// reads neighbouring channels. A thread adds up every 256th or 8th pixel of the run, several at a
// time, so that it waits once for their loads, and the block its threads by halves. In a second
// kernel a warp adds up a channel's runs, a lane every 32nd, then the lanes by halves: the same bits
// every time. Moments join by Chan's formula, once for the values loaded together. The lane that has
// the moments of a channel moves its running statistics, in any dtype, by branches: a kernel for each
// would be compiled once more.
//
// Where the maps lie alike the blocks are those of batch_norm_dense.cu; batch_norm_apply.cu has what
// is done to each element.
//
// Least traffic: the statistics read x, the sums of backward grad_y, x and one bit for each element.
#include "batch_norm_map.h"

namespace pydl::cuda {
namespace {

// The channel, the first pixel and the distance to the next of a thread that adds up.
struct Place {
  int64_t c, pixel, last, step, run;

  __device__ explicit Place(const Shape& shape) {
    const int tile = shape.tile();
    run = quotient(blockIdx.x, shape.tiles);
    c = (blockIdx.x - run * shape.tiles) * tile + threadIdx.x % tile;
    pixel = shape.first_pixel(run) + threadIdx.x / tile;
    last = shape.first_pixel(run + 1);
    step = block_size / tile;
  }
};

// Every `step`-th pixel from one on, as pixel s of image n: by additions, where a division for each
// would cost more than all else that is done with it.
struct Walk {
  int64_t n, s, step_n, step_s, plane;

  __device__ Walk(const Place& at, int64_t plane)
      : n(quotient(at.pixel, plane)),
        s(at.pixel - n * plane),
        step_n(quotient(at.step, plane)),
        step_s(at.step - step_n * plane),
        plane(plane) {}
  __device__ void advance() {
    n += step_n;
    s += step_s;
    if (s >= plane) s -= plane, ++n;
  }
};

template <class T>
__global__ void partial_moments(Map<const T> x, View<accumulate_t<T>> parts, Shape shape) {
  using A = accumulate_t<T>;
  SHARED(A, counts, [block_size]);
  SHARED(A, means, [block_size]);
  SHARED(A, squared, [block_size]);
  const int t = threadIdx.x;
  const Place at(shape);
  A count = 0, mean = 0, squares = 0;
  if (at.c < shape.channels && at.pixel < at.last) {
    constexpr int together = 8;
    Walk pixel(at, shape.plane);
    for (int64_t p = at.pixel; p < at.last; p += together * at.step) {
      T value[together] = {};
      A sum = 0, own = 0;
      int n = 0;
      UNROLLED for (int i = 0; i < together; ++i) {
        if (p + i * at.step < at.last) {
          value[i] = x.pixel(pixel.n, at.c, pixel.s);
          ++n;
        }
        pixel.advance();
      }
      UNROLLED for (int i = 0; i < together; ++i) sum += A(value[i]);
      const A its_mean = sum / n;
      UNROLLED for (int i = 0; i < together; ++i) {
        const A deviation = A(value[i]) - its_mean;
        if (i < n) own += deviation * deviation;
      }
      join(count, mean, squares, A(n), its_mean, own);
    }
  }
  counts[t] = count;
  means[t] = mean;
  squared[t] = squares;
  __syncthreads();
  for (int half = block_size / 2; half >= shape.tile(); half /= 2) {
    if (t < half)
      join(counts[t], means[t], squared[t], counts[t + half], means[t + half], squared[t + half]);
    __syncthreads();
  }
  if (t < shape.tile() && at.c < shape.channels) {
    parts.at(0, at.run, 0, 0, at.c) = means[t];
    parts.at(1, at.run, 0, 0, at.c) = squared[t];
  }
}

// Running statistics and what a batch does to them.
template <class A>
struct Running {
  void *mean = nullptr, *var = nullptr;  // (C,); nullptr: there are none
  DType dtype = DType::float32;
  int64_t* batches = nullptr;  // nullptr: nobody counts
  A momentum = 0;
  bool cumulative = false;  // then the momentum is 1 / *batches, which counts this one already
};

// As PyTorch's lerp, exact at both ends.
template <class T, class A>
__device__ void move(void* running, int64_t c, A to, A momentum) {
  T& kept = static_cast<T*>(running)[c];
  const A from = A(kept), way = to - from;
  kept = T(momentum < A(0.5) ? from + momentum * way : to - way * (A(1) - momentum));
}

template <class A>
__device__ void move(void* running, DType dtype, int64_t c, A to, A momentum) {
  if (dtype == DType::float32)
    move<float>(running, c, to, momentum);
  else if (dtype == DType::float16)
    move<float16>(running, c, to, momentum);
  else if (dtype == DType::bfloat16)
    move<bfloat16>(running, c, to, momentum);
  else
    move<double>(running, c, to, momentum);
}

template <class A>
__global__ void join_moments(View<const A> parts, View<A> mean, View<A> var, Running<A> running,
                             Shape shape) {
  const int64_t c = channel_of_warp();
  if (c >= shape.channels) return;  // the whole warp
  const int lane = threadIdx.x % warp_size;
  constexpr int together = 4;
  A count = 0, its_mean = 0, squares = 0;
  for (int64_t run = lane; run < shape.runs; run += together * warp_size) {
    A n[together] = {}, means[together] = {}, squared[together] = {};
    UNROLLED for (int i = 0; i < together; ++i) {
      const int64_t its = run + i * warp_size;
      if (its >= shape.runs) break;
      n[i] = shape.first_pixel(its + 1) - shape.first_pixel(its);
      means[i] = parts.at(0, its, 0, 0, c);
      squared[i] = parts.at(1, its, 0, 0, c);
    }
    UNROLLED for (int i = 0; i < together; ++i)
        join(count, its_mean, squares, n[i], means[i], squared[i]);
  }
  for (int half = warp_size / 2; half > 0; half /= 2) {
    const A n = __shfl_down_sync(0xffffffffu, count, half);
    const A other_mean = __shfl_down_sync(0xffffffffu, its_mean, half);
    join(count, its_mean, squares, n, other_mean, __shfl_down_sync(0xffffffffu, squares, half));
  }
  if (lane > 0) return;
  mean.at(0, c, 0, 0, 0) = its_mean;
  var.at(0, c, 0, 0, 0) = count > 0 ? squares / count : A(0);
  if (running.batches != nullptr && !running.cumulative && c == 0) ++*running.batches;
  if (running.mean == nullptr) return;
  const A momentum = running.cumulative ? A(1) / A(*running.batches) : running.momentum;
  move(running.mean, running.dtype, c, its_mean, momentum);
  move(running.var, running.dtype, c, squares / (count - 1), momentum);
}

template <class T>
__global__ void partial_sums(Map<const T> grad_y, Map<const T> x, View<const accumulate_t<T>> mean,
                             const uint8_t* mask, View<accumulate_t<T>> parts, Epilogue epilogue,
                             bool rows_are_pixels, Shape shape) {
  using A = accumulate_t<T>;
  SHARED(A, sums, [2][block_size]);
  const int t = threadIdx.x;
  const Place at(shape);
  A sum_g = 0, sum_gx = 0;
  if (at.c < shape.channels && at.pixel < at.last) {
    constexpr int together = 4;
    const A its_mean = mean.at(0, at.c, 0, 0, 0);
    const bool masked = epilogue.activation != Activation::none;
    const int64_t bytes = ((rows_are_pixels ? shape.channels : shape.plane) + 7) / 8;
    Walk pixel(at, shape.plane);
    for (int64_t p = at.pixel; p < at.last; p += together * at.step) {
      T gradient[together] = {}, value[together] = {};
      uint8_t byte[together] = {};  // of the mask
      int bit[together] = {};
      UNROLLED for (int i = 0; i < together; ++i) {
        const int64_t q = p + i * at.step;
        if (q < at.last) {
          const int64_t row = rows_are_pixels ? q : pixel.n * shape.channels + at.c;
          const int64_t column = rows_are_pixels ? at.c : pixel.s;
          if (masked) byte[i] = mask[row * bytes + column / 8];
          bit[i] = column % 8;
          gradient[i] = grad_y.pixel(pixel.n, at.c, pixel.s);
          value[i] = x.pixel(pixel.n, at.c, pixel.s);
        }
        pixel.advance();
      }
      UNROLLED for (int i = 0; i < together; ++i) {
        const A g = masked ? passed(A(gradient[i]), byte[i], bit[i], epilogue) : A(gradient[i]);
        sum_g += g;
        sum_gx += g * (A(value[i]) - its_mean);
      }
    }
  }
  sums[0][t] = sum_g;
  sums[1][t] = sum_gx;
  __syncthreads();
  for (int half = block_size / 2; half >= shape.tile(); half /= 2) {
    if (t < half) {
      sums[0][t] += sums[0][t + half];
      sums[1][t] += sums[1][t + half];
    }
    __syncthreads();
  }
  if (t < shape.tile() && at.c < shape.channels) {
    parts.at(0, at.run, 0, 0, at.c) = sums[0][t];
    parts.at(1, at.run, 0, 0, at.c) = sums[1][t];
  }
}

template <class A>
__global__ void join_sums(View<const A> parts, View<const A> var, View<A> sum_g, View<A> sum_gx,
                          A eps, Shape shape) {
  const int64_t c = channel_of_warp();
  if (c >= shape.channels) return;  // the whole warp
  const Vector<A, 2> sums = sum_of_runs<2>(parts, shape.runs, c);
  if (threadIdx.x % warp_size > 0) return;
  sum_g.at(0, c, 0, 0, 0) = sums.at[0];
  sum_gx.at(0, c, 0, 0, 0) = sums.at[1] * inverse_deviation(var.at(0, c, 0, 0, 0), eps);
}

// Partial sums: two numbers per channel and run.
void check_parts(const Tensor& x, const Tensor& parts, const Shape& shape) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  check(parts.data != nullptr && parts.dtype == sums && parts.size[0] == 2 &&
            parts.size[1] == shape.runs && parts.size[4] == shape.channels,
        "batch_norm expects room for 2 x ", shape.runs, " x ", shape.channels, " partial sums");
}

// Statistics, and what they do to the running ones of a training step, if it is one.
void launch_moments(const BatchNormStats& args, const BatchNormTrain* train, int64_t stream) {
  const auto& [x, mean, var, parts] = args;
  const Shape shape(x);
  check_channels(x, {&mean, &var});
  if (shape.channels == 0) return;
  check_parts(x, parts, shape);
  const bool served = launch_dense_moments(args, shape, stream);
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    if (!served)
      launch(partial_moments<T>, shape.tiles * shape.runs, block_size, 0, stream, Map<const T>(x),
             View<A>(parts), shape);
    Running<A> running;
    if (train != nullptr) {
      running = {train->running_mean.data,
                 train->running_var.data,
                 train->running_mean.dtype,
                 static_cast<int64_t*>(train->num_batches_tracked.data),
                 static_cast<A>(train->momentum.value_or(0)),
                 !train->momentum.has_value()};
    }
    launch(join_moments<A>, blocks_for(shape.channels, block_size / warp_size), block_size, 0,
           stream, View<const A>(parts), View<A>(mean), View<A>(var), running, shape);
  });
}

}  // namespace

int64_t batch_norm_runs(const Tensor& x) { return Shape(x).runs; }

void batch_norm_stats(const BatchNormStats& args, int64_t stream) {
  launch_moments(args, nullptr, stream);
}

void batch_norm_train(const BatchNormTrain& args, int64_t stream) {
  BatchNormForward forward = args.forward;
  check(forward.training, "batch_norm_train makes the statistics");
  check_running(args);
  forward.training = false;  // of what is left to do
  launch_moments({forward.x, forward.mean, forward.var, args.parts}, &args, stream);
  batch_norm_forward(forward, stream);
}

void batch_norm_grad_sums(const BatchNormGradSums& args, int64_t stream) {
  const Tensor& x = args.x;
  const Shape shape(x);
  check_channels(x, {&args.mean, &args.var, &args.sum_g, &args.sum_gx});
  check_maps(x, {&args.grad_y});
  if (shape.channels == 0) return;
  check_parts(x, args.parts, shape);
  if (x.numel() > 0)
    check_mask(x, args.rows_are_pixels, args.mask, args.epilogue.activation != Activation::none);
  const bool served = launch_dense_sums(args, shape, stream);
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    if (!served)
      launch(partial_sums<T>, shape.tiles * shape.runs, block_size, 0, stream,
             Map<const T>(args.grad_y), Map<const T>(x), View<const A>(args.mean),
             static_cast<const uint8_t*>(args.mask.data), View<A>(args.parts), args.epilogue,
             args.rows_are_pixels, shape);
    launch(join_sums<A>, blocks_for(shape.channels, block_size / warp_size), block_size, 0, stream,
           View<const A>(args.parts), View<const A>(args.var), View<A>(args.sum_g),
           View<A>(args.sum_gx), static_cast<A>(args.eps), shape);
  });
}

}  // namespace pydl::cuda
