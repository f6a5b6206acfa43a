// Sums over a channel, N * D * H * W values each: the shares of blocks and threads. A block adds up a
// run of pixels of a tile of channels and leaves its part; a warp adds up those of a channel.
//
// A place is what a thread loads at a time of a map that lies alike (dense.h): `width` neighbours in
// memory, 16 bytes where rows and addresses permit it. Where w is innermost they are pixels of one
// channel, and the 256 threads of a block take neighbouring places. Channels last they are channels
// of one pixel, and 32 / width neighbouring threads take the block's 32 channels. So a thread has
// `width` sums either way. It takes every step-th place of the block's run and finds the next by
// additions.
//
// All orders depend on the shape, the layout and the alignment alone.
#pragma once

#include "dense.h"

namespace pydl::cuda {

constexpr int warp_size = 32;
constexpr int64_t enough_blocks = 512;  // four waves of 132 multiprocessors
constexpr int64_t least_per_thread = 16;

// How the pixels of a map and its channels are shared out among blocks.
struct Shape {
  int64_t batch, channels, plane;
  bool channels_last;
  int64_t tiles, runs;  // of channels, of pixels: the blocks that add up
  int64_t run_length;   // pixels; the last run may be shorter

  explicit Shape(const Tensor& x)
      : batch(x.size[0]),
        channels(x.size[1]),
        plane(x.size[2] * x.size[3] * x.size[4]),
        channels_last(x.channels_last()) {
    tiles = (channels + tile() - 1) / tile();
    const int64_t room = pixels() / (block_size / tile() * least_per_thread);
    const int64_t wanted = tiles == 0 ? 1 : (enough_blocks + tiles - 1) / tiles;
    // Whole vectors, and channels last what each thread loads at a time.
    const int64_t whole = channels_last ? block_size : 8;
    const int64_t most = room < 1 ? 1 : room < wanted ? room : wanted;
    run_length = whole * blocks_for(pixels(), whole * most);
    runs = run_length == 0 ? 1 : blocks_for(pixels(), run_length);
  }
  PYDL_HOST_DEVICE int64_t pixels() const { return batch * plane; }
  PYDL_HOST_DEVICE int tile() const { return channels_last ? warp_size : 1; }
  PYDL_HOST_DEVICE int64_t first_pixel(int64_t run) const {
    const int64_t first = run * run_length;
    return first < pixels() ? first : pixels();
  }
  // Rows of a mask of one bit an element.
  PYDL_HOST_DEVICE int64_t rows() const { return batch * (channels_last ? plane : channels); }
  PYDL_HOST_DEVICE int64_t columns() const { return channels_last ? channels : plane; }
  PYDL_HOST_DEVICE int64_t bytes() const { return (columns() + 7) / 8; }
};

constexpr int warps = block_size / warp_size;

// How the places of a channel lie: in rows, one for each image, or one in all where channels are
// last.
struct Places {
  bool channels_last;
  uint32_t channels;
  uint32_t plane, period, next;         // elements to the next plane, row, place
  uint32_t bytes;                       // of a row of a mask
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
struct ChannelWalk {
  const Places& places;
  uint32_t c, first;     // first: the channel's offset
  uint32_t pixels;       // of the run
  uint32_t place, n, s;  // n, s: its row and where in that
  uint32_t last = 0;     // after those of the run

  __device__ explicit ChannelWalk(const Places& places) : places(places) {
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
  // Whether there are so many more.
  __device__ bool more(uint32_t count = 1) const {
    return place + (count - 1) * places.step < last;
  }
  __device__ uint32_t offset() const { return first + n * places.period + s * places.next; }
  // Where a mask has the first bit.
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

// Stores the block's sums of each of its channels as parts [sums][runs][channels].
template <int columns, class A, class... Sums>
__device__ void store_parts(const View<A>& parts, const Places& places, Sums... sums) {
  const uint32_t t = threadIdx.x, c = blockIdx.x * columns + t;
  if (t >= columns || c >= places.channels) return;
  int i = 0;
  ((parts.at(i++, blockIdx.y, 0, 0, c) = sums), ...);
}

// The channel whose runs a thread's warp joins.
__device__ inline int64_t channel_of_warp() { return thread_number() / warp_size; }

// The sums of all runs of a channel, in lane 0 of the warp that it is given to: a lane adds up every
// 32nd, then the lanes by halves.
template <int sums, class A>
__device__ Vector<A, sums> sum_of_runs(const View<const A>& parts, int64_t runs, int64_t c) {
  Vector<A, sums> sum = {};
  for (int64_t run = threadIdx.x % warp_size; run < runs; run += warp_size) {
    UNROLLED for (int i = 0; i < sums; ++i) sum.at[i] += parts.at(i, run, 0, 0, c);
  }
  for (int half = warp_size / 2; half > 0; half /= 2) {
    UNROLLED for (int i = 0; i < sums; ++i) sum.at[i] +=
        __shfl_down_sync(0xffffffffu, sum.at[i], half);
  }
  return sum;
}

inline dim3 blocks_of(const Shape& shape) {
  return dim3(static_cast<unsigned>(shape.tiles), static_cast<unsigned>(shape.runs));
}

}  // namespace pydl::cuda
