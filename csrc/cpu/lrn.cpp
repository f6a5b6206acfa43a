// Local response normalisation, forward and backward (definition in ../lrn.h, arithmetic of a row
// in norm_rows.h).
//
// N, C, D, H, W: a task is a run of blocks of about 512 neighbouring positions of one n; it goes
// through the channels, and the window is that many rows of x in the cache. Backward differentiates
// a channel `below` ahead of the one it collects, with the last window's rows of direct and
// indirect in rings. Channels last: a task is a run of pixels, 16 at a time; the window is the
// pixel's squares read at neighbouring displacements.
//
// Windows are summed anew for each channel, no running sum is kept: size multiply-adds per element
// from cache cost less than the power, and nothing cancels. beta 0.75, 0.5 and 1 need no power.
//
// Bytes: forward x read, y written once; backward x and grad_y read, grad_x written once. A
// channel's rows are a plane apart and no hardware prefetcher follows from one to the next, so each
// block prefetches the same block of the next channel.
//
// Measured at 16x96x55x55, float32, size 5, beta 0.75, one thread of a Zen 4 with AVX-512 (PyTorch
// 15 and 22 ns per element):
//   forward   in cache 0.46 ns per element, in memory 0.54 (a copy 0.28)
//   backward  in cache 0.82 ns, in memory 1.22
// Before: stores not aligned to cache lines 0.60 forward (backward the same), streamed ones 1.4;
// without prefetching 0.80 and 1.60 ns in memory; with two roots and a division for scale^0.75 0.51
// and 1.02 ns in cache; blocks of 1024 0.60 and 1.28, of 256 0.63 and 1.23; unaligned rings 0.60
// and 1.25.
#include "../lrn.h"

#include "norm_rows.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// The window of channel c is [c - below, c + above], clipped to the channels there are.
template <class A, class Exponent>
struct Formula : Scale<A, Exponent> {
  int64_t channels, below, above;

  Formula(int64_t channels, int64_t size, double alpha, double beta, double k)
      : Scale<A, Exponent>(alpha / size, beta, k),
        channels(channels),
        below(std::min(size / 2, channels - 1)),
        above(std::min((size - 1) / 2, channels - 1)) {}

  int64_t window() const { return below + above + 1; }
};

// N, C, D, H, W

// Positions are cut into blocks of at most 512, whose rows of a window stay in the first-level
// cache, and into more where there would not be one for each thread.
struct PositionBlocks {
  int64_t positions, channels, count, tasks, pitch;  // pitch: of the longest block

  PositionBlocks(const Tensor& x, int64_t threads)
      : positions(x.size[2] * x.size[3] * x.size[4]),
        channels(x.size[1]),
        count(std::max((positions + 511) / 512,
                       std::min((positions + 255) / 256, (threads + x.size[0] - 1) / x.size[0]))),
        tasks(x.size[0] * count),
        pitch(whole_blocks((positions + count - 1) / count)) {}

  struct Block {
    int64_t offset, length;  // of the first channel in the tensor
  };
  Block operator[](int64_t task) const {
    const int64_t n = task / count, block = task % count, begin = positions * block / count;
    return {n * channels * positions + begin, positions * (block + 1) / count - begin};
  }
};

template <class T, class Exponent>
void forward_positions(const LrnForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = args.x.size[1];
  const Formula<A, Exponent> formula(channels, args.size, args.alpha, args.beta, args.k);
  const PositionBlocks blocks(args.x, threads);
  const int64_t window = formula.window();

  const int64_t team = team_size(blocks.tasks, args.x.numel(), threads);
  const Scratch<const A*> row_memory(team, window);
  const Scratch<A> memory(team, kConverts<T> ? (window + 1) * blocks.pitch : 1);
  share_out(blocks.tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    const A** rows = row_memory.of(member);
    const Ring<A> copies{memory.of(member), window, blocks.pitch};
    A* result = memory.of(member) + window * blocks.pitch;
    for (int64_t task = first; task < last; ++task) {
      const auto [offset, length] = blocks[task];
      const T* x = static_cast<const T*>(args.x.data) + offset;
      T* y = static_cast<T*>(args.y.data) + offset;
      RowReader<T> x_rows(x, blocks.positions, length, copies);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t from = std::max<int64_t>(c - formula.below, 0),
                      to = std::min(c + formula.above + 1, channels);
        x_rows.reach(to);
        for (int64_t row = from; row < to; ++row) rows[row - from] = x_rows[row];
        const T* next_x = x + std::min(to, channels - 1) * blocks.positions;
        const T* next_y = y + std::min(c + 1, channels - 1) * blocks.positions;
        write(y + c * blocks.positions, length, result, [&](A* out) {
          normalise(formula, rows, to - from, x_rows[c], out, length, square,
                    ReadAndWriteAhead(next_x, next_y));
        });
      }
    }
  });
}

