// RoIAlign and RoI pooling: ../roi.h has the definitions.
//
//   align forward    y[k, o, p] = mean of x at the samples of bin (o, p) of box k
//   align backward   grad_x[h, w] = sum of grad_y[k, o, p] * what its samples give (h, w)
//   pool forward     y[k, o, p] = max of x over the pixels of the bin, and where it is
//   pool backward    grad_x[h, w] = sum of grad_y[k, o, p] of the bins that took (h, w)
//
// Forward a thread owns one element of y, of RoIAlign those of several channels, for which it works
// out once where the samples lie and what they weigh; its neighbours' bins are neighbours, so what
// they share of x comes from L1. Backward gathers: a block owns a tile of pixels of an image and some
// channels. It looks through the boxes, 256 at a time, for those that reach its tile, lists them in
// order, and each of its threads adds up for one pixel and several channels what the bins near it
// give it, so that a weight is computed once for all of those. No atomics, nothing written
// beforehand, the same bits every time.
//
// Least traffic: forward reads the pixels under the boxes and writes y, backward reads grad_y (and
// index) once per tile that a box reaches and writes grad_x. What bounds RoIAlign's forward are not
// these bytes but its sixteen loads and products an element, with two samples a bin along an axis.
#include <cmath>

#include "../roi.h"
#include "dense.h"
#include "element.h"

namespace pydl::cuda {
namespace {

constexpr int channels_per_thread = 8;

template <class T>
struct Box {
  using A = accumulate_t<T>;

  int64_t image;
  A x1, y1, x2, y2;

  __device__ Box(const T* boxes, int64_t k, int64_t images)
      : image(image_of(A(boxes[5 * k]), images)),
        x1(boxes[5 * k + 1]),
        y1(boxes[5 * k + 2]),
        x2(boxes[5 * k + 3]),
        y2(boxes[5 * k + 4]) {}
};

// `wide`: a thread's channels are neighbours in whole vectors; else they are every `groups`-th, so
// that neighbouring threads have neighbours.
template <class T, bool wide>
__global__ void align_forward(View<const T> x, const T* boxes, View<T> y, Align align,
                              bool channels_last, int64_t groups, int64_t count) {
  using A = accumulate_t<T>;
  using Channels = Vector<T, channels_per_thread>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const int64_t sizes[5] = {y.size[0], groups, 1, y.size[3], y.size[4]};
  const auto [k, group, _, o, p] = element_of(number, sizes, channels_last);
  const int64_t c = wide ? group * channels_per_thread : group, step = wide ? 1 : groups;
  const Box<T> box(boxes, k, x.size[0]);
  A sums[channels_per_thread] = {};
  if (box.image >= 0) {
    const auto rows = samples_of(box.y1, box.y2, align, y.size[3]),
               cols = samples_of(box.x1, box.x2, align, y.size[4]);
    // [H, W]; channels too many read the first, and are not stored.
    const T* planes[wide ? 1 : channels_per_thread];
    planes[0] = &x.at(box.image, c, 0, 0, 0);
    if constexpr (!wide) {
      const int64_t next = step * x.stride[1];
      UNROLLED for (int i = 1; i < channels_per_thread; ++i) {
        planes[i] = planes[0] + (c + i * step < x.size[1] ? i * next : 0);
      }
    }
    const auto read = [&](int64_t from) {
      Channels values;
      if constexpr (wide) {
        values = load<channels_per_thread>(planes[0] + from);
      } else {
        UNROLLED for (int i = 0; i < channels_per_thread; ++i) values.at[i] = planes[i][from];
      }
      return values;
    };
    const int64_t first = cols.first(p, A(-1));
    for (int64_t i = rows.first(o, A(-1)); i < rows.count; ++i) {
      Between<A> h, w;
      if (!interpolate(rows.at(o, i), x.size[3], h)) {
        if (rows.bin > 0) break;
        continue;
      }
      const int64_t low_row = h.low * x.stride[3], high_row = h.high * x.stride[3];
      const auto add = [&](int64_t column, A weight) {
        column *= x.stride[4];
        const Channels low = read(low_row + column);
        Channels high = {};
        if (h.high_weight != 0) high = read(high_row + column);
        UNROLLED for (int j = 0; j < channels_per_thread; ++j) {
          sums[j] += weight * (h.low_weight * A(low.at[j]) + h.high_weight * A(high.at[j]));
        }
      };
      for (int64_t j = first; j < cols.count; ++j) {
        if (!interpolate(cols.at(p, j), x.size[4], w)) {
          if (cols.bin > 0) break;
          continue;
        }
        add(w.low, w.low_weight);
        if (w.high_weight != 0) add(w.high, w.high_weight);
      }
    }
    const A samples = rows.count > 0 && cols.count > 0 ? A(rows.count) * A(cols.count) : A(1);
    UNROLLED for (int i = 0; i < channels_per_thread; ++i) sums[i] /= samples;
  }
  Channels out;
  UNROLLED for (int i = 0; i < channels_per_thread; ++i) out.at[i] = T(sums[i]);
  T* to = &y.at(k, c, 0, o, p);
  if constexpr (wide) {
    store(to, out);
  } else {
    const int64_t next = step * y.stride[1];
    UNROLLED for (int i = 0; i < channels_per_thread; ++i) {
      if (c + i * step < y.size[1]) to[i * next] = out.at[i];
    }
  }
}

template <class T>
__global__ void pool_forward(View<const T> x, const T* boxes, View<T> y, View<int64_t> index,
                             double scale, bool channels_last, int64_t count) {
  using A = accumulate_t<T>;
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [k, c, _, o, p] = element_of(number, y.size, channels_last);
  const Box<T> box(boxes, k, x.size[0]);
  A best = 0;
  int64_t taken = -1;
  if (box.image >= 0) {
    const PixelRun rows = pooled_of(box.y1, box.y2, scale, y.size[3]).run(o, x.size[3]),
                   cols = pooled_of(box.x1, box.x2, scale, y.size[4]).run(p, x.size[4]);
    const T* plane = &x.at(box.image, c, 0, 0, 0);  // [H, W]
    for (int64_t h = rows.first; h < rows.last; ++h) {
      for (int64_t w = cols.first; w < cols.last; ++w) {
        const A value = A(plane[h * x.stride[3] + w * x.stride[4]]);
        if (taken < 0 || value > best || value != value) {
          best = value;
          taken = h * x.size[4] + w;
        }
      }
    }
  }
  y.at(k, c, 0, o, p) = T(best);
  if (index.data != nullptr) index.at(k, c, 0, o, p) = taken;
}

// How grad_x is cut into blocks: neighbouring threads are neighbours in memory.
struct Tiling {
  int64_t height, width, lanes;  // pixels of a block, and its threads on the channels of a pixel
  int64_t blocks_c, blocks_h, blocks_w;

