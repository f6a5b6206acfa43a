// The sums of batch normalisation over a channel, where the maps lie alike (dense.h); batch_norm.cu
// has them for any others, and adds up what either leaves of each run of pixels.
//
// channel_sums.h says which places are a thread's. It takes them four at a time, so that it waits once
// for all their loads.
//
// Moments are those of four values about their own mean; they join by Chan's formula, whose
// divisions serve all `width`. The block's threads join about the mean of all. Whether addresses
// permit 16 bytes decides on the order of a sum, and so on its last bits.
//
// Least traffic: as in batch_norm.cu, each byte once.
#include "batch_norm_map.h"
#include "dense.h"

namespace pydl::cuda {
namespace {

constexpr int together = 4;  // places

template <class T, int width>
__global__ void dense_moments(const T* x, View<accumulate_t<T>> parts, Places places) {
  using A = accumulate_t<T>;
  ChannelWalk<width> walk(places);
  Vector<A, width> mean = {}, squares = {}, shift = {};  // shift: a value of each channel
  if (walk.c < places.channels) {
    const auto values = load<width>(x + walk.first);
    UNROLLED for (int j = 0; j < width; ++j) shift.at[j] = A(values.at[j]);
  }
  A count = 0;
  while (walk.more()) {
    Vector<T, width> value[together] = {};
    int there = 0;
    UNROLLED for (int i = 0; i < together; ++i) {
      if (walk.more()) {
        value[i] = load<width>(x + walk.offset());
        ++there;
      }
      walk.advance();
    }
    const A its_count = A(there), inverse = 1 / its_count, before = count;
    UNROLLED for (int j = 0; j < width; ++j) {
      A sum = 0, own = 0;
      UNROLLED for (int i = 0; i < together; ++i) sum += A(value[i].at[j]);
      const A its_mean = sum * inverse;
      UNROLLED for (int i = 0; i < together; ++i) {
        const A deviation = A(value[i].at[j]) - its_mean;
        if (i < there) own += deviation * deviation;
      }
      count = before;
      join(count, mean.at[j], squares.at[j], its_count, its_mean, own);
    }
  }
  with_columns<width>(places, [&]<int n, int across>(std::integral_constant<int, n>,
                                                     std::integral_constant<int, across>) {
    using Channels = Vector<A, n>;
    constexpr int columns = n * across;
    SHARED(Channels, sums, [warps][across]);
    SHARED(Channels, centres, [across]);
    const int t = threadIdx.x, column = t % columns;
    // Means are added up as distances from a value of the channel, or the sum of those far from 0
    // would lose the digits in which they differ.
    Channels sum = {}, spread = {};
    UNROLLED for (int j = 0; j < width; ++j) sum.at[j % n] +=
        count * (mean.at[j] - shift.at[j % n]);
    if (t < across) {
      UNROLLED for (int j = 0; j < n; ++j) centres[t].at[j] = shift.at[j];
    }
    const A distance = sum_of_block(sum, sums) / A(walk.pixels);
    if (t < columns) centres[t / n].at[t % n] += distance;
    __syncthreads();
    const Channels centre = centres[t % across];
    UNROLLED for (int j = 0; j < width; ++j) {
      const A its_distance = mean.at[j] - centre.at[j % n];
      spread.at[j % n] += squares.at[j] + count * its_distance * its_distance;
    }
    const A all = sum_of_block(spread, sums);
    store_parts<columns>(parts, places, centres[column / n].at[column % n], all);
  });
}

template <class T, int width>
__global__ void dense_sums(const T* grad_y, const T* x, const accumulate_t<T>* mean,
                           const uint8_t* mask, View<accumulate_t<T>> parts, Epilogue epilogue,
                           Places places) {
  using A = accumulate_t<T>;
  ChannelWalk<width> walk(places);
  const bool masked = epilogue.activation != Activation::none;
  Vector<A, width> its_mean = {}, sum_g = {}, sum_gx = {};
  if (walk.more())
    its_mean =
        places.channels_last ? load<width>(mean + walk.c) : repeated<width>(load<1>(mean + walk.c));
  while (walk.more()) {
    Vector<T, width> gradient[together] = {}, value[together] = {};
    uint8_t byte[together] = {};  // of the mask, and where in it
    uint32_t bit[together] = {};
    UNROLLED for (int i = 0; i < together; ++i) {
      if (walk.more()) {
        gradient[i] = load<width>(grad_y + walk.offset());
        value[i] = load<width>(x + walk.offset());
        if (masked) byte[i] = mask[walk.byte()];
        bit[i] = walk.column() % 8;
      }
      walk.advance();
    }
    with_any(epilogue.activation, [&]<Activation activation>(Is<activation>) {
      UNROLLED for (int i = 0; i < together; ++i) {
        UNROLLED for (int j = 0; j < width; ++j) {
          A g = A(gradient[i].at[j]);
          if (masked) g = passed(g, byte[i] >> bit[i], j, {activation, epilogue.slope});
          sum_g.at[j] += g;
          sum_gx.at[j] += g * (A(value[i].at[j]) - its_mean.at[j]);
        }
      }
    });
  }
  with_columns<width>(places, [&]<int n, int across>(std::integral_constant<int, n>,
                                                     std::integral_constant<int, across>) {
    using Channels = Vector<A, n>;
    SHARED(Channels, sums, [2][warps][across]);
    Channels g = {}, gx = {};
    UNROLLED for (int j = 0; j < width; ++j) {
      g.at[j % n] += sum_g.at[j];
      gx.at[j % n] += sum_gx.at[j];
    }
    const A one = sum_of_block(g, sums[0]), other = sum_of_block(gx, sums[1]);
    store_parts<n * across>(parts, places, one, other);
  });
}

}  // namespace

bool launch_dense_moments(const BatchNormStats& args, const Shape& shape, int64_t stream) {
  const auto& [x, mean, var, parts] = args;
  bool served = false;
  if (x.numel() == 0) return served;
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    const auto run = [&](auto width, const Dense& dense) {
      launch(dense_moments<T, width>, blocks_of(shape), block_size, 0, stream,
             static_cast<const T*>(x.data), View<accumulate_t<T>>(parts),
             Places(dense, shape, width));
    };
    served = dispatch_dense<T>({&x}, {&mean}, shape.channels_last, run);
  });
  return served;
}

bool launch_dense_sums(const BatchNormGradSums& args, const Shape& shape, int64_t stream) {
  const Tensor& x = args.x;
  bool served = false;
  if (x.numel() == 0 || args.rows_are_pixels != shape.channels_last) return served;
  dispatch_floating(x.dtype, "batch_norm", [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const auto run = [&](auto width, const Dense& dense) {
      launch(dense_sums<T, width>, blocks_of(shape), block_size, 0, stream,
             static_cast<const T*>(args.grad_y.data), static_cast<const T*>(x.data),
             static_cast<const A*>(args.mean.data), static_cast<const uint8_t*>(args.mask.data),
             View<A>(args.parts), args.epilogue, Places(dense, shape, width));
    };
    served = dispatch_dense<T>({&x, &args.grad_y}, {&args.mean}, shape.channels_last, run);
  });
  return served;
}

}  // namespace pydl::cuda