template <class T, class Exponent>
void backward_positions(const LrnBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = args.x.size[1];
  const Formula<A, Exponent> formula(channels, args.size, args.alpha, args.beta, args.k);
  const PositionBlocks blocks(args.x, threads);
  const int64_t window = formula.window(), rows_size = window * blocks.pitch;

  const int64_t team = team_size(blocks.tasks, args.x.numel(), threads);
  const Scratch<const A*> row_memory(team, window);
  const Scratch<A> memory(team, 2 * rows_size + (kConverts<T> ? rows_size + 2 * blocks.pitch : 0));
  share_out(blocks.tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    const A** rows = row_memory.of(member);
    const Ring<A> direct{memory.of(member), window, blocks.pitch},
        indirect{direct.memory + rows_size, window, blocks.pitch},
        x_copies{indirect.memory + rows_size, window, blocks.pitch},
        grad_copies{x_copies.memory + rows_size, 1, blocks.pitch};
    A* result = grad_copies.memory + blocks.pitch;
    for (int64_t task = first; task < last; ++task) {
      const auto [offset, length] = blocks[task];
      const T* x = static_cast<const T*>(args.x.data) + offset;
      const T* grad_y = static_cast<const T*>(args.grad_y.data) + offset;
      RowReader<T> x_rows(x, blocks.positions, length, x_copies),
          grad_rows(grad_y, blocks.positions, length, grad_copies);
      T* grad_x = static_cast<T*>(args.grad_x.data) + offset;
      // Channel `ahead` is differentiated; channel c, the last whose transposed window is then
      // complete, is collected.
      for (int64_t ahead = 0; ahead < channels + formula.below; ++ahead) {
        if (ahead < channels) {
          const int64_t from = std::max<int64_t>(ahead - formula.below, 0),
                        to = std::min(ahead + formula.above + 1, channels);
          x_rows.reach(to), grad_rows.reach(ahead + 1);
          for (int64_t row = from; row < to; ++row) rows[row - from] = x_rows[row];
          const T* next_x = x + std::min(to, channels - 1) * blocks.positions;
          const T* next_grad = grad_y + std::min(ahead + 1, channels - 1) * blocks.positions;
          differentiate(formula, rows, to - from, x_rows[ahead], grad_rows[ahead], direct[ahead],
                        indirect[ahead], length, square, ReadAhead(next_x, next_grad));
        }
        const int64_t c = ahead - formula.below;
        if (c < 0) continue;
        const int64_t from = std::max<int64_t>(c - formula.above, 0),
                      to = std::min(c + formula.below + 1, channels);
        for (int64_t row = from; row < to; ++row) rows[row - from] = indirect[row];
        const T* next_to = grad_x + std::min(c + 1, channels - 1) * blocks.positions;
        write(grad_x + c * blocks.positions, length, result, [&](A* out) {
          collect(formula.slope, rows, to - from, x_rows[c], direct[c], out, length,
                  WriteAhead(next_to));
        });
      }
    }
  });
}

// Channels last. The rows of the window are the squares of one pixel, displaced by 0, 1, ...,
// between zeros for channels that do not exist.

// At a time: by the time a row is read displaced, its stores have left the store queue.
constexpr int64_t kPixels = 16;