  explicit Tiling(const Tensor& map)
      : height(map.channels_last() ? 2 : 8),
        width(map.channels_last() ? 4 : 32),
        lanes(block_size / (height * width)),
        blocks_c(blocks_for(map.size[1], lanes * channels_per_thread)),
        blocks_h(blocks_for(map.size[3], height)),
        blocks_w(blocks_for(map.size[4], width)) {}
};

// The bins [first, last) of an axis that may have a part in [from, to], for bins of one length.
template <class A>
__device__ PixelRun bins_near(A start, A bin, A from, A to, int64_t bins) {
  if (!(bin > 0)) return {0, bins};
  // One more on either side than exact arithmetic would need.
  return {clamped(std::floor((from - start) / bin) - A(1), bins),
          clamped(std::floor((to - start) / bin) + A(2), bins)};
}

// Whether an axis of a box from `start` to `end` may have to do with pixels [first, last); with a
// pixel to spare.
template <class A>
__device__ bool reaches(A start, A end, int64_t first, int64_t last) {
  const A low = end < start ? end : start, high = end < start ? start : end;
  return high >= A(first - 2) && low <= A(last + 1);
}

// The weight that the samples of bin o give pixel `at`.
template <class A>
__device__ A weight_of(const Samples<A>& samples, int64_t o, int64_t at, int64_t size) {
  A weight = 0;
  for (int64_t k = samples.first(o, A(at - 1)); k < samples.count; ++k) {
    const A position = samples.at(o, k);
    if (samples.bin > 0 && position > A(at + 1)) break;
    Between<A> between;
    if (!interpolate(position, size, between)) continue;
    if (between.low == at) weight += between.low_weight;
    if (between.high == at) weight += between.high_weight;
  }
  return weight / A(samples.count);
}

// The two backward passes: which boxes reach a tile, and what those give a pixel.
template <class T>
struct AlignGrad {
  using A = accumulate_t<T>;

  View<const T> grad_y;
  Align align;

  __device__ bool meets(const Box<T>& box, int64_t h, int64_t last_h, int64_t w,
                        int64_t last_w) const {
    const int64_t lines = grad_y.size[3], columns = grad_y.size[4];
    const auto rows = samples_of(box.y1, box.y2, align, lines),
               cols = samples_of(box.x1, box.x2, align, columns);
    return rows.count > 0 && cols.count > 0 &&
           reaches(rows.start, rows.start + rows.bin * A(lines), h, last_h) &&
           reaches(cols.start, cols.start + cols.bin * A(columns), w, last_w);
  }

