// Batch normalisation with residual and activation: ../batch_norm.h has the definitions.
//
// Sums over a channel (the statistics; sum_g and sum_gx of backward): a block owns a tile of
// channels and a run of pixels. Where w is innermost the tile is one channel and the block's 256
// threads take neighbouring pixels; channels last it is 32 channels by 8 pixels, so that a warp
// reads neighbouring channels. A thread adds up every 256th or 8th pixel of the run, several at a
// time, so that it waits once for their loads, and the block its threads by halves. In a second
// kernel a warp adds up a channel's runs, a lane every 32nd, then the lanes by halves: the same bits
// every time. Moments join by Chan's formula, once for the values loaded together.
//
// What is done to each element: a warp owns 32 neighbours of a row of the mask and takes 8 such
// pieces, of a plane one after the other, of channels-last maps in as many pixels, so that it
// computes the channel's numbers once. The 32 bits of the mask are one ballot.
//
// Least traffic: statistics read x; forward reads x (and residual) and writes y and one bit per
// element; backward reads grad_y, x and the bits twice and writes grad_x (and grad_residual). Maps
// of a few MB are read the second time from L2.
#include "../batch_norm.h"
#include "activation.h"
#include "element.h"

namespace pydl::cuda {
namespace {

constexpr int warp_size = 32;
constexpr int pieces = 8;               // of a row or of neighbouring rows, that a warp takes
constexpr int64_t enough_blocks = 512;  // four waves of 132 multiprocessors
constexpr int64_t least_per_thread = 16;

// A map and the distance between its pixels, where there is one for all; else -1.
template <class T>
struct Map : View<T> {
  int64_t step;

  Map() = default;
  explicit Map(const Tensor& tensor) : View<T>(tensor), step(0) {
    int64_t span = 1;
    for (int axis = 4; axis >= 2; --axis) {
      if (tensor.size[axis] == 1) continue;
      if (span == 1) step = tensor.stride[axis];
      if (tensor.stride[axis] != step * span) {
        step = -1;
        return;
      }
      span *= tensor.size[axis];
    }
  }
  __device__ T& pixel(int64_t n, int64_t c, int64_t s) const {
    if (step >= 0) return this->data[n * this->stride[0] + c * this->stride[1] + s * step];
    const int64_t w = take(s, this->size[4]), h = take(s, this->size[3]);
    return this->at(n, c, s, h, w);
  }
};

// What the kernels know of a problem besides its tensors.
struct Shape {
  int64_t batch, channels, plane;
  bool channels_last;
  int64_t tiles, runs;         // of channels, of pixels: the blocks that add up
  int64_t run_length, longer;  // of pixels, and how many runs have one more

