// Convolution forward and its data gradient as one product of matrices on tensor cores, with no
// rearranged copy of anything:
//
//   out[n, column, q] = sum over taps j, channels c of
//                       source[n, c, q * step + start + j * dilation] * weight[column, c, j]
//
// over rows (n, q), columns and the reduction (j, c), c innermost, per group. Forward is that as it
// stands: source x, out y, columns are filters. The data gradient at stride s falls into s residue
// classes per axis: the inputs i = i0 + s q all see the same taps t, those with i0 + p - t d
// divisible by s, which are t0, t0 + s/g, ... (g the common divisor of s and d), through outputs
// q + o0, q + o0 - d/g, ... Each class is a dense product of stride 1 over its own taps, its
// dilation is -d/g, and it writes inputs of its own: no zeros inserted, no atomics. A class without
// taps has a reduction of length 0 and writes zeros.
//
// A block covers a tile of rows by columns of one group; blocks that share rows run side by side.
// Its operands go through shared memory in four stages (conv_tile.h): whole 16-byte chunks where
// the channels are neighbours in memory (channels last: x and grad_y `along`, a filter of forward
// `along`, of the data gradient `across`), else element by element. The reduction is padded to
// chunks of 8 halves or 4 floats per tap. Sums stay in float32 registers, then go through shared
// memory once more, 16 rows of a warp at a time, so that the stores run along whatever is innermost
// in out; bias, residual and activation join them there.
//
// Arithmetic: 2 * rows * columns * taps * channels operations at the rate of mma.sync. Least
// traffic: each tensor once; in fact source is read once for every tile of columns and tap, and the
// weight once for every tile of rows, mostly from L2: at 128 x 128, 1/128 of a value of either for
// each multiply-add.
#include "activation.h"
#include "conv_kernels.h"
#include "conv_tile.h"
#include "conv_window.h"

namespace pydl::cuda {
namespace {

template <class T>
struct Product {
  const T *source, *weight, *bias, *residual;
  T* out;
  int64_t source_stride[5], source_group;  // N, C, D, H, W; from group to group
  int64_t column_stride, channel_stride, tap_stride[3], weight_group;
  int64_t bias_stride;
  int64_t residual_stride[5], out_stride[5];  // N, F, ...
  int64_t rows, column_tiles, row_tiles;
  int outputs[3], size[3], step[3], start[3], dilation[3], taps[3];
  int channels, columns;  // of a group
  Epilogue epilogue;
};

// A chunk of the reduction: at this tap, channels from number * chunk.
struct Reduction {
  int tap[3] = {};
  int number = 0;

  __device__ void advance(int by, int chunks_a_tap, const int (&taps)[3]) {
    number += by;
    while (number >= chunks_a_tap) {
      number -= chunks_a_tap;
      if (++tap[2] < taps[2]) continue;
      tap[2] = 0;
      if (++tap[1] < taps[1]) continue;
      tap[1] = 0;
      ++tap[0];
    }
  }
};

template <class T>
__device__ int chunks_of(const Product<T>& p) {
  return (p.channels + chunk<T> - 1) / chunk<T>;
}

// What a thread copies of the source tile.
template <class T, int tile_rows, int threads, Form form>
struct SourceTile {
  using Own = Share<tile_rows, threads, form>;
  int64_t offset[Own::lines];  // of the element that tap 0 would read, were it inside
  int at[Own::lines][3];       // and its coordinates
  Reduction reduction[Own::columns];

  __device__ SourceTile(const Product<T>& p, int64_t first_row, int64_t group) {
    UNROLLED
    for (int i = 0; i < Own::lines; ++i) {
      int64_t n = first_row + Own::line(i);
      const bool there = n < p.rows;
      int o[3];
      for (int axis = 2; axis >= 0; --axis) o[axis] = take(n, p.outputs[axis]);
      offset[i] = n * p.source_stride[0] + group * p.source_group;
      for (int axis = 0; axis < 3; ++axis) {
        at[i][axis] = o[axis] * p.step[axis] + p.start[axis];
        offset[i] += at[i][axis] * p.source_stride[axis + 2];
      }
      if (!there) at[i][0] = -(1 << 30);  // no tap brings it inside
    }
    UNROLLED
    for (int i = 0; i < Own::columns; ++i)
      reduction[i].advance(Own::number(i), chunks_of(p), p.taps);
  }