  __device__ void add(const Box<T>& box, int64_t k, int64_t c, int64_t step, int64_t h, int64_t w,
                      const int64_t (&size)[5], A (&sums)[channels_per_thread]) const {
    const int64_t lines = grad_y.size[3], columns = grad_y.size[4];
    const auto rows = samples_of(box.y1, box.y2, align, lines),
               cols = samples_of(box.x1, box.x2, align, columns);
    const PixelRun over_h = bins_near(rows.start, rows.bin, A(h - 1), A(h + 1), lines),
                   over_w = bins_near(cols.start, cols.bin, A(w - 1), A(w + 1), columns);
    for (int64_t o = over_h.first; o < over_h.last; ++o) {
      const A row_weight = weight_of(rows, o, h, size[3]);
      if (row_weight == 0) continue;
      for (int64_t p = over_w.first; p < over_w.last; ++p) {
        const A weight = row_weight * weight_of(cols, p, w, size[4]);
        if (weight == 0) continue;
        UNROLLED
        for (int i = 0; i < channels_per_thread; ++i) {
          const int64_t channel = c + i * step;
          if (channel < size[1]) sums[i] += weight * A(grad_y.at(k, channel, 0, o, p));
        }
      }
    }
  }
};

template <class T>
struct PoolGrad {
  using A = accumulate_t<T>;

  View<const T> grad_y;
  View<const int64_t> index;
  double scale;

  __device__ bool meets(const Box<T>& box, int64_t h, int64_t last_h, int64_t w,
                        int64_t last_w) const {
    const int64_t lines = grad_y.size[3], columns = grad_y.size[4];
    const auto rows = pooled_of(box.y1, box.y2, scale, lines),
               cols = pooled_of(box.x1, box.x2, scale, columns);
    return rows.bin > 0 && cols.bin > 0 &&
           reaches(rows.start, rows.start + rows.bin * A(lines), h, last_h) &&
           reaches(cols.start, cols.start + cols.bin * A(columns), w, last_w);
  }

