// Non-maximum suppression: ../nms.h has the definition.
//
// Two kernels. In the first a block of 64 threads owns a tile of 64 x 64 pairs on or above the
// diagonal: a thread compares one box with 64 that come after it and writes a bit for each that it
// would suppress. In the second, one block, the boxes are taken 64 at a time: one thread decides
// which of them are kept by the words on the diagonal; then all threads, one word each, add what
// those kept suppress among the boxes after them. So the chain of decisions takes two barriers per
// 64 boxes.
//
// Least traffic: K^2 / 16 bytes written once and read once at most; a pair costs about 20
// operations, each pair once. Words below the diagonal are neither written nor read.
#include "../nms.h"
#include "element.h"

namespace pydl::cuda {
namespace {

constexpr int word_bits = 64;

template <class A>
struct Corners {
  A x1, y1, x2, y2, area;
};

template <class T>
__device__ Corners<accumulate_t<T>> corners_of(const T* boxes, int64_t k) {
  using A = accumulate_t<T>;
  const T* box = boxes + 4 * k;
  const A x1 = A(box[0]), y1 = A(box[1]), x2 = A(box[2]), y2 = A(box[3]);
  return {x1, y1, x2, y2, rounded_product(x2 - x1, y2 - y1)};
}

template <class A>
__device__ A overlap(const Corners<A>& kept, const Corners<A>& other) {
  const A width =
      (kept.x2 < other.x2 ? kept.x2 : other.x2) - (kept.x1 > other.x1 ? kept.x1 : other.x1);
  const A height =
      (kept.y2 < other.y2 ? kept.y2 : other.y2) - (kept.y1 > other.y1 ? kept.y1 : other.y1);
  const A inter = rounded_product(width > 0 ? width : A(0), height > 0 ? height : A(0));
  return inter / (kept.area + other.area - inter);
}

template <class T>
__global__ void compare(const T* boxes, const int64_t* classes, uint64_t* words, int64_t count,
                        int64_t columns, accumulate_t<T> threshold) {
  using A = accumulate_t<T>;
  SHARED(Corners<A>, others, [word_bits]);
  SHARED(int64_t, classes_of, [word_bits]);
  int64_t tile = blockIdx.x;
  const int64_t column = take(tile, columns), row = tile;
  if (column < row) return;
  const int64_t other = column * word_bits + threadIdx.x;
  if (other < count) {
    others[threadIdx.x] = corners_of(boxes, other);
    classes_of[threadIdx.x] = classes == nullptr ? 0 : classes[other];
  }
  __syncthreads();
  const int64_t k = row * word_bits + threadIdx.x;
  if (k >= count) return;
  const Corners<A> mine = corners_of(boxes, k);
  const int64_t of_class = classes == nullptr ? 0 : classes[k];
  uint64_t word = 0;
  for (int bit = 0; bit < word_bits; ++bit) {
    const int64_t against = column * word_bits + bit;
    if (against <= k || against >= count || classes_of[bit] != of_class) continue;
    if (overlap(mine, others[bit]) > threshold) word |= uint64_t{1} << bit;
  }
  words[k * columns + column] = word;
}

// `words` of the first box becomes what is suppressed: its own words are read before.
__global__ void sweep(uint64_t* words, uint8_t* keep, int64_t count, int64_t columns) {
  SHARED(uint64_t, diagonal, [word_bits]);
  SHARED(uint64_t, kept);
  for (int64_t group = 0; group < columns; ++group) {
    const int64_t first = group * word_bits;
    if (threadIdx.x < word_bits && first + threadIdx.x < count)
      diagonal[threadIdx.x] = words[(first + threadIdx.x) * columns + group];
    __syncthreads();
    if (threadIdx.x == 0) {
      uint64_t suppressed = group == 0 ? 0 : words[group];
      uint64_t chosen = 0;
      for (int bit = 0; bit < word_bits && first + bit < count; ++bit) {
        if (suppressed >> bit & 1) continue;
        chosen |= uint64_t{1} << bit;
        suppressed |= diagonal[bit];
      }
      kept = chosen;
    }
    __syncthreads();
    const uint64_t chosen = kept;
    if (threadIdx.x < word_bits && first + threadIdx.x < count)
      keep[first + threadIdx.x] = static_cast<uint8_t>(chosen >> threadIdx.x & 1);
    for (int64_t column = group + 1 + threadIdx.x; column < columns; column += blockDim.x) {
      // The first box is always kept, so its words are the first that are suppressed.
      uint64_t suppressed = words[column];
      for (int bit = 0; bit < word_bits; ++bit) {
        if (chosen >> bit & 1) suppressed |= words[(first + bit) * columns + column];
      }
      words[column] = suppressed;
    }
    // The barriers of the next group come between this and whatever reads or writes it there.
  }
}

}  // namespace

void nms(const Nms& args, int64_t stream) {
  check_nms(args);
  const int64_t count = args.keep.numel(), columns = blocks_for(count, word_bits);
  check(args.words.dtype == DType::int64 && args.words.numel() == count * columns,
        "nms expects room for a bit a pair of boxes");
  if (count == 0) return;
  uint64_t* words = static_cast<uint64_t*>(args.words.data);
  dispatch_floating(args.boxes.dtype, "nms", [&](auto type) {
    using T = decltype(type);
    launch(compare<T>, columns * columns, word_bits, 0, stream,
           static_cast<const T*>(args.boxes.data), static_cast<const int64_t*>(args.classes.data),
           words, count, columns, threshold_in<accumulate_t<T>>(args.threshold));
  });
  launch(sweep, int64_t{1}, block_size, 0, stream, words, static_cast<uint8_t*>(args.keep.data),
         count, columns);
}

}  // namespace pydl::cuda
