// Max unpooling: ../unpool.h has the definition.
//
//   forward    y[o] = x[i] of the last i in scan order with index[i] = o, else 0
//   backward   grad_x[i] = grad_y[index[i]]
//
// A map is [planes][elements], or channels last [images][elements][channels]; along how many axes its
// elements lie does not matter. Values only move, so a kernel knows no more of their type than its
// size.
//
// Forward, a block owns a chunk of y: neighbouring places of a plane, or of as many channels as have
// 16 bytes. In shared memory each element that names one of them enters its number, of which the
// largest stays, in whatever order threads come; so the result repeats bit for bit. Then each place
// fetches the value of who won it, and all of y is written once, 16 bytes at a time. Which elements
// can name a place of the chunk is asked of a table, made by a kernel of its own, of the least and the
// greatest place that each run of elements names. A pooling leaves them in about the order of their
// places, and so a block reads little more than it needs; indices in any order are read as often as
// there are chunks.
//
// Backward gathers. Where the gradient is contiguous and what it is of is channels last, a warp reads
// neighbouring channels and writes neighbouring elements.
//
// Least traffic, for each element of x: its value and 8 bytes of index read; all of y written. The
// table costs the 8 bytes once more.
#include <algorithm>

#include "../unpool.h"
#include "dense.h"

