// The sums of batch normalisation over a channel, where the maps lie alike (dense.h); batch_norm.cu
// has them for any others, and adds up what either leaves of each run of pixels.
//
// A place is what a thread loads at a time: `width` neighbours in memory, 16 bytes where rows and
// addresses permit it. Where w is innermost they are pixels of one channel, and the 256 threads of
// a block take neighbouring places. Channels last they are channels of one pixel, and 32 / width
// neighbouring threads take the block's 32 channels. So a thread has `width` sums either way. It
// takes every step-th place of the block's run, four at a time, so that it waits once for all their
// loads, and finds the next by additions.
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
constexpr int warps = block_size / warp_size;

// How the places of a channel lie: in rows, one for each image, or one in all where channels are
// last.
struct Places {
  bool channels_last;
  uint32_t channels;
  uint32_t plane, period, next;         // elements to the next plane, row, place
  uint32_t bytes;                       // of a row of the mask
  uint32_t all, run;                    // places, of the channel and of a run
  uint32_t step, step_rows, step_rest;  // places to a thread's next: in all; rows and what is left
  Divisor row;                          // places

  Places(const Dense& dense, const Shape& shape, int width)
      : channels_last(dense.channels_last),
        channels(static_cast<uint32_t>(shape.channels)),
        plane(dense.row),
        period(dense.period),
        next(static_cast<uint32_t>(channels_last ? shape.channels : width)),
        bytes((dense.row + 7) / 8),
        all(dense.count / channels / (channels_last ? 1 : width)),
        run(static_cast<uint32_t>(shape.run_length) / (channels_last ? 1 : width)),
        step(static_cast<uint32_t>(channels_last ? warps * width : block_size)),
        row(channels_last ? all : plane / width) {
    step_rows = step / row.divisor;
    step_rest = step % row.divisor;
  }
};

// The channels of a thread, from c on, and its places, one after the other.
template <int width>
struct Walk {
  const Places& places;
  uint32_t c, first;     // first: the channel's offset
  uint32_t pixels;       // of the run
  uint32_t place, n, s;  // n, s: its row and where in that
  uint32_t last = 0;     // after those of the run

  __device__ explicit Walk(const Places& places) : places(places) {
    const uint32_t across = places.channels_last ? warp_size / width : 1, t = threadIdx.x;
    const uint32_t tile = places.channels_last ? warp_size : 1, start = blockIdx.y * places.run;
    c = blockIdx.x * tile + t % across * width;
    first = places.channels_last ? c : c * places.plane;
    const uint32_t end = min(start + places.run, places.all);
    pixels = (end - start) * (places.channels_last ? 1 : width);
    place = start + t / across;
    if (c < places.channels) last = end;
    n = places.row.quotient(place);
    s = place - n * places.row.divisor;
  }
  __device__ bool more() const { return place < last; }
  __device__ uint32_t offset() const { return first + n * places.period + s * places.next; }
  // Where the mask has the first bit.
  __device__ uint32_t byte() const {
    return (places.channels_last ? s : n * places.channels + c) * places.bytes + column() / 8;
  }
  __device__ uint32_t column() const { return places.channels_last ? c : s * width; }
  __device__ void advance() {
    place += places.step;
    n += places.step_rows;
    s += places.step_rest;
    if (s >= places.row.divisor) s -= places.row.divisor, ++n;
  }
};

// The sum over the block's threads of what they have for a channel, of its n * across the one with
// the thread's number modulo these.
template <int n, int across, class A>
__device__ A sum_of_block(Vector<A, n> value, Vector<A, n> (&sums)[warps][across]) {
  UNROLLED for (int lanes = warp_size / 2; lanes >= across; lanes /= 2) {
    UNROLLED for (int j = 0; j < n; ++j) value.at[j] +=
        __shfl_xor_sync(0xffffffffu, value.at[j], lanes);
  }
  const int lane = threadIdx.x % warp_size, column = threadIdx.x % (n * across);
  if (lane < across) sums[threadIdx.x / warp_size][lane] = value;
  __syncthreads();
  A sum = 0;
  UNROLLED for (int warp = 0; warp < warps; ++warp) sum += sums[warp][column / n].at[column % n];
  return sum;
}

// Calls function(n, across): a thread has n channels, of n * across of the block.
template <int width, class Function>
__device__ __forceinline__ void with_columns(const Places& places, const Function& function) {
  if (places.channels_last)
    function(std::integral_constant<int, width>{},
             std::integral_constant<int, warp_size / width>{});
  else
    function(std::integral_constant<int, 1>{}, std::integral_constant<int, 1>{});
}

// Stores a pair of sums for each of the block's channels.
template <int columns, class A>
__device__ void store_parts(const View<A>& parts, const Places& places, A one, A other) {
  const uint32_t t = threadIdx.x, c = blockIdx.x * columns + t;
  if (t >= columns || c >= places.channels) return;
  parts.at(0, blockIdx.y, 0, 0, c) = one;
  parts.at(1, blockIdx.y, 0, 0, c) = other;
}

template <class T, int width>
__global__ void dense_moments(const T* x, View<accumulate_t<T>> parts, Places places) {
  using A = accumulate_t<T>;
  Walk<width> walk(places);
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
  Walk<width> walk(places);
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

dim3 blocks_of(const Shape& shape) {
  return dim3(static_cast<unsigned>(shape.tiles), static_cast<unsigned>(shape.runs));
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
