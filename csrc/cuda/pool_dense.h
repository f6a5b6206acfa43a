// The index scheme of the windows that networks pool by, 2 x 2 and 3 x 3 with stride 2, for maps that
// lie alike: without gaps, in one layout, at most 2^29 elements. pool_window.h is for all others, in
// 64 bits.
//
// Such a map is [images][height][width][channels]: channels last N * D images of C channels, else
// N * C * D images of one. A thread takes 16 bytes of channels at one place of an image; where an
// image has one channel, or theirs are no whole vectors, one element at the same place of four images.
// So it works out once for all of them where its windows lie, and has all their loads on their way at
// once. Offsets are 32 bits wide, and the divisions are those of dense.h.
//
//   forward    a place is a window
//   backward   a place is a cell of stride x stride elements, the first of them the first of a window
//              (of the map with its padding). The windows that have a part of it are that one and, 3
//              wide, the one before: each is read once for all elements of the cell.
#pragma once

#include "dense.h"
#include "pool_window.h"

namespace pydl::cuda {

struct DensePool {
  static constexpr int stride = 2;

  uint32_t images, channels;
  int height, width, out_height, out_width;
  int padding_h, padding_w;
  uint32_t size, out_size;  // elements of an image
  // Threads are numbered through [groups of images][rows][columns][vectors of channels].
  Divisor of_group, of_row, of_pixel;
  uint32_t threads;

  // `rows` and `columns` of places.
  DensePool(const Tensor& map, const Tensor& pooled, const PoolWindow& window, bool channels_last,
            int64_t rows, int64_t columns, int vector, int images_at_once)
      : images(
            static_cast<uint32_t>(map.size[0] * map.size[2] * (channels_last ? 1 : map.size[1]))),
        channels(static_cast<uint32_t>(channels_last ? map.size[1] : 1)),
        height(static_cast<int>(map.size[3])),
        width(static_cast<int>(map.size[4])),
        out_height(static_cast<int>(pooled.size[3])),
        out_width(static_cast<int>(pooled.size[4])),
        padding_h(static_cast<int>(window.padding[1])),
        padding_w(static_cast<int>(window.padding[2])),
        size(height * width * channels),
        out_size(out_height * out_width * channels),
        of_group(static_cast<uint32_t>(rows * columns * (channels / vector))),
        of_row(static_cast<uint32_t>(columns * (channels / vector))),
        of_pixel(channels / vector) {
    threads = static_cast<uint32_t>(blocks_for(images, images_at_once)) * of_group.divisor;
  }
};

// What a thread has: `vector` channels from `channel` on at the same place of each image `image` + i
// with has(i). Threads too many have none.
template <int vector>
struct Place {
  static constexpr int images = vector == 1 ? 4 : 1;

  uint32_t image, channel, of_images;
  int row, column;

  __device__ explicit Place(const DensePool& pool) : of_images(pool.images) {
    uint32_t rest = static_cast<uint32_t>(thread_number());
    const auto take = [&rest](const Divisor& size) {
      const uint32_t number = size.quotient(rest);
      rest -= number * size.divisor;
      return number;
    };
    image = take(pool.of_group) * images;
    row = static_cast<int>(take(pool.of_row));
    column = static_cast<int>(take(pool.of_pixel));
    channel = rest * vector;
  }
  __device__ bool has(int i) const { return image + i < of_images; }
  // Offsets in its first image, of the map and of what was pooled.
  __device__ uint32_t element(const DensePool& pool, int h, int w) const {
    return image * pool.size + (h * pool.width + w) * pool.channels + channel;
  }
  __device__ uint32_t window(const DensePool& pool, int h, int w) const {
    return image * pool.out_size + (h * pool.out_width + w) * pool.channels + channel;
  }
};

__device__ inline bool within(int at, int size) {
  return static_cast<uint32_t>(at) < static_cast<uint32_t>(size);
}

// The taps of a window. Where one is off the map, at_h and at_w are those of the next to it on the
// map.
template <int kernel>
struct Taps {
  static constexpr int count = kernel * kernel;

  int first_h, first_w, at_h[kernel], at_w[kernel];

