// Average pooling, backward (definition in ../pool.h):
//
//   grad_x[i] = sum over the windows o that hold i of grad_y[o] / divisor[o]
//
// N, C, D, H, W: window_shares.h, a share being a quotient. Channels last: a task is a run of lines
// (n, d, h); a pixel is the sum of its windows' channels, divided once where they share a divisor.
//
// Bytes: grad_y read and grad_x written once. Operations for 3x3 windows, stride 2: 0.25 divisions
// and 1.75 additions per input.
//
// Measured at 16x96x55x55, float32, windows 3x3 stride 2, one thread of a Zen 4 with AVX-512, data
// in cache: 0.50 ns per input element. Before: each input line a sum over rows and columns of its
// own, with its own list of terms, 0.80 ns; spread lines, but line by line, 0.66 ns (a line's lists
// and calls cost as much as its arithmetic).
#include "../pool.h"
#include "avg_divisor.h"
#include "parallel.h"
#include "pool_window.h"
#include "window_shares.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// N, C, D, H, W

// One window per plane: nothing to share.
template <class T>
void avg_planes_backward(const AvgPoolBackward& args, int64_t size, accumulate_t<T> divisor,
                         int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t planes = args.grad_x.size[0] * args.grad_x.size[1];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  share_out(planes, team_size(planes, args.grad_x.numel(), threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t plane = first; plane < last; ++plane) {
                std::fill_n(grad_x + plane * size, size,
                            static_cast<T>(static_cast<A>(grad_y[plane]) / divisor));
              }
            });
}

template <class T>
struct Quotients {
  const T* grad_y;
  const Divisor<accumulate_t<T>>& divisor;
  int64_t outputs;

  void write(int64_t first, int64_t d, int64_t h, int64_t count, accumulate_t<T>* to,
             int64_t step) const {
    for (int64_t i = 0, alike; i < count; i += alike) {
      alike = divisor.uniform() ? count : 1;
      const T* from = grad_y + first + i * outputs;
      fold_rows<Sum>(&from, 1, to + i * step, outputs, divisor.of_line(d, h + i),
                     {alike, outputs, step});
    }
  }
};

struct AsItIs {
  Unchanged line(int64_t) const { return {}; }
};

template <class T>
void avg_lines_backward(const AvgPoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.grad_x, args.grad_y, 0),
      height(args.window, args.grad_x, args.grad_y, 1),
      width(args.window, args.grad_x, args.grad_y, 2);
  const Divisor<A> divisor(depth, height, width, args.count_include_pad, args.divisor);
  if (depth.global() && height.global() && width.global()) {
    return avg_planes_backward<T>(args, depth.inputs * height.inputs * width.inputs,
                                  divisor.of_line(0, 0).at(0), threads);
  }
  const Quotients<T> quotients{static_cast<const T*>(args.grad_y.data), divisor, width.outputs};
  add_shares<T>(args.grad_x, depth, height, width, quotients, AsItIs{}, threads);
}

// Channels last

// The sum of grads[t] / divisors[t]: where windows differ in their divisors each is divided,
// elsewhere only the sum.
template <class T>
void add_quotients(const T* const* grads, const accumulate_t<T>* divisors, int64_t count, T* out,
                   int64_t channels) {
  using A = accumulate_t<T>;
  for_blocks<A>(channels, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    A sum[lanes] = {}, grad[lanes];
    for_steps<0>(0, count, [&](int64_t term) PYDL_INLINE_BODY {
      load<lanes>(grads[term] + first, grad);
      const A by = divisors[term];
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) sum[lane] += grad[lane] / by;
    });
    store<lanes>(sum, out + first);
  });
}

