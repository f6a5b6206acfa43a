// What batch normalisation does to each element: ../batch_norm.h has the definitions, batch_norm.cu
// the sums over channels.
//
// Where the maps lie alike a thread owns vectors of them (dense.h) and reads a byte of the mask, or
// makes one with its neighbours. Else a warp owns 32 neighbours of a row of the mask and takes 8 such
// pieces, of a plane one after the other, of channels-last maps in as many pixels, so that it
// computes the channel's numbers once; the 32 bits of the mask are one ballot.
//
// Least traffic: forward reads x (and residual) and writes y and one bit for each element; backward
// reads grad_y, x and the bits and writes grad_x (and grad_residual). Maps of a few MB are read from
// L2, where the sums have left them.
#include "batch_norm_map.h"
#include "dense.h"

namespace pydl::cuda {
namespace {

template <class A>
__device__ __forceinline__ bool passes(A z, Activation activation) {
  return activation == Activation::relu ? !(z <= 0) : z > 0;
}

template <class T, int width>
__global__ void dense_forward(const T* x, const accumulate_t<T>* mean, const accumulate_t<T>* var,
                              const accumulate_t<T>* weight, const accumulate_t<T>* bias,
                              const T* residual, T* y, uint8_t* mask, accumulate_t<T> eps,
                              Epilogue epilogue, Dense dense) {
  using A = accumulate_t<T>;
  const Own<width> own(dense);
  Vector<T, width> value[Dense::periods], other[Dense::periods];
  UNROLLED for (int i = 0; i < Dense::periods; ++i) {
    if (!own.has(i)) break;
    value[i] = load<width>(x + own[i]);
    if (residual != nullptr) other[i] = load<width>(residual + own[i]);
  }
  Vector<A, width> its_mean = {}, scale = {}, level = {};
  if (own.inside) {
    own.with_channels([&]<int n>(std::integral_constant<int, n>, uint32_t c) {
      auto scales = load<n>(var + c);
      UNROLLED for (int j = 0; j < n; ++j) scales.at[j] = inverse_deviation(scales.at[j], eps);
      if (weight != nullptr) {
        const auto weights = load<n>(weight + c);
        UNROLLED for (int j = 0; j < n; ++j) scales.at[j] *= weights.at[j];
      }
      its_mean = repeated<width>(load<n>(mean + c));
      scale = repeated<width>(scales);
      if (bias != nullptr) level = repeated<width>(load<n>(bias + c));
    });
  }
  with_any(epilogue.activation, [&]<Activation activation>(Is<activation>) {
    UNROLLED for (int i = 0; i < Dense::periods; ++i) {
      unsigned bits = 0;
      if (own.has(i)) {
        UNROLLED for (int j = 0; j < width; ++j) {
          A z = (A(value[i].at[j]) - its_mean.at[j]) * scale.at[j] + level.at[j];
          if (residual != nullptr) z += A(other[i].at[j]);
          value[i].at[j] = T(activated(z, {activation, epilogue.slope}));
          if (passes(z, activation)) bits |= 1u << j;
        }
        store(y + own[i], value[i]);
      }
      if (mask == nullptr) continue;
      bits <<= own.column % 8;
      UNROLLED for (int lanes = 1; lanes < 8 / width; lanes *= 2) bits |=
          __shfl_xor_sync(0xffffffffu, bits, lanes);
      if (own.has(i) && own.column % 8 == 0) mask[own.byte(i)] = static_cast<uint8_t>(bits);
    }
  });
}

template <class T, int width>
__global__ void dense_gradient(const T* grad_y, const T* x, const accumulate_t<T>* mean,
                               const accumulate_t<T>* var, const accumulate_t<T>* weight,
                               const uint8_t* mask, const accumulate_t<T>* sum_g,
                               const accumulate_t<T>* sum_gx, T* grad_x, T* grad_residual,
                               accumulate_t<T> share, accumulate_t<T> eps, Epilogue epilogue,
                               Dense dense) {
  using A = accumulate_t<T>;
  const Own<width> own(dense);
  if (!own.inside) return;
  const bool masked = epilogue.activation != Activation::none;
  const int bit = own.column % 8;
  Vector<T, width> gradient[Dense::periods], value[Dense::periods] = {};
  uint8_t byte[Dense::periods];  // of the mask
  UNROLLED for (int i = 0; i < Dense::periods; ++i) {
    if (!own.has(i)) break;
    gradient[i] = load<width>(grad_y + own[i]);
    if (sum_g != nullptr) value[i] = load<width>(x + own[i]);
    if (masked) byte[i] = mask[own.byte(i)];
  }
  Vector<A, width> its_mean = {}, scale = {}, level = {}, tilt = {};
  own.with_channels([&]<int n>(std::integral_constant<int, n>, uint32_t c) {
    auto inverse = load<n>(var + c);
    UNROLLED for (int j = 0; j < n; ++j) inverse.at[j] = inverse_deviation(inverse.at[j], eps);
    auto scales = inverse;
    if (weight != nullptr) {
      const auto weights = load<n>(weight + c);
      UNROLLED for (int j = 0; j < n; ++j) scales.at[j] *= weights.at[j];
    }
    scale = repeated<width>(scales);
    if (sum_g == nullptr) return;
    auto levels = load<n>(sum_g + c), tilts = load<n>(sum_gx + c);
    UNROLLED for (int j = 0; j < n; ++j) {
      levels.at[j] *= share;
      tilts.at[j] *= share * inverse.at[j];
    }
    its_mean = repeated<width>(load<n>(mean + c));
    level = repeated<width>(levels);
    tilt = repeated<width>(tilts);
  });
  with_any(epilogue.activation, [&]<Activation activation>(Is<activation>) {
    UNROLLED for (int i = 0; i < Dense::periods; ++i) {
      if (!own.has(i)) break;
      UNROLLED for (int j = 0; j < width; ++j) {
        A g = A(gradient[i].at[j]);
        if (masked) g = passed(g, byte[i] >> bit, j, {activation, epilogue.slope});
        const A grad = g - level.at[j] - (A(value[i].at[j]) - its_mean.at[j]) * tilt.at[j];
        value[i].at[j] = T(grad * scale.at[j]);
        gradient[i].at[j] = T(g);
      }
      store(grad_x + own[i], value[i]);
      if (grad_residual != nullptr) store(grad_residual + own[i], gradient[i]);
    }
  });
}

constexpr int pieces = 8;  // of a row or of neighbouring rows, that a warp takes

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
    const unsigned bits = __ballot_sync(0xffffffffu, inside && passes(z, epilogue.activation));
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

}  // namespace

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
    const auto data = [](const Tensor& numbers) { return static_cast<const A*>(numbers.data); };
    const bool served = dispatch_dense<T>(
        {&y, &x, &args.residual}, {&args.mean, &args.var, &args.weight, &args.bias},
        shape.channels_last, [&](auto width, const Dense& dense) {
          launch(dense_forward<T, width>, blocks_for(dense.threads), block_size, 0, stream,
                 static_cast<const T*>(x.data), data(args.mean), data(args.var), data(args.weight),
                 data(args.bias), static_cast<const T*>(args.residual.data),
                 static_cast<T*>(y.data), static_cast<uint8_t*>(args.mask.data),
                 static_cast<A>(args.eps), args.epilogue, dense);
        });
    if (served) return;
    launch(forward<T>, blocks_of_pieces(shape), block_size, 0, stream, Map<const T>(x),
           View<const A>(args.mean), View<const A>(args.var), View<const A>(args.weight),
           View<const A>(args.bias), Map<const T>(args.residual), Map<T>(y),
           static_cast<uint8_t*>(args.mask.data), static_cast<A>(args.eps), args.epilogue, shape);
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
    const auto data = [](const Tensor& numbers) { return static_cast<const A*>(numbers.data); };
    const bool served = dispatch_dense<T>(
        {&grad_x, &args.grad_y, &x, &args.grad_residual},
        {&args.mean, &args.var, &args.weight, &args.sum_g, &args.sum_gx}, shape.channels_last,
        [&](auto width, const Dense& dense) {
          launch(dense_gradient<T, width>, blocks_for(dense.threads), block_size, 0, stream,
                 static_cast<const T*>(args.grad_y.data), static_cast<const T*>(x.data),
                 data(args.mean), data(args.var), data(args.weight),
                 static_cast<const uint8_t*>(args.mask.data), data(args.sum_g), data(args.sum_gx),
                 static_cast<T*>(grad_x.data), static_cast<T*>(args.grad_residual.data),
                 static_cast<A>(1 / args.count), static_cast<A>(args.eps), args.epilogue, dense);
        });
    if (served) return;
    launch(gradient<T>, blocks_of_pieces(shape), block_size, 0, stream, Map<const T>(args.grad_y),
           Map<const T>(x), View<const A>(args.mean), View<const A>(args.var),
           View<const A>(args.weight), static_cast<const uint8_t*>(args.mask.data),
           View<const A>(args.sum_g), View<const A>(args.sum_gx), Map<T>(grad_x),
           Map<T>(args.grad_residual), static_cast<A>(args.count), static_cast<A>(args.eps),
           args.epilogue, shape);
  });
}

}  // namespace pydl::cuda