  explicit Shape(const Tensor& x)
      : batch(x.size[0]),
        channels(x.size[1]),
        plane(x.size[2] * x.size[3] * x.size[4]),
        channels_last(x.channels_last()) {
    tiles = (channels + tile() - 1) / tile();
    const int64_t room = pixels() / (block_size / tile() * least_per_thread);
    const int64_t wanted = tiles == 0 ? 1 : (enough_blocks + tiles - 1) / tiles;
    runs = room < 1 ? 1 : room < wanted ? room : wanted;
    run_length = pixels() / runs;
    longer = pixels() % runs;
  }
  PYDL_HOST_DEVICE int64_t pixels() const { return batch * plane; }
  PYDL_HOST_DEVICE int tile() const { return channels_last ? warp_size : 1; }
  PYDL_HOST_DEVICE int64_t first_pixel(int64_t run) const {
    return run * run_length + (run < longer ? run : longer);
  }
  // Rows of the mask.
  PYDL_HOST_DEVICE int64_t rows() const { return batch * (channels_last ? plane : channels); }
  PYDL_HOST_DEVICE int64_t columns() const { return channels_last ? channels : plane; }
  PYDL_HOST_DEVICE int64_t bytes() const { return (columns() + 7) / 8; }
};

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

template <class A>
__device__ void join(A& count, A& mean, A& squares, A n, A its_mean, A its_squares) {
  const A total = count + n;
  if (n == 0) return;
  const A share = n / total, distance = its_mean - mean;
  mean += distance * share;
  squares += its_squares + distance * distance * share * count;
  count = total;
}

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

// The channel whose runs a thread's warp joins.
__device__ int64_t channel_of_warp() { return thread_number() / warp_size; }

template <class A>
__global__ void join_moments(View<const A> parts, View<A> mean, View<A> var, Shape shape) {
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
}

template <class A>
__device__ A inverse_deviation(A var, A eps) {
  return 1 / std::sqrt(var + eps);
}

// g from grad_y and its bit of a byte of the mask.
template <class A>
__device__ A passed(A grad_y, uint8_t byte, int bit, const Epilogue& epilogue) {
  if (byte >> bit & 1) return grad_y;
  return epilogue.activation == Activation::relu ? A(0) : grad_y * A(epilogue.slope);
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
  const int lane = threadIdx.x % warp_size;
  A g = 0, gx = 0;
  for (int64_t run = lane; run < shape.runs; run += warp_size) {
    g += parts.at(0, run, 0, 0, c);
    gx += parts.at(1, run, 0, 0, c);
  }
  for (int half = warp_size / 2; half > 0; half /= 2) {
    g += __shfl_down_sync(0xffffffffu, g, half);
    gx += __shfl_down_sync(0xffffffffu, gx, half);
  }
  if (lane > 0) return;
  sum_g.at(0, c, 0, 0, 0) = g;
  sum_gx.at(0, c, 0, 0, 0) = gx * inverse_deviation(var.at(0, c, 0, 0, 0), eps);
}

// A warp's place in a map: calls body(n, c, s, row, column, inside) for its lane's element of each
// piece; outside the map the coordinates are those of an element that is there. All lanes call.
template <class Body>
__device__ void for_pieces(const Shape& shape, const Body& body) {
  const int lane = threadIdx.x % warp_size;
  int64_t group = quotient(thread_number(), warp_size);
  const int64_t rows = shape.rows(), columns = shape.columns();
  const int64_t across = shape.channels_last ? 1 : pieces, down = shape.channels_last ? pieces : 1;
  const int64_t blocks = quotient(columns + warp_size * across - 1, warp_size * across);
  const int64_t first_column = take(group, blocks) * warp_size * across;
  const int64_t first_row = group * down;
  for (int i = 0; i < pieces; ++i) {
    const int64_t row = first_row + (shape.channels_last ? i : 0);
    const int64_t start = first_column + (shape.channels_last ? 0 : i * warp_size);
    if (row >= rows || start >= columns) return;  // the whole warp
    const bool inside = start + lane < columns;
    const int64_t column = inside ? start + lane : start;
    const int64_t n = quotient(row, shape.channels_last ? shape.plane : shape.channels);
    const int64_t rest = row - n * (shape.channels_last ? shape.plane : shape.channels);
    body(n, shape.channels_last ? column : rest, shape.channels_last ? rest : column, row, column,
         inside);
  }
}

int64_t blocks_of_pieces(const Shape& shape) {
  const int64_t across = shape.channels_last ? 1 : pieces, down = shape.channels_last ? pieces : 1;
  const int64_t warps =
      blocks_for(shape.columns(), warp_size * across) * blocks_for(shape.rows(), down);
  return blocks_for(warps, block_size / warp_size);
}

template <class T>
__global__ void forward(Map<const T> x, View<const accumulate_t<T>> mean,
                        View<const accumulate_t<T>> var, View<const accumulate_t<T>> weight,
                        View<const accumulate_t<T>> bias, Map<const T> residual, Map<T> y,
                        uint8_t* mask, accumulate_t<T> eps, Epilogue epilogue, Shape shape) {
  using A = accumulate_t<T>;
  int64_t channel = -1;
  A its_mean = 0, scale = 0, level = 0;
  for_pieces(shape, [&](int64_t n, int64_t c, int64_t s, int64_t row, int64_t column, bool inside) {
    if (c != channel) {
      channel = c;
      its_mean = mean.at(0, c, 0, 0, 0);
      scale = inverse_deviation(var.at(0, c, 0, 0, 0), eps);
      if (weight.data != nullptr) scale *= weight.at(0, c, 0, 0, 0);
      level = bias.data == nullptr ? A(0) : bias.at(0, c, 0, 0, 0);
    }
    A z = (A(x.pixel(n, c, s)) - its_mean) * scale + level;
    if (residual.data != nullptr) z += A(residual.pixel(n, c, s));
    if (inside) y.pixel(n, c, s) = T(activated(z, epilogue));
    if (mask == nullptr) return;
    const bool passes = epilogue.activation == Activation::relu ? !(z <= 0) : z > 0;
    const unsigned bits = __ballot_sync(0xffffffffu, inside && passes);
    const int lane = threadIdx.x % warp_size;
    if (lane % 8 == 0 && inside)
      mask[row * shape.bytes() + column / 8] = static_cast<uint8_t>(bits >> lane);
  });
}

template <class T>
__global__ void gradient(Map<const T> grad_y, Map<const T> x, View<const accumulate_t<T>> mean,
                         View<const accumulate_t<T>> var, View<const accumulate_t<T>> weight,
                         const uint8_t* mask, View<const accumulate_t<T>> sum_g,
                         View<const accumulate_t<T>> sum_gx, Map<T> grad_x, Map<T> grad_residual,
                         accumulate_t<T> count, accumulate_t<T> eps, Epilogue epilogue,
                         Shape shape) {
  using A = accumulate_t<T>;
  int64_t channel = -1;
  A its_mean = 0, scale = 0, level = 0, tilt = 0;
  for_pieces(shape, [&](int64_t n, int64_t c, int64_t s, int64_t row, int64_t column, bool inside) {
    if (c != channel) {
      channel = c;
      its_mean = mean.at(0, c, 0, 0, 0);
      const A inverse = inverse_deviation(var.at(0, c, 0, 0, 0), eps);
      scale = weight.data == nullptr ? inverse : weight.at(0, c, 0, 0, 0) * inverse;
      if (sum_g.data != nullptr) {
        level = sum_g.at(0, c, 0, 0, 0) / count;
        tilt = sum_gx.at(0, c, 0, 0, 0) / count * inverse;
      }
    }
    if (!inside) return;
    A g = A(grad_y.pixel(n, c, s));
    if (epilogue.activation != Activation::none)
      g = passed(g, mask[row * shape.bytes() + column / 8], column % 8, epilogue);
    A grad = g;
    if (sum_g.data != nullptr) grad = g - level - (A(x.pixel(n, c, s)) - its_mean) * tilt;
    grad_x.pixel(n, c, s) = T(grad * scale);
    if (grad_residual.data != nullptr) grad_residual.pixel(n, c, s) = T(g);
  });
}

void check_channels(const Tensor& x, std::initializer_list<const Tensor*> vectors) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  for (const Tensor* vector : vectors) {
    check(vector->data == nullptr || (vector->dtype == sums && vector->size[1] == x.size[1] &&
                                      vector->numel() == x.size[1]),
          "batch_norm expects statistics, weights and sums of ", x.size[1],
          " values, float32 or, for float64, float64");
  }
}

void check_maps(const Tensor& x, std::initializer_list<const Tensor*> maps) {
  for (const Tensor* map : maps) {
    check(map->data == nullptr || (map->dtype == x.dtype && same_size(*map, x)),
          "batch_norm expects maps of one size and dtype");
  }
}

void check_mask(const Tensor& x, bool rows_are_pixels, const Tensor& mask, bool needed) {
  const int64_t plane = x.size[2] * x.size[3] * x.size[4];
  const int64_t rows = x.size[0] * (rows_are_pixels ? plane : x.size[1]);
  const int64_t bytes = ((rows_are_pixels ? x.size[1] : plane) + 7) / 8;
  check(mask.data != nullptr || !needed, "batch_norm expects the mask of its activation");
  check(mask.data == nullptr ||
            (mask.dtype == DType::uint8 && mask.size[0] * mask.size[1] == rows &&
             mask.size[4] == bytes && mask.numel() == rows * bytes && mask.stride[4] == 1),
        "batch_norm expects a mask of ", rows, " x ", bytes, " bytes");
}

// Partial sums: two numbers per channel and run.
void check_parts(const Tensor& x, const Tensor& parts, const Shape& shape) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  check(parts.data != nullptr && parts.dtype == sums && parts.size[0] == 2 &&
            parts.size[1] == shape.runs && parts.size[4] == shape.channels,
        "batch_norm expects room for 2 x ", shape.runs, " x ", shape.channels, " partial sums");
}

}  // namespace