template <class T>
void avg_pixels_backward(const AvgPoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.grad_x, args.grad_y, 0),
      height(args.window, args.grad_x, args.grad_y, 1),
      width(args.window, args.grad_x, args.grad_y, 2);
  const Cover cover_d(depth), cover_h(height), cover_w(width);
  const Divisor<A> divisor(depth, height, width, args.count_include_pad, args.divisor);
  const Lines lines(args.grad_x, /*channels_last=*/true);
  const int64_t channels = args.grad_x.size[1];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  const bool uniform = divisor.uniform();
  const A shared = divisor.of_line(0, 0).at(0);
  const int64_t terms = cover_d.most() * cover_h.most() * cover_w.most();
  const int64_t team = team_size(lines.count(), args.grad_x.numel(), threads);
  const Scratch<const T*> memory(team, terms);
  const Scratch<A> divisor_memory(team, terms);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const T** grads = memory.of(member);
    A* divisors = divisor_memory.of(member);
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      for (int64_t i = 0; i < width.inputs; ++i) {
        int64_t count = 0;
        bool alike = true;
        for (auto d = cover_d.begin(at.d); d != cover_d.end(at.d); ++d) {
          for (auto h = cover_h.begin(at.h); h != cover_h.end(at.h); ++h) {
            const int64_t from =
                ((at.plane * depth.outputs + d->window) * height.outputs + h->window) *
                width.outputs;
            for (auto w = cover_w.begin(i); w != cover_w.end(i); ++w, ++count) {
              grads[count] = grad_y + (from + w->window) * channels;
              if (uniform) continue;
              divisors[count] = divisor.of_line(d->window, h->window).at(w->window);
              alike &= divisors[count] == divisors[0];
            }
          }
        }
        T* to = grad_x + (at.number * width.inputs + i) * channels;
        if (count == 0) {
          std::fill_n(to, channels, static_cast<T>(A{0}));
        } else if (alike) {
          const A by = uniform ? shared : divisors[0];
          fold_rows<Sum>(grads, count, to, channels, [=](A sum, int64_t) { return sum / by; });
        } else {
          add_quotients(grads, divisors, count, to, channels);
        }
      }
    }
  });
}

// Few channels make short rows. So the windows' lines are added up whole, and each pixel of an
// input line then adds up its windows in the sum, a block at a time: what it writes beyond its
// channels the next pixel overwrites.
constexpr int64_t kFewChannels = kLanes;

template <class T>
void avg_few_channels_backward(const AvgPoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.grad_x, args.grad_y, 0),
      height(args.window, args.grad_x, args.grad_y, 1),
      width(args.window, args.grad_x, args.grad_y, 2);
  const Cover cover_d(depth), cover_h(height), cover_w(width);
  const Divisor<A> divisor(depth, height, width, args.count_include_pad, args.divisor);
  const Lines lines(args.grad_x, /*channels_last=*/true);
  const int64_t channels = args.grad_x.size[1], inputs = width.inputs * channels,
                outputs = width.outputs * channels;
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  std::vector<A> divisors(outputs);
  const auto of_first_line = divisor.of_line(0, 0);
  for (int64_t i = 0; i < outputs; ++i) divisors[i] = of_first_line.of_window[i / channels];
  const int64_t most_rows = cover_d.most() * cover_h.most();
  const int64_t team = team_size(lines.count(), args.grad_x.numel(), threads);
  const Scratch<A> memory(team, (most_rows + 1) * outputs + inputs + 2 * kLanes);
  const Scratch<const A*> row_memory(team, most_rows);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A *quotients = memory.of(member), *sums = quotients + most_rows * outputs,
      *line = sums + outputs + kLanes;
    const A** rows = row_memory.of(member);
    std::fill_n(sums, outputs + kLanes, A{0});
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      int64_t count = 0;
      for (auto d = cover_d.begin(at.d); d != cover_d.end(at.d); ++d) {
        for (auto h = cover_h.begin(at.h); h != cover_h.end(at.h); ++h) {
          const T* row =
              grad_y +
              ((at.plane * depth.outputs + d->window) * height.outputs + h->window) * outputs;
          A* to = quotients + count * outputs;
          fold_rows<Sum>(&row, 1, to, outputs,
                         typename Divisor<A>::OfLine{divisor.of_line(d->window, h->window).shared,
                                                     divisors.data()});
          rows[count++] = to;
        }
      }
      if (count == 0) {
        std::fill_n(sums, outputs, A{0});
      } else {
        fold_rows<Sum>(rows, count, sums, outputs, Unchanged{});
      }
      for (int64_t i = 0; i < width.inputs; ++i) {
        A sum[kLanes] = {};
        for (auto w = cover_w.begin(i); w != cover_w.end(i); ++w) {
          const A* from = sums + w->window * channels;
          PYDL_LANES
          for (int lane = 0; lane < kLanes; ++lane) sum[lane] += from[lane];
        }
        store<kLanes>(sum, line + i * channels);
      }
      store_row(line, grad_x + at.number * inputs, inputs);
    }
  });
}

}  // namespace

void avg_pool_backward(const AvgPoolBackward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "avg_pool", [&]<class T>(T) {
    if (!channels_last) return avg_lines_backward<T>(args, threads);
    args.grad_x.size[1] <= kFewChannels ? avg_few_channels_backward<T>(args, threads)
                                        : avg_pixels_backward<T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
