// The weight gradient of a convolution as a product of matrices on tensor cores:
//
//   grad_weight[f, (t, c)] = sum over n, o of grad_y[n, f, o] * x[n, c, i]
//   i                      = o * stride - padding + t * dilation
//
// rows are filters, columns are taps and channels, c innermost and padded to chunks of 8 halves or
// 4 floats per tap, and the reduction runs over the pixels (n, o), all of a group. The reduction is
// long and the result small, so it is cut into splits, a number that depends on the sizes alone;
// each block adds up one tile of one split in float32 registers and writes it to its own place in
// `parts`, and a second kernel adds the splits in ascending order: the same bits every time.
//
// Operands go through shared memory as in conv_gemm.cu (conv_tile.h). In channels last a chunk is
// one pixel's neighbouring filters or channels, `across` the reduction, so that fragments are
// loaded transposed, which halves allow; otherwise each thread gathers a chunk of pixels of one
// filter, or channel and tap, element by element.
//
// Arithmetic: 2 * pixels * F * C/G * taps operations. Least traffic: each tensor once; x is read
// for every tap and tile of filters, from L2. `parts`, at most enough_blocks tiles of 64 KB, is
// written and read once.
#include <algorithm>

#include "conv_kernels.h"
#include "conv_tile.h"
#include "conv_window.h"

namespace pydl::cuda {
namespace {

template <class T>
struct WeightProduct {
  const T *grad_y, *x;
  float* parts;  // [splits, F, columns]
  int64_t grad_y_stride[5], x_stride[5], grad_y_group, x_group;
  int64_t columns, row_tiles, column_tiles, groups, steps_a_split;
  int batch, outputs[3], size[3], stride[3], start[3], dilation[3], taps[3];
  int filters, channels, chunks_a_tap;  // of a group
  int step_digits[4];                   // step_length<T> pixels as (n, o)
};

// One filter's gradient at a pixel; from that filter on in memory in `across`.
template <class T>
struct GradYLine {
  int64_t offset;
  bool there;

  __device__ GradYLine(const WeightProduct<T>& p, int64_t filter, int64_t group)
      : offset(filter * p.grad_y_stride[1] + group * p.grad_y_group), there(filter < p.filters) {}

  __device__ __forceinline__ const T* at(const WeightProduct<T>& p, const Pixel& pixel) const {
    if (!there || pixel.n >= p.batch) return nullptr;
    int64_t from = offset + pixel.n * p.grad_y_stride[0];
    UNROLLED
    for (int axis = 0; axis < 3; ++axis) from += pixel.o[axis] * p.grad_y_stride[axis + 2];
    return p.grad_y + from;
  }
};

// What one column, a tap and a channel, reads of x at a pixel.
template <class T>
struct XLine {
  int64_t offset;
  int tap_at[3];
  bool there;

  __device__ XLine(const WeightProduct<T>& p, int64_t column, int64_t group) {
    int64_t tap = column / chunk<T>;
    const int64_t c = take(tap, p.chunks_a_tap) * chunk<T> + column % chunk<T>;
    there = column < p.columns && c < p.channels;
    offset = c * p.x_stride[1] + group * p.x_group;
    for (int axis = 2; axis >= 0; --axis)
      tap_at[axis] = p.start[axis] + static_cast<int>(take(tap, p.taps[axis])) * p.dilation[axis];
  }

  __device__ __forceinline__ const T* at(const WeightProduct<T>& p, const Pixel& pixel) const {
    bool inside = there && pixel.n < p.batch;
    int64_t from = offset + pixel.n * p.x_stride[0];
    UNROLLED
    for (int axis = 0; axis < 3; ++axis) {
      const int at = pixel.o[axis] * p.stride[axis] + tap_at[axis];
      inside = inside && static_cast<unsigned>(at) < static_cast<unsigned>(p.size[axis]);
      from += at * p.x_stride[axis + 2];
    }
    return inside ? p.x + from : nullptr;
  }
};

// What a thread copies of both tiles, which are equally large: of either the same pixels.
template <class T, int tile, int threads, Form form>
struct PixelTiles {
  using Own = Share<tile, threads, form>;
  static constexpr int pixels = form == Form::across ? Own::lines : Own::columns;
  GradYLine<T> filter;
  XLine<T> column;
  Pixel pixel[pixels];

  __device__ PixelTiles(const WeightProduct<T>& p, int64_t first_row, int64_t first_column,
                        int64_t group, int64_t first_pixel)
      : filter(p, first_row + first_line(), group), column(p, first_column + first_line(), group) {
    UNROLLED
    for (int i = 0; i < pixels; ++i) {
      pixel[i] =
          pixel_of(first_pixel + (form == Form::across ? Own::line(i) : Own::number(i) * chunk<T>),
                   p.outputs);
    }
  }