template <class T, class Exponent>
void forward_pixels(const LrnForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = args.x.size[1], pixels = args.x.numel() / channels;
  const Formula<A, Exponent> formula(channels, args.size, args.alpha, args.beta, args.k);
  const int64_t window = formula.window(), pitch = channels + window - 1;

  const int64_t team = team_size(pixels, args.x.numel(), threads);
  const Scratch<const A*> row_memory(team, window);
  const Scratch<A> memory(team, kPixels * pitch + (kConverts<T> ? (kPixels + 1) * channels : 0));
  share_out(pixels, team, [&](int64_t member, int64_t first, int64_t last) {
    const A** rows = row_memory.of(member);
    const Ring<A> squares{memory.of(member), kPixels, pitch},
        copies{squares.memory + kPixels * pitch, kPixels, channels};
    A* result = copies.memory + kPixels * channels;
    std::fill_n(squares.memory, kPixels * pitch, A{0});
    RowReader<T> x_rows(static_cast<const T*>(args.x.data) + first * channels, channels, channels,
                        copies);
    T* y = static_cast<T*>(args.y.data) + first * channels;
    for (int64_t begin = 0; begin < last - first; begin += kPixels) {
      const int64_t end = std::min(begin + kPixels, last - first);
      x_rows.reach(end);
      for (int64_t pixel = begin; pixel < end; ++pixel)
        square_row(x_rows[pixel], squares[pixel] + formula.below, channels);
      for (int64_t pixel = begin; pixel < end; ++pixel) {
        for (int64_t row = 0; row < window; ++row) rows[row] = squares[pixel] + row;
        write(y + pixel * channels, channels, result, [&](A* out) {
          normalise(formula, rows, window, x_rows[pixel], out, channels, identity, NothingAhead());
        });
      }
    }
  });
}

template <class T, class Exponent>
void backward_pixels(const LrnBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = args.x.size[1], pixels = args.x.numel() / channels;
  const Formula<A, Exponent> formula(channels, args.size, args.alpha, args.beta, args.k);
  const int64_t window = formula.window(), pitch = channels + window - 1;

  const int64_t team = team_size(pixels, args.x.numel(), threads);
  const Scratch<const A*> row_memory(team, window);
  const Scratch<A> memory(
      team, kPixels * (2 * pitch + channels) + (kConverts<T> ? (2 * kPixels + 1) * channels : 0));
  share_out(pixels, team, [&](int64_t member, int64_t first, int64_t last) {
    const A** rows = row_memory.of(member);
    const Ring<A> squares{memory.of(member), kPixels, pitch},
        indirect{squares.memory + kPixels * pitch, kPixels, pitch},
        direct{indirect.memory + kPixels * pitch, kPixels, channels},
        x_copies{direct.memory + kPixels * channels, kPixels, channels},
        grad_copies{x_copies.memory + kPixels * channels, kPixels, channels};
    A* result = grad_copies.memory + kPixels * channels;
    std::fill_n(squares.memory, 2 * kPixels * pitch, A{0});
    RowReader<T> x_rows(static_cast<const T*>(args.x.data) + first * channels, channels, channels,
                        x_copies);
    RowReader<T> grad_rows(static_cast<const T*>(args.grad_y.data) + first * channels, channels,
                           channels, grad_copies);
    T* grad_x = static_cast<T*>(args.grad_x.data) + first * channels;
    for (int64_t begin = 0; begin < last - first; begin += kPixels) {
      const int64_t end = std::min(begin + kPixels, last - first);
      x_rows.reach(end), grad_rows.reach(end);
      for (int64_t pixel = begin; pixel < end; ++pixel)
        square_row(x_rows[pixel], squares[pixel] + formula.below, channels);
      for (int64_t pixel = begin; pixel < end; ++pixel) {
        for (int64_t row = 0; row < window; ++row) rows[row] = squares[pixel] + row;
        differentiate(formula, rows, window, x_rows[pixel], grad_rows[pixel], direct[pixel],
                      indirect[pixel] + formula.above, channels, identity, NothingAhead());
      }
      for (int64_t pixel = begin; pixel < end; ++pixel) {
        for (int64_t row = 0; row < window; ++row) rows[row] = indirect[pixel] + row;
        write(grad_x + pixel * channels, channels, result, [&](A* out) {
          collect(formula.slope, rows, window, x_rows[pixel], direct[pixel], out, channels,
                  NothingAhead());
        });
      }
    }
  });
}

}  // namespace

void lrn_forward(const LrnForward& args, bool channels_last, int64_t threads) {
  with_exponent("lrn", args.x.dtype, args.beta, [&]<class T, class Exponent>() {
    channels_last ? forward_pixels<T, Exponent>(args, threads)
                  : forward_positions<T, Exponent>(args, threads);
  });
}

void lrn_backward(const LrnBackward& args, bool channels_last, int64_t threads) {
  with_exponent("lrn", args.x.dtype, args.beta, [&]<class T, class Exponent>() {
    channels_last ? backward_pixels<T, Exponent>(args, threads)
                  : backward_positions<T, Exponent>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