  __device__ __forceinline__ void fetch(const Product<T>& p, uint4* tile) {
    UNROLLED
    for (int i = 0; i < Own::count; ++i) {
      const int line = Own::lines == 1 ? 0 : i;
      Reduction& k = reduction[Own::columns == 1 ? 0 : i];
      bool there = k.tap[0] < p.taps[0];
      int64_t from = offset[line];
      UNROLLED
      for (int axis = 0; axis < 3; ++axis) {
        const int shift = k.tap[axis] * p.dilation[axis];
        there = there &&
                static_cast<unsigned>(at[line][axis] + shift) < static_cast<unsigned>(p.size[axis]);
        from += shift * p.source_stride[axis + 2];
      }
      uint4* to = tile + place_of<tile_rows, form>(Own::line(i), Own::number(i));
      if constexpr (form == Form::along) {
        cp_async<16>(to, there ? p.source + from + k.number * chunk<T> : p.source, there ? 16 : 0);
      } else {
        const int c = k.number * chunk<T>;
        from += c * p.source_stride[1];
        gather_chunk(to, p.source, [&](int j) {
          return there && c + j < p.channels ? p.source + from + j * p.source_stride[1] : nullptr;
        });
      }
    }
    UNROLLED
    for (int i = 0; i < Own::columns; ++i)
      reduction[i].advance(chunks_a_step, chunks_of(p), p.taps);
  }
};

// And of the weight tile.
template <class T, int tile_columns, int threads, Form form>
struct WeightTile {
  using Own = Share<tile_columns, threads, form>;
  // In `across` a line is a step of the reduction: line k is channel k % 8 of chunk k / 8.
  static constexpr int cursors = form == Form::across ? Own::lines : Own::columns;
  static constexpr int offsets = form == Form::across ? 1 : Own::lines;
  int64_t offset[offsets];  // of the column; negative where there is none
  Reduction reduction[cursors];

  __device__ WeightTile(const Product<T>& p, int64_t first_column, int64_t group) {
    UNROLLED
    for (int i = 0; i < offsets; ++i) {
      const int64_t column =
          first_column + (form == Form::across ? Own::number(0) * chunk<T> : Own::line(i));
      offset[i] = column < p.columns ? column * p.column_stride + group * p.weight_group : -1;
    }
    UNROLLED
    for (int i = 0; i < cursors; ++i) {
      reduction[i].advance(form == Form::across ? Own::line(i) / chunk<T> : Own::number(i),
                           chunks_of(p), p.taps);
    }
  }