  static __device__ int first_line() {
    return form == Form::across ? Own::number(0) * chunk<T> : Own::line(0);
  }

  template <class Line>
  __device__ __forceinline__ void fetch(const WeightProduct<T>& p, const Line& line, int i,
                                        const T* somewhere, uint4* to) {
    if constexpr (form == Form::across) {
      const T* from = line.at(p, pixel[i]);
      cp_async<16>(to, from != nullptr ? from : somewhere, from != nullptr ? 16 : 0);
    } else {
      Pixel next = pixel[i];
      gather_chunk(to, somewhere, [&](int) {
        const T* from = line.at(p, next);
        constexpr int one[4] = {0, 0, 0, 1};
        next.advance(one, p.outputs);
        return from;
      });
    }
  }

  __device__ __forceinline__ void fetch(const WeightProduct<T>& p, uint4* tiles) {
    UNROLLED
    for (int i = 0; i < Own::count; ++i) {
      uint4* to = tiles + place_of<tile, form>(Own::line(i), Own::number(i));
      fetch(p, filter, i, p.grad_y, to);
      fetch(p, column, i, p.x, to + tile_chunks<tile>);
      pixel[i].advance(p.step_digits, p.outputs);
    }
  }
};

template <class T, int tile, int warps_down, int warps_across, Form form>
__global__ void __launch_bounds__(32 * warps_down * warps_across,
                                  form == Form::gather ? 3 : 16 / (warps_down * warps_across))
    weight_product(WeightProduct<T> p) {
  constexpr int threads = 32 * warps_down * warps_across;
  constexpr int warp_rows = tile / warps_down, warp_columns = tile / warps_across;
  constexpr int stage = 2 * tile_chunks<tile>;
  DYNAMIC_SHARED(uint4, tiles);

  int64_t split = blockIdx.x;
  const int64_t first_column = take(split, p.column_tiles) * tile;
  const int64_t first_row = take(split, p.row_tiles) * tile;
  const int64_t group = take(split, p.groups);
  const int64_t first_pixel = split * p.steps_a_split * step_length<T>;

  PixelTiles<T, tile, threads, form> operands(p, first_row, first_column, group, first_pixel);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / warps_across * warp_rows;
  const int warp_column = warp % warps_across * warp_columns;
  float sums[warp_rows / 16][warp_columns / 8][4] = {};
  run_steps(
      p.steps_a_split, [&](int slot) { operands.fetch(p, tiles + slot * stage); },
      [&](int slot) {
        multiply_tiles<T, tile, tile, form, form>(sums, tiles + slot * stage,
                                                  tiles + slot * stage + tile_chunks<tile>,
                                                  warp_row, warp_column);
      });

  const int64_t filters = p.filters * p.groups;
  UNROLLED
  for (int i = 0; i < warp_rows / 16; ++i) {
    for (int half = 0; half < 2; ++half) {
      const int64_t f = first_row + warp_row + i * 16 + half * 8 + lane / 4;
      if (f >= p.filters) continue;
      float* row = p.parts + ((split * filters) + group * p.filters + f) * p.columns;
      UNROLLED
      for (int j = 0; j < warp_columns / 8; ++j) {
        const int64_t column = first_column + warp_column + j * 8 + lane % 4 * 2;
        if (column >= p.columns) continue;
        *reinterpret_cast<float2*>(row + column) =
            make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
      }
    }
  }
}

// How the product is cut: from sizes and the form alone.
struct Cut {
  int64_t columns, columns_a_tap, row_tiles, column_tiles, splits, steps_a_split;
  int tile;
  int64_t parts(int64_t filters) const { return splits * filters * columns; }
};

constexpr int64_t enough_blocks = 264;  // two on each multiprocessor of the largest machine
constexpr int64_t least_steps = 8;      // shorter splits spend their time starting

template <class T>
Cut cut_of(const ConvGradWeight& args, Form form) {
  const auto& w = args.grad_weight.size;
  Cut cut;
  cut.columns_a_tap = blocks_for(w[1], chunk<T>) * chunk<T>;
  cut.columns = w[2] * w[3] * w[4] * cut.columns_a_tap;
  const int64_t filters = w[0] / args.window.groups;
  cut.tile = form == Form::across && filters > 64 && cut.columns > 64 ? 128 : 64;
  cut.row_tiles = blocks_for(filters, cut.tile);
  cut.column_tiles = blocks_for(cut.columns, cut.tile);
  const int64_t tiles = cut.row_tiles * cut.column_tiles * args.window.groups;
  const auto& g = args.grad_y.size;
  const int64_t steps = blocks_for(g[0] * g[2] * g[3] * g[4], step_length<T>);
  const int64_t wanted =
      std::min(blocks_for(enough_blocks, tiles), std::max<int64_t>(steps / least_steps, 1));
  cut.steps_a_split = blocks_for(steps, wanted);
  cut.splits = cut.steps_a_split == 0 ? 1 : blocks_for(steps, cut.steps_a_split);
  return cut;
}

// Both operands go the same way: chunks of channels, or everything by elements.
template <class T>
Form form_of(const ConvGradWeight& args) {
  const auto whole = [&](const Tensor& map) {
    const int64_t sizes[4] = {map.size[0], map.size[2], map.size[3], map.size[4]};
    const int64_t strides[4] = {map.stride[0], map.stride[2], map.stride[3], map.stride[4]};
    return map.stride[1] == 1 && map.size[1] / args.window.groups % chunk<T> == 0 &&
           whole_chunks(map.data, sizeof(T), sizes, strides, 4);
  };
  return sizeof(T) == 2 && whole(args.grad_y) && whole(args.x) ? Form::across : Form::gather;
}

template <class T, int tile, int warps_down, int warps_across, Form form>
void launch_product(const WeightProduct<T>& p, int64_t splits, int64_t stream) {
  constexpr size_t bytes = stages * 2 * tile_chunks<tile> * sizeof(uint4);
  launch(weight_product<T, tile, warps_down, warps_across, form>,
         p.row_tiles * p.column_tiles * p.groups * splits, 32 * warps_down * warps_across, bytes,
         stream, p);
}

}  // namespace

int64_t conv_grad_weight_gemm_parts(const ConvGradWeight& args) {
  return dispatch_operand(args.x.dtype, [&](auto type) {
    using T = decltype(type);
    return cut_of<T>(args, form_of<T>(args)).parts(args.grad_weight.size[0]);
  });
}

void conv_grad_weight_gemm(const ConvGradWeight& args, int64_t stream) {
  const auto& [grad_y, x, grad_weight, window, parts] = args;
  dispatch_operand(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Form form = form_of<T>(args);
    const Cut cut = cut_of<T>(args, form);
    WeightProduct<T> p = {};
    p.grad_y = static_cast<const T*>(grad_y.data);
    p.x = static_cast<const T*>(x.data);
    p.parts = static_cast<float*>(parts.data);
    for (int axis = 0; axis < 5; ++axis) {
      p.grad_y_stride[axis] = grad_y.stride[axis];
      p.x_stride[axis] = x.stride[axis];
    }
    p.groups = window.groups;
    p.filters = static_cast<int>(grad_weight.size[0] / window.groups);
    p.channels = static_cast<int>(grad_weight.size[1]);
    p.chunks_a_tap = static_cast<int>(cut.columns_a_tap / chunk<T>);
    p.grad_y_group = p.filters * grad_y.stride[1];
    p.x_group = p.channels * x.stride[1];
    p.columns = cut.columns;
    p.row_tiles = cut.row_tiles;
    p.column_tiles = cut.column_tiles;
    p.steps_a_split = cut.steps_a_split;
    p.batch = static_cast<int>(x.size[0]);
    for (int axis = 0; axis < 3; ++axis) {
      p.outputs[axis] = static_cast<int>(grad_y.size[axis + 2]);
      p.size[axis] = static_cast<int>(x.size[axis + 2]);
      p.stride[axis] = static_cast<int>(window.stride[axis]);
      p.start[axis] = static_cast<int>(-window.padding[axis]);
      p.dilation[axis] = static_cast<int>(window.dilation[axis]);
      p.taps[axis] = static_cast<int>(grad_weight.size[axis + 2]);
    }
    digits_of(step_length<T>, p.outputs, p.step_digits);
    if constexpr (sizeof(T) == 2) {
      if (form == Form::across && cut.tile == 128)
        launch_product<T, 128, 2, 4, Form::across>(p, cut.splits, stream);
      else if (form == Form::across)
        launch_product<T, 64, 2, 2, Form::across>(p, cut.splits, stream);
    }
    if (form == Form::gather) launch_product<T, 64, 2, 2, Form::gather>(p, cut.splits, stream);
    launch(add_splits<T>, blocks_for(grad_weight.numel()), block_size, 0, stream,
           static_cast<const float*>(p.parts), View<T>(grad_weight), cut.splits, cut.columns,
           cut.columns_a_tap, grad_weight.numel());
  });
}

}  // namespace pydl::cuda