  template <int vector>
  __device__ Taps(const Place<vector>& place, const DensePool& pool)
      : first_h(place.row * DensePool::stride - pool.padding_h),
        first_w(place.column * DensePool::stride - pool.padding_w) {
    UNROLLED for (int t = 0; t < kernel; ++t) {
      at_h[t] = min(max(first_h + t, 0), pool.height - 1);
      at_w[t] = min(max(first_w + t, 0), pool.width - 1);
    }
  }
  __device__ int h(int t) const { return at_h[t / kernel]; }
  __device__ int w(int t) const { return at_w[t % kernel]; }
  __device__ bool there(int t) const {
    return h(t) == first_h + t / kernel && w(t) == first_w + t % kernel;
  }
};

// What a window covers of each of the thread's images. Taps off the map count as zeros, or where they
// are `repeated` as those next to them on it.
template <bool repeated, class T, int vector, int kernel, int images, int count>
__device__ __forceinline__ void load_taps(Vector<T, vector> (&value)[images][count], const T* map,
                                          const Place<vector>& place, const Taps<kernel>& taps,
                                          const DensePool& pool) {
  uint32_t from[count];
  UNROLLED for (int t = 0; t < count; ++t) from[t] = place.element(pool, taps.h(t), taps.w(t));
  UNROLLED for (int i = 0; i < images; ++i) {
    if (!place.has(i)) break;
    UNROLLED for (int t = 0; t < count; ++t) {
      value[i][t] = {};
      if (repeated || taps.there(t)) value[i][t] = load<vector>(map + (from[t] + i * pool.size));
    }
  }
}

// The windows that have a part of a cell, in ascending order. Some may be off the map of windows.
template <int kernel>
struct Reaching {
  static constexpr int axis = (kernel + DensePool::stride - 1) / DensePool::stride;
  static constexpr int count = axis * axis;

  int first_h, first_w;

  template <int vector>
  __device__ explicit Reaching(const Place<vector>& place)
      : first_h(place.row - (axis - 1)), first_w(place.column - (axis - 1)) {}
  __device__ int h(int o) const { return first_h + o / axis; }
  __device__ int w(int o) const { return first_w + o % axis; }
  __device__ bool there(int o, const DensePool& pool) const {
    return within(h(o), pool.out_height) && within(w(o), pool.out_width);
  }
  // Which tap of window o the cell's element e is, -1 for none.
  static constexpr __device__ int tap(int o, int e) {
    constexpr int stride = DensePool::stride;
    const int h = e / stride + (axis - 1 - o / axis) * stride;
    const int w = e % stride + (axis - 1 - o % axis) * stride;
    return h < kernel && w < kernel ? h * kernel + w : -1;
  }
};

// The elements of a cell. Some may be off the map.
struct Cell {
  static constexpr int count = DensePool::stride * DensePool::stride;

  int first_h, first_w;

  template <int vector>
  __device__ Cell(const Place<vector>& place, const DensePool& pool)
      : first_h(place.row * DensePool::stride - pool.padding_h),
        first_w(place.column * DensePool::stride - pool.padding_w) {}
  __device__ int h(int e) const { return first_h + e / DensePool::stride; }
  __device__ int w(int e) const { return first_w + e % DensePool::stride; }
  __device__ bool there(int e, const DensePool& pool) const {
    return within(h(e), pool.height) && within(w(e), pool.width);
  }
};

// Calls function(vector, kernel, pool), and says so, where this scheme serves these maps of dtype T:
// what is pooled or its gradient, what comes of it, and more of that one's size, which may be absent.
template <class T, class Function>
bool dispatch_dense_pool(std::initializer_list<const Tensor*> maps, const PoolWindow& window,
                         bool by_cell, const Function& function) {
  constexpr int stride = DensePool::stride;
  const Tensor &map = *maps.begin()[0], &pooled = *maps.begin()[1];
  const bool channels_last = by_cell ? map.channels_last() : pooled.channels_last();
  bool aligned = true;
  for (const Tensor* tensor : maps) {
    if (!is_dense(*tensor, channels_last) || tensor->numel() > 1 << 29) return false;
    // A flat position is one of a volume.
    if (tensor->dtype == DType::int64 && map.size[2] > 1) return false;
    aligned = aligned && reinterpret_cast<uintptr_t>(tensor->data) % 16 == 0;
  }
  const int64_t kernel = window.kernel[1];
  if (window.kernel[0] != 1 || pooled.size[2] != map.size[2] || window.kernel[2] != kernel ||
      window.stride[1] != stride || window.stride[2] != stride || window.dilation[1] != 1 ||
      window.dilation[2] != 1)
    return false;
  const auto places = [&](int axis) {
    return by_cell ? blocks_for(map.size[axis + 2] + window.padding[axis], stride)
                   : pooled.size[axis + 2];
  };
  const auto with = [&](auto vector, auto its_kernel) {
    if (its_kernel != kernel) return false;
    if (vector > 1 && (!channels_last || !aligned || map.size[1] % vector != 0)) return false;
    function(vector, its_kernel,
             DensePool(map, pooled, window, channels_last, places(1), places(2), vector,
                       Place<vector>::images));
    return true;
  };
  const std::integral_constant<int, 16 / sizeof(T)> wide;
  const std::integral_constant<int, 1> single;
  const std::integral_constant<int, 2> two;
  const std::integral_constant<int, 3> three;
  return with(wide, two) || with(single, two) || with(wide, three) || with(single, three);
}

}  // namespace pydl::cuda