int64_t batch_norm_runs(const Tensor& x) { return Shape(x).runs; }

void batch_norm_stats(const BatchNormStats& args, int64_t stream) {
  const auto& [x, mean, var, parts] = args;
  const Shape shape(x);
  check_channels(x, {&mean, &var});
  if (shape.channels == 0) return;
  check_parts(x, parts, shape);
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    launch(partial_moments<T>, shape.tiles * shape.runs, block_size, 0, stream, Map<const T>(x),
           View<A>(parts), shape);
    launch(join_moments<A>, blocks_for(shape.channels, block_size / warp_size), block_size, 0,
           stream, View<const A>(parts), View<A>(mean), View<A>(var), shape);
  });
}

void batch_norm_forward(const BatchNormForward& args, int64_t stream) {
  const Tensor &x = args.x, &y = args.y;
  const Shape shape(y);
  check(!args.training, "batch_norm on a GPU makes its statistics by themselves");
  check_channels(x, {&args.mean, &args.var, &args.weight, &args.bias});
  check_maps(x, {&y, &args.residual});
  if (x.numel() == 0) return;
  check_mask(y, shape.channels_last, args.mask, false);
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    launch(forward<T>, blocks_of_pieces(shape), block_size, 0, stream, Map<const T>(x),
           View<const A>(args.mean), View<const A>(args.var), View<const A>(args.weight),
           View<const A>(args.bias), Map<const T>(args.residual), Map<T>(y),
           static_cast<uint8_t*>(args.mask.data), static_cast<A>(args.eps), args.epilogue, shape);
  });
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
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    launch(partial_sums<T>, shape.tiles * shape.runs, block_size, 0, stream,
           Map<const T>(args.grad_y), Map<const T>(x), View<const A>(args.mean),
           static_cast<const uint8_t*>(args.mask.data), View<A>(args.parts), args.epilogue,
           args.rows_are_pixels, shape);
    launch(join_sums<A>, blocks_for(shape.channels, block_size / warp_size), block_size, 0, stream,
           View<const A>(args.parts), View<const A>(args.var), View<A>(args.sum_g),
           View<A>(args.sum_gx), static_cast<A>(args.eps), shape);
  });
}