  __device__ void add(const Box<T>& box, int64_t k, int64_t c, int64_t step, int64_t h, int64_t w,
                      const int64_t (&size)[5], A (&sums)[channels_per_thread]) const {
    const int64_t lines = grad_y.size[3], columns = grad_y.size[4], mine = h * size[4] + w;
    const auto rows = pooled_of(box.y1, box.y2, scale, lines),
               cols = pooled_of(box.x1, box.x2, scale, columns);
    const PixelRun over_h = bins_near(rows.start, rows.bin, A(h), A(h + 1), lines),
                   over_w = bins_near(cols.start, cols.bin, A(w), A(w + 1), columns);
    for (int64_t o = over_h.first; o < over_h.last; ++o) {
      for (int64_t p = over_w.first; p < over_w.last; ++p) {
        UNROLLED
        for (int i = 0; i < channels_per_thread; ++i) {
          const int64_t channel = c + i * step;
          if (channel < size[1] && index.at(k, channel, 0, o, p) == mine)
            sums[i] += A(grad_y.at(k, channel, 0, o, p));
        }
      }
    }
  }
};

template <class T, class Grad>
__global__ void gather(Grad grad, const T* boxes, int64_t count, View<T> grad_x, Tiling tiling) {
  using A = accumulate_t<T>;
  constexpr int warps = block_size / 32;
  SHARED(int, listed, [block_size]);
  SHARED(int, in_warp, [warps]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  int64_t block = blockIdx.x, pixel = threadIdx.x;
  const int64_t tile_w = take(block, tiling.blocks_w) * tiling.width,
                tile_h = take(block, tiling.blocks_h) * tiling.height,
                tile_c = take(block, tiling.blocks_c) * tiling.lanes * channels_per_thread,
                n = block;
  const int64_t c = tile_c + take(pixel, tiling.lanes);
  const int64_t w = tile_w + take(pixel, tiling.width), h = tile_h + pixel;
  const bool on_map = h < grad_x.size[3] && w < grad_x.size[4];

  A sums[channels_per_thread] = {};
  for (int64_t first = 0; first < count; first += block_size) {
    const int64_t k = first + threadIdx.x;
    bool meets = false;
    if (k < count) {
      const Box<T> box(boxes, k, grad_x.size[0]);
      meets = box.image == n &&
              grad.meets(box, tile_h, tile_h + tiling.height, tile_w, tile_w + tiling.width);
    }
    const unsigned met = __ballot_sync(0xffffffffu, meets);
    if (lane == 0) in_warp[warp] = __popc(met);
    __syncthreads();
    int at = __popc(met & ((1u << lane) - 1)), total = 0;
    for (int other = 0; other < warps; ++other) {
      if (other == warp) at += total;
      total += in_warp[other];
    }
    if (meets) listed[at] = threadIdx.x;
    __syncthreads();
    for (int i = 0; on_map && i < total; ++i) {
      const int64_t number = first + listed[i];
      const Box<T> box(boxes, number, grad_x.size[0]);
      grad.add(box, number, c, tiling.lanes, h, w, grad_x.size, sums);
    }
    // The next boxes are listed behind a barrier that no thread reaches before it is done here.
  }
  if (!on_map) return;
  UNROLLED
  for (int i = 0; i < channels_per_thread; ++i) {
    const int64_t channel = c + i * tiling.lanes;
    if (channel < grad_x.size[1]) grad_x.at(n, channel, 0, h, w) = T(sums[i]);
  }
}

template <class T, class Grad>
void launch_gather(const Grad& grad, const Tensor& boxes, const Tensor& grad_y,
                   const Tensor& grad_x, int64_t stream) {
  const Tiling tiling(grad_x);
  const int64_t blocks = grad_x.size[0] * tiling.blocks_c * tiling.blocks_h * tiling.blocks_w;
  const int64_t count = grad_y.numel() > 0 ? grad_y.size[0] : 0;
  launch(gather<T, Grad>, blocks, block_size, 0, stream, grad, static_cast<const T*>(boxes.data),
         count, View<T>(grad_x), tiling);
}

// Whether a thread's channels are neighbours, in whole vectors.
template <class T>
bool in_vectors(const Tensor& map) {
  bool whole = reinterpret_cast<uintptr_t>(map.data) % alignof(Vector<T, channels_per_thread>) == 0;
  for (const int axis : {0, 3, 4})
    whole = whole && (map.size[axis] <= 1 || map.stride[axis] % channels_per_thread == 0);
  return whole && map.stride[1] == 1 && map.size[1] % channels_per_thread == 0;
}

}  // namespace

void roi_align_forward(const RoiAlignForward& args, int64_t stream) {
  const auto& [x, boxes, y, align] = args;
  check_roi(x, boxes, y);
  if (y.numel() == 0) return;
  dispatch_floating(x.dtype, "roi_align", [&](auto type) {
    using T = decltype(type);
    const int64_t groups = blocks_for(y.size[1], channels_per_thread);
    const int64_t count = y.numel() / y.size[1] * groups;
    const bool wide = in_vectors<T>(x) && in_vectors<T>(y);
    launch(wide ? align_forward<T, true> : align_forward<T, false>, blocks_for(count), block_size,
           0, stream, View<const T>(x), static_cast<const T*>(boxes.data), View<T>(y), align,
           y.channels_last(), groups, count);
  });
}

void roi_align_backward(const RoiAlignBackward& args, int64_t stream) {
  const auto& [grad_y, boxes, grad_x, align] = args;
  check_roi(grad_x, boxes, grad_y);
  if (grad_x.numel() == 0) return;
  dispatch_floating(grad_x.dtype, "roi_align", [&](auto type) {
    using T = decltype(type);
    launch_gather<T>(AlignGrad<T>{View<const T>(grad_y), align}, boxes, grad_y, grad_x, stream);
  });
}

void roi_pool_forward(const RoiPoolForward& args, int64_t stream) {
  const auto& [x, boxes, y, index, scale] = args;
  check_roi(x, boxes, y);
  if (index.data != nullptr) check_roi_index(y, index);
  if (y.numel() == 0) return;
  dispatch_floating(x.dtype, "roi_pool", [&](auto type) {
    using T = decltype(type);
    launch(pool_forward<T>, blocks_for(y.numel()), block_size, 0, stream, View<const T>(x),
           static_cast<const T*>(boxes.data), View<T>(y), View<int64_t>(index), scale,
           y.channels_last(), y.numel());
  });
}

void roi_pool_backward(const RoiPoolBackward& args, int64_t stream) {
  const auto& [grad_y, index, boxes, grad_x, scale] = args;
  check_roi(grad_x, boxes, grad_y);
  check_roi_index(grad_y, index);
  if (grad_x.numel() == 0) return;
  dispatch_floating(grad_x.dtype, "roi_pool", [&](auto type) {
    using T = decltype(type);
    const PoolGrad<T> grad{View<const T>(grad_y), View<const int64_t>(index), scale};
    launch_gather<T>(grad, boxes, grad_y, grad_x, stream);
  });
}

}  // namespace pydl::cuda