namespace pydl::cuda {
namespace {

constexpr uint32_t run = kUnpoolRun;        // elements
constexpr uint32_t lanes = 32;              // of a warp
constexpr uint32_t nobody = 0xffffffff;     // who wins a plane's first place from all: no place
constexpr int64_t most_winners = 6 * 1024;  // that a block has room for: eight blocks at a time
constexpr int64_t enough_blocks = 4 * 132;  // four for each multiprocessor of a large GPU

// Least and greatest place that a run names; of none: greatest < least.
struct Reach {
  uint32_t least, greatest;
};

struct Unpool {
  uint32_t elements, places, channels;  // of a map; channels: that lie inside, else 1
  uint32_t groups, runs;                // of 32 channels; of elements
  uint32_t chunk;                       // places of a block, a multiple of 16
  Divisor chunks, tiles;                // of a plane or of some channels; of an image's channels
};

__device__ bool is_place(int64_t index, uint32_t places) {
  return static_cast<uint64_t>(index) < places;
}

// What an index that is no place makes, in values that only move: a NaN of any dtype so wide.
template <class T>
constexpr T not_a_number = static_cast<T>(static_cast<T>(~T{}) >> 1);

// A warp has a run of elements: of one plane, or of 32 channels. An index that is no place counts
// as the first, which it makes NaN.
__global__ void reaches(const int64_t* index, Reach* table, Unpool u, Divisor runs, Divisor groups,
                        uint32_t count) {
  const uint32_t number = static_cast<uint32_t>(thread_number()) / lanes,
                 lane = threadIdx.x % lanes;
  const uint32_t map_and_group = runs.quotient(number), its_run = number - map_and_group * u.runs;
  const uint32_t map = groups.quotient(map_and_group);
  const uint32_t channel = (map_and_group - map * u.groups) * lanes + lane;
  const bool inside = u.channels > 1;
  const int64_t* const own =
      index + static_cast<int64_t>(map) * u.elements * u.channels + (inside ? channel : lane);
  const uint32_t at_once = inside ? 1 : lanes;
  Reach reach = {u.places, 0};
  if (number < count && (!inside || channel < u.channels)) {
    const uint32_t first = its_run * run + (inside ? 0 : lane);
    const uint32_t end = min(its_run * run + run, u.elements);
    ROLLED
    for (uint32_t e = first; e < end; e += 4 * at_once) {
      int64_t place[4];
      UNROLLED for (int i = 0; i < 4; ++i) {
        const uint32_t at = min(e + i * at_once, end - 1);  // that once more changes nothing
        place[i] = own[(at - (inside ? 0 : lane)) * u.channels];
      }
      UNROLLED for (int i = 0; i < 4; ++i) {
        const uint32_t named = is_place(place[i], u.places) ? static_cast<uint32_t>(place[i]) : 0;
        reach.least = min(reach.least, named);
        reach.greatest = max(reach.greatest, named);
      }
    }
  }
  UNROLLED for (int half = lanes / 2; half > 0; half /= 2) {
    reach.least = min(reach.least, __shfl_xor_sync(0xffffffffu, reach.least, half));
    reach.greatest = max(reach.greatest, __shfl_xor_sync(0xffffffffu, reach.greatest, half));
  }
  if (lane == 0 && number < count) table[number] = reach;
}

// inside: `vector` channels of each place, else of one plane `vector` places.
template <class T, int vector, bool inside>
__global__ void place_values(const T* x, const int64_t* index, const Reach* table, T* y, Unpool u) {
  constexpr uint32_t tile = inside ? vector : 1;  // channels
  DYNAMIC_SHARED(uint32_t, winner);               // [chunk][tile], counted from 1
  const uint32_t rest = u.chunks.quotient(blockIdx.x);
  const uint32_t first = (blockIdx.x - rest * u.chunks.divisor) * u.chunk;
  const uint32_t map = u.tiles.quotient(rest), channel = (rest - map * u.tiles.divisor) * tile;
  const uint32_t size = min(u.chunk, u.places - first);
  const int64_t base = static_cast<int64_t>(map) * u.channels;
  const T* const values = x + base * u.elements + channel;
  const int64_t* const places = index + base * u.elements + channel;
  T* const out = y + base * u.places + channel;

  for (uint32_t i = threadIdx.x; i < u.chunk * tile / 4; i += blockDim.x) {
    store(winner + i * 4, Vector<uint32_t, 4>{});
  }
  // Which runs name places of the chunk: every warp asks for itself.
  const Reach* const reach = table + (map * u.groups + channel / lanes) * u.runs;
  uint32_t from_run = u.runs, to_run = 0;
  for (uint32_t i = threadIdx.x % lanes; i < u.runs; i += lanes) {
    const Reach its = reach[i];
    if (its.least < first + size && its.greatest >= first) {
      from_run = min(from_run, i);
      to_run = max(to_run, i + 1);
    }
  }
  UNROLLED for (int half = lanes / 2; half > 0; half /= 2) {
    from_run = min(from_run, __shfl_xor_sync(0xffffffffu, from_run, half));
    to_run = max(to_run, __shfl_xor_sync(0xffffffffu, to_run, half));
  }
  __syncthreads();

  const uint32_t end = min(to_run * run, u.elements) * tile;
  for (uint32_t i = from_run * run * tile + threadIdx.x; i < end; i += 4 * blockDim.x) {
    int64_t place[4];
    UNROLLED for (int j = 0; j < 4; ++j) {
      const uint32_t at = i + j * blockDim.x;
      place[j] = at < end ? places[at / tile * u.channels + at % tile] : -1;
    }
    UNROLLED for (int j = 0; j < 4; ++j) {
      const uint32_t at = i + j * blockDim.x;
      const uint64_t own = static_cast<uint64_t>(place[j]) - first;
      if (own < size)
        atomicMax(&winner[static_cast<uint32_t>(own) * tile + at % tile], at / tile + 1);
      else if (first == 0 && at < end && !is_place(place[j], u.places))
        atomicMax(&winner[at % tile], nobody);
    }
  }
  __syncthreads();

  for (uint32_t i = threadIdx.x; i < size * tile / vector; i += blockDim.x) {
    const auto who = load<vector>(winner + i * vector);
    Vector<T, vector> its = {};
    UNROLLED for (int j = 0; j < vector; ++j) {
      if (who.at[j] == nobody)
        its.at[j] = not_a_number<T>;
      else if (who.at[j] > 0)
        its.at[j] = values[(who.at[j] - 1) * u.channels + (inside ? j : 0)];
    }
    store(out + (inside ? (first + i) * u.channels : (first + i * vector) * u.channels), its);
  }
}

template <class T, int vector>
__global__ void gather(const T* grad_y, const int64_t* index, T* grad_x, uint32_t elements,
                       uint32_t places, Divisor blocks) {
  const uint32_t plane = blocks.quotient(blockIdx.x);
  const uint32_t at = ((blockIdx.x - plane * blocks.divisor) * blockDim.x + threadIdx.x) * vector;
  if (at >= elements) return;
  const int64_t first = static_cast<int64_t>(plane) * elements + at;
  const T* const gradients = grad_y + static_cast<int64_t>(plane) * places;
  const auto place = load<vector>(index + first);
  Vector<T, vector> its = {};
  UNROLLED for (int i = 0; i < vector; ++i) {
    its.at[i] = is_place(place.at[i], places) ? gradients[static_cast<uint32_t>(place.at[i])]
                                              : not_a_number<T>;
  }
  store(grad_x + first, its);
}

// Distances between channels and between elements, or places, of an image.
struct Steps {
  uint32_t channel, element;
};

// A block has 32 channels of 32 elements: loads channels side by side, stores elements.
template <class T>
__global__ void gather_across(const T* grad_y, const int64_t* index, T* grad_x, Steps of_grad_y,
                              Steps of_index, Steps of_grad_x, uint32_t channels, uint32_t elements,
                              uint32_t places, Divisor columns, Divisor rows) {
  SHARED(T, tile, [lanes][lanes + 1]);  // [elements][channels]
  const uint32_t rest = columns.quotient(blockIdx.x), image = rows.quotient(rest);
  const uint32_t element = (blockIdx.x - rest * columns.divisor) * lanes;
  const uint32_t channel = (rest - image * rows.divisor) * lanes;
  const uint32_t lane = threadIdx.x % lanes, line = threadIdx.x / lanes;
  const int64_t base = static_cast<int64_t>(image) * channels;
  const T* const gradients = grad_y + base * places;
  const int64_t* const indices = index + base * elements;
  constexpr int turns = lanes / (block_size / lanes);

  int64_t place[turns];
  UNROLLED for (int i = 0; i < turns; ++i) {
    const uint32_t e = element + line + i * (block_size / lanes), c = channel + lane;
    place[i] = -1;
    if (e < elements && c < channels)
      place[i] = indices[c * of_index.channel + e * of_index.element];
  }
  UNROLLED for (int i = 0; i < turns; ++i) {
    T value = not_a_number<T>;
    if (is_place(place[i], places))
      value = gradients[(channel + lane) * of_grad_y.channel +
                        static_cast<uint32_t>(place[i]) * of_grad_y.element];
    tile[line + i * (block_size / lanes)][lane] = value;
  }
  __syncthreads();
  UNROLLED for (int i = 0; i < turns; ++i) {
    const uint32_t c = channel + line + i * (block_size / lanes), e = element + lane;
    if (e < elements && c < channels)
      grad_x[base * elements + c * of_grad_x.channel + e * of_grad_x.element] =
          tile[lane][line + i * (block_size / lanes)];
  }
}

uint32_t elements_of(const Tensor& map) {
  return static_cast<uint32_t>(map.size[2] * map.size[3] * map.size[4]);
}

void check_dense(std::initializer_list<const Tensor*> maps, const Tensor& y) {
  for (const Tensor* map : maps)
    check(is_dense(*map, false) || is_dense(*map, true),
          "max unpooling expects maps without gaps, contiguous or channels last");
  check(y.size[1] * y.size[2] * y.size[3] * y.size[4] <= INT32_MAX,
        "max unpooling serves images of less than 2^31 places");
}

bool aligned(const Tensor& map) { return reinterpret_cast<uintptr_t>(map.data) % 16 == 0; }

// Calls function(an integer of so many bytes): of values that only move.
template <class Function>
void dispatch_size(DType dtype, const Function& function) {
  dispatch_floating(dtype, "max unpooling", [&](auto type) {
    if constexpr (sizeof(type) == 2)
      function(uint16_t{});
    else if constexpr (sizeof(type) == 4)
      function(uint32_t{});
    else
      function(uint64_t{});
  });
}

template <class T, int vector, bool inside>
void launch_forward(const MaxUnpoolForward& args, bool channels_last, int64_t stream) {
  const auto& [x, index, y, reach] = args;
  const int64_t images = y.size[0], channels = y.size[1];
  const int64_t maps = channels_last ? images : images * channels;
  constexpr int64_t tile = inside ? vector : 1;
  Unpool u = {};
  u.elements = elements_of(x), u.places = elements_of(y);
  u.channels = static_cast<uint32_t>(channels_last ? channels : 1);
  u.groups = static_cast<uint32_t>(blocks_for(u.channels, lanes));
  u.runs = static_cast<uint32_t>(blocks_for(u.elements, run));
  const int64_t tiles = u.channels / tile;
  const int64_t chunks = std::max(blocks_for(int64_t{u.places} * tile, most_winners),
                                  std::min(blocks_for(enough_blocks, maps * tiles),
                                           blocks_for(int64_t{u.places} * tile, 4 * block_size)));
  u.chunk = static_cast<uint32_t>(blocks_for(blocks_for(u.places, chunks), 16) * 16);
  u.chunks = Divisor(static_cast<uint32_t>(blocks_for(u.places, u.chunk)));
  u.tiles = Divisor(static_cast<uint32_t>(tiles));
  auto* const table = static_cast<Reach*>(reach.data);
  const int64_t warps = maps * u.groups * u.runs;
  check(warps <= INT32_MAX, "max unpooling serves less than 2^31 runs of elements");
  launch(reaches, blocks_for(warps * lanes), block_size, 0, stream,
         static_cast<const int64_t*>(index.data), table, u, Divisor(u.runs), Divisor(u.groups),
         static_cast<uint32_t>(warps));
  launch(place_values<T, vector, inside>, maps * tiles * u.chunks.divisor, block_size,
         u.chunk * tile * sizeof(uint32_t), stream, static_cast<const T*>(x.data),
         static_cast<const int64_t*>(index.data), static_cast<const Reach*>(table),
         static_cast<T*>(y.data), u);
}

Steps steps_of(const Tensor& map) {
  if (is_dense(map, false)) return {elements_of(map), 1};
  return {1, static_cast<uint32_t>(map.size[1])};
}

}  // namespace

void max_unpool_forward(const MaxUnpoolForward& args, int64_t stream) {
  const auto& [x, index, y, reach] = args;
  check_unpool(x, index, y);
  check_dense({&x, &index, &y}, y);
  const bool channels_last = !is_dense(y, false);
  check(is_dense(x, channels_last) && is_dense(index, channels_last),
        "max unpooling expects x and its indices in the layout of the result");
  check(reach.dtype == DType::int64 && aligned(reach) &&
            reach.numel() >= x.size[0] * x.size[1] * blocks_for(elements_of(x), run),
        "max unpooling expects room for a number for each run of elements");
  if (y.numel() == 0) return;
  dispatch_size(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int wide = 16 / sizeof(T);
    if (channels_last && aligned(y) && y.size[1] % wide == 0)
      launch_forward<T, wide, true>(args, true, stream);
    else if (!channels_last && aligned(y) && elements_of(y) % wide == 0)
      launch_forward<T, wide, false>(args, false, stream);
    else
      launch_forward<T, 1, false>(args, channels_last, stream);
  });
}