void batch_norm_grad_input(const BatchNormGradInput& args, int64_t stream) {
  const Tensor &x = args.x, &grad_x = args.grad_x;
  const Shape shape(grad_x);
  check(!args.training, "batch_norm on a GPU makes its sums by themselves");
  check((args.sum_g.data == nullptr) == (args.sum_gx.data == nullptr),
        "batch_norm expects both sums or neither");
  check_channels(x, {&args.mean, &args.var, &args.weight, &args.sum_g, &args.sum_gx});
  check_maps(x, {&args.grad_y, &grad_x, &args.grad_residual});
  if (x.numel() == 0) return;
  check_mask(grad_x, shape.channels_last, args.mask, args.epilogue.activation != Activation::none);
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    launch(gradient<T>, blocks_of_pieces(shape), block_size, 0, stream, Map<const T>(args.grad_y),
           Map<const T>(x), View<const A>(args.mean), View<const A>(args.var),
           View<const A>(args.weight), static_cast<const uint8_t*>(args.mask.data),
           View<const A>(args.sum_g), View<const A>(args.sum_gx), Map<T>(grad_x),
           Map<T>(args.grad_residual), static_cast<A>(args.count), static_cast<A>(args.eps),
           args.epilogue, shape);
  });
}

}  // namespace pydl::cuda