  __device__ __forceinline__ void fetch(const Product<T>& p, uint4* tile) {
    UNROLLED
    for (int i = 0; i < Own::count; ++i) {
      Reduction& k = reduction[cursors == 1 ? 0 : i];
      const int64_t column = offset[offsets == 1 ? 0 : i];
      const int c = k.number * chunk<T> + (form == Form::across ? Own::line(i) % chunk<T> : 0);
      const bool there = column >= 0 && k.tap[0] < p.taps[0] && c < p.channels;
      int64_t from = column + c * p.channel_stride;
      UNROLLED
      for (int axis = 0; axis < 3; ++axis) from += k.tap[axis] * p.tap_stride[axis];
      uint4* to = tile + place_of<tile_columns, form>(Own::line(i), Own::number(i));
      if constexpr (form == Form::gather) {
        gather_chunk(to, p.weight, [&](int j) {
          return there && c + j < p.channels ? p.weight + from + j * p.channel_stride : nullptr;
        });
      } else {
        cp_async<16>(to, there ? p.weight + from : p.weight, there ? 16 : 0);
      }
    }
    UNROLLED
    for (int i = 0; i < cursors; ++i) reduction[i].advance(chunks_a_step, chunks_of(p), p.taps);
  }
};

template <class T, int tile_rows, int tile_columns, int warps_down, int warps_across,
          Form source_form, Form weight_form>
__global__ void __launch_bounds__(32 * warps_down * warps_across, 16 / (warps_down * warps_across))
    product(Product<T> p) {
  constexpr int threads = 32 * warps_down * warps_across;
  constexpr int warp_rows = tile_rows / warps_down, warp_columns = tile_columns / warps_across;
  constexpr int stage = tile_chunks<tile_rows> + tile_chunks<tile_columns>;
  constexpr int pitch = warp_columns + 8;  // of the sums in shared memory: spares bank conflicts
  static_assert(threads / 32 * 16 * pitch * sizeof(float) <= stages * stage * sizeof(uint4));
  DYNAMIC_SHARED(uint4, tiles);
  SHARED(int64_t, out_rows, [tile_rows]);
  SHARED(int64_t, residual_rows, [tile_rows]);
  SHARED(int, tile_column, [1]);  // waits here for the sums: registers are short in the main loop

  int64_t group = blockIdx.x;
  const int64_t first_column = take(group, p.column_tiles) * tile_columns;
  const int64_t first_row = take(group, p.row_tiles) * tile_rows;
  if (threadIdx.x == 0) tile_column[0] = static_cast<int>(first_column);
  for (int r = threadIdx.x; r < tile_rows; r += threads) {
    int64_t n = first_row + r, out = 0, residual = 0;
    const bool there = n < p.rows;
    for (int axis = 2; axis >= 0; --axis) {
      const int64_t q = take(n, p.outputs[axis]);
      out += q * p.out_stride[axis + 2];
      residual += q * p.residual_stride[axis + 2];
    }
    out_rows[r] = there ? out + n * p.out_stride[0] : -1;
    residual_rows[r] = residual + n * p.residual_stride[0];
  }

  SourceTile<T, tile_rows, threads, source_form> source(p, first_row, group);
  WeightTile<T, tile_columns, threads, weight_form> weight(p, first_column, group);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / warps_across * warp_rows;
  const int warp_column = warp % warps_across * warp_columns;
  float sums[warp_rows / 16][warp_columns / 8][4] = {};
  const int64_t chunks = static_cast<int64_t>(p.taps[0]) * p.taps[1] * p.taps[2] * chunks_of(p);
  run_steps((chunks + chunks_a_step - 1) / chunks_a_step,
            [&](int slot) {
              source.fetch(p, tiles + slot * stage);
              weight.fetch(p, tiles + slot * stage + tile_chunks<tile_rows>);
            },
            [&](int slot) {
              multiply_tiles<T, tile_rows, tile_columns, source_form, weight_form>(
                  sums, tiles + slot * stage, tiles + slot * stage + tile_chunks<tile_rows>,
                  warp_row, warp_column);
            });
  __syncthreads();  // the tiles are read, what follows overwrites them; and the rows are written

  float* slab = reinterpret_cast<float*>(tiles) + warp * 16 * pitch;  // [16][pitch]
  const bool columns_inside = p.out_stride[1] == 1;
  const int warp_first = tile_column[0] + warp_column;
  UNROLLED
  for (int i = 0; i < warp_rows / 16; ++i) {
    UNROLLED
    for (int j = 0; j < warp_columns / 8; ++j) {
      for (int half = 0; half < 2; ++half) {
        float2* to =
            reinterpret_cast<float2*>(slab + (lane / 4 + half * 8) * pitch + j * 8 + lane % 4 * 2);
        *to = make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
      }
    }
    __syncwarp();
    for (int e = lane; e < 16 * warp_columns; e += 32) {
      const int r = columns_inside ? e / warp_columns : e % 16;
      const int c = columns_inside ? e % warp_columns : e / 16;
      const int64_t out = out_rows[warp_row + i * 16 + r];
      if (out < 0 || warp_first + c >= p.columns) continue;
      const int64_t column = group * p.columns + warp_first + c;
      float z = slab[r * pitch + c];
      if (p.bias != nullptr) z += float(p.bias[column * p.bias_stride]);
      if (p.residual != nullptr)
        z +=
            float(p.residual[residual_rows[warp_row + i * 16 + r] + column * p.residual_stride[1]]);
      p.out[out + column * p.out_stride[1]] = T(activated(z, p.epilogue));
    }
    __syncwarp();
  }
}

template <class T, int tile_rows, int tile_columns, int warps_down, int warps_across,
          Form source_form, Form weight_form>
void launch_product(Product<T> p, int64_t groups, int64_t stream) {
  p.row_tiles = blocks_for(p.rows, tile_rows);
  p.column_tiles = blocks_for(p.columns, tile_columns);
  constexpr size_t bytes =
      stages * (tile_chunks<tile_rows> + tile_chunks<tile_columns>)*sizeof(uint4);
  launch(product<T, tile_rows, tile_columns, warps_down, warps_across, source_form, weight_form>,
         p.row_tiles * p.column_tiles * groups, 32 * warps_down * warps_across, bytes, stream, p);
}

// Tiles of 128 x 128 where they fill the machine, else of 64 x 64; sums do not depend on which.
constexpr int64_t enough_blocks = 128;

template <class T>
void run_product(const Product<T>& p, int64_t groups, Form source, Form weight, int64_t stream) {
  if (source == Form::gather)
    return launch_product<T, 64, 64, 2, 2, Form::gather, Form::gather>(p, groups, stream);
  if (weight == Form::gather)
    return launch_product<T, 64, 64, 2, 2, Form::along, Form::gather>(p, groups, stream);
  const bool large = p.columns > 64 &&
                     blocks_for(p.rows, 128) * blocks_for(p.columns, 128) * groups >= enough_blocks;
  if (weight == Form::along) {
    if (large)
      return launch_product<T, 128, 128, 2, 4, Form::along, Form::along>(p, groups, stream);
    return launch_product<T, 64, 64, 2, 2, Form::along, Form::along>(p, groups, stream);
  }
  if constexpr (sizeof(T) == 2) {
    if (large)
      return launch_product<T, 128, 128, 2, 4, Form::along, Form::across>(p, groups, stream);
    return launch_product<T, 64, 64, 2, 2, Form::along, Form::across>(p, groups, stream);
  }
}

// How the source's chunks and the weight's lie. `column` is the axis of the weight (0 or 1) that
// makes columns, the other one is reduced.
Form source_form(const Tensor& source, int64_t channels, size_t bytes) {
  const int64_t outer[4] = {source.size[0], source.size[2], source.size[3], source.size[4]};
  const int64_t strides[4] = {source.stride[0], source.stride[2], source.stride[3],
                              source.stride[4]};
  const bool whole = source.stride[1] == 1 && channels * bytes % 16 == 0 &&
                     whole_chunks(source.data, bytes, outer, strides, 4);
  return whole ? Form::along : Form::gather;
}

Form weight_form(const Tensor& weight, int column, int64_t channels, int64_t columns,
                 size_t bytes) {
  const auto whole = [&](int innermost, int64_t length) {
    const int other = 1 - innermost;
    const int64_t outer[4] = {weight.size[other], weight.size[2], weight.size[3], weight.size[4]};
    const int64_t strides[4] = {weight.stride[other], weight.stride[2], weight.stride[3],
                                weight.stride[4]};
    return weight.stride[innermost] == 1 && length * bytes % 16 == 0 &&
           whole_chunks(weight.data, bytes, outer, strides, 4);
  };
  if (whole(1 - column, channels)) return Form::along;
  return bytes == 2 && whole(column, columns) ? Form::across : Form::gather;
}

// What forward and every residue class of the gradient have in common.
template <class T>
Product<T> product_of(const Tensor& source, const Tensor& weight, const Tensor& out, int column,
                      int64_t groups) {
  Product<T> p = {};
  p.source = static_cast<const T*>(source.data);
  p.weight = static_cast<const T*>(weight.data);
  p.out = static_cast<T*>(out.data);
  for (int axis = 0; axis < 5; ++axis) {
    p.source_stride[axis] = source.stride[axis];
    p.out_stride[axis] = out.stride[axis];
  }
  p.channels = static_cast<int>(source.size[1] / groups);
  p.columns = static_cast<int>(out.size[1] / groups);
  p.source_group = p.channels * source.stride[1];
  p.column_stride = weight.stride[column];
  p.channel_stride = weight.stride[1 - column];
  p.weight_group = weight.size[0] / groups * weight.stride[0];
  for (int axis = 0; axis < 3; ++axis) p.size[axis] = static_cast<int>(source.size[axis + 2]);
  return p;
}

}  // namespace

void conv_forward_gemm(const ConvForward& args, int64_t stream) {
  const auto& [x, weight, bias, y, window, residual, epilogue] = args;
  dispatch_operand(x.dtype, [&](auto type) {
    using T = decltype(type);
    Product<T> p = product_of<T>(x, weight, y, 0, window.groups);
    p.bias = static_cast<const T*>(bias.data);
    p.bias_stride = bias.stride[1];
    p.residual = static_cast<const T*>(residual.data);
    p.epilogue = epilogue;
    for (int axis = 0; axis < 5; ++axis) p.residual_stride[axis] = residual.stride[axis];
    p.rows = y.size[0];
    for (int axis = 0; axis < 3; ++axis) {
      p.rows *= y.size[axis + 2];
      p.outputs[axis] = static_cast<int>(y.size[axis + 2]);
      p.step[axis] = static_cast<int>(window.stride[axis]);
      p.start[axis] = static_cast<int>(-window.padding[axis]);
      p.dilation[axis] = static_cast<int>(window.dilation[axis]);
      p.taps[axis] = static_cast<int>(weight.size[axis + 2]);
      p.tap_stride[axis] = weight.stride[axis + 2];
    }
    run_product(p, window.groups, source_form(x, p.channels, sizeof(T)),
                weight_form(weight, 0, p.channels, p.columns, sizeof(T)), stream);
  });
}

void conv_grad_input_gemm(const ConvGradInput& args, int64_t stream) {
  const auto& [grad_y, weight, grad_x, window] = args;
  dispatch_operand(grad_y.dtype, [&](auto type) {
    using T = decltype(type);
    const Product<T> whole = product_of<T>(grad_y, weight, grad_x, 1, window.groups);
    const Form source = source_form(grad_y, whole.channels, sizeof(T));
    const Form bank = weight_form(weight, 1, whole.channels, whole.columns, sizeof(T));
    for_each_class(window, grad_x, weight, [&](const ResidueClass(&classes)[3]) {
      Product<T> p = whole;
      p.rows = grad_x.size[0];
      for (int axis = 0; axis < 3; ++axis) {
        const ResidueClass& c = classes[axis];
        p.rows *= c.outputs;
        p.outputs[axis] = static_cast<int>(c.outputs);
        p.step[axis] = 1;
        p.start[axis] = static_cast<int>(c.start);
        p.dilation[axis] = static_cast<int>(c.dilation);
        p.taps[axis] = static_cast<int>(c.taps);
        p.weight += c.first_tap * weight.stride[axis + 2];
        p.tap_stride[axis] = c.tap_step * weight.stride[axis + 2];
        p.out += c.first * grad_x.stride[axis + 2];
        p.out_stride[axis + 2] = window.stride[axis] * grad_x.stride[axis + 2];
      }
      run_product(p, window.groups, source, bank, stream);
    });
  });
}

}  // namespace pydl::cuda