void max_unpool_backward(const MaxUnpoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, grad_x] = args;
  check_unpool(grad_x, index, grad_y);
  check_dense({&grad_y, &index, &grad_x}, grad_y);
  if (grad_x.numel() == 0) return;
  const uint32_t elements = elements_of(grad_x), places = elements_of(grad_y);
  const int64_t images = grad_x.size[0], channels = grad_x.size[1];
  dispatch_size(grad_x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int wide = 16 / sizeof(T);
    const auto* const gradients = static_cast<const T*>(grad_y.data);
    const auto* const indices = static_cast<const int64_t*>(index.data);
    auto* const out = static_cast<T*>(grad_x.data);
    if (!is_dense(grad_y, false) || !is_dense(index, false) || !is_dense(grad_x, false)) {
      const int64_t columns = blocks_for(elements, lanes), rows = blocks_for(channels, lanes);
      launch(gather_across<T>, images * rows * columns, block_size, 0, stream, gradients, indices,
             out, steps_of(grad_y), steps_of(index), steps_of(grad_x),
             static_cast<uint32_t>(channels), elements, places,
             Divisor(static_cast<uint32_t>(columns)), Divisor(static_cast<uint32_t>(rows)));
      return;
    }
    const bool vectors = aligned(grad_x) && aligned(index) && elements % wide == 0;
    const int64_t blocks = blocks_for(elements, block_size * (vectors ? wide : 1));
    launch(vectors ? gather<T, wide> : gather<T, 1>, images * channels * blocks, block_size, 0,
           stream, gradients, indices, out, elements, places,
           Divisor(static_cast<uint32_t>(blocks)));
  });
}

}  // namespace pydl::cuda
