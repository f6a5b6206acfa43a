// Power-average pooling (definition in ../pool_lp.h). For p = 1 and 2: the sums of window_sums.h
// and window_shares.h, with powers for terms and roots at the end. For any other p, which no known
// network has: the definition, one output at a time.
//
// Backward, channels last: a task is a run of input lines (n, d, h). The shares of the windows'
// lines that hold an input line are added up whole, and each pixel adds up its windows in the sum.
//
// Bytes: forward reads x and writes y once; backward reads x, y and grad_y and writes grad_x once.
// PyTorch's eight operators move about 30 bytes where forward needs 5 (3x3 windows, stride 2,
// float32).
#include "../pool_lp.h"
#include "lp_power.h"
#include "vec.h"
#include "window_shares.h"
#include "window_sums.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

int64_t taps_of(const PoolWindow& window) {
  return window.kernel[0] * window.kernel[1] * window.kernel[2];
}

template <class T, class P>
struct Shares {
  using A = accumulate_t<T>;
  const T *grad_y, *y;
  const Roots<A, P>& roots;
  int64_t outputs;

  void write(int64_t first, int64_t d, int64_t h, int64_t count, A* to, int64_t step) const {
    for (int64_t i = 0; i < count; ++i) {
      const auto of_line = roots.of_line(d, h + i);
      const T *grad = grad_y + first + i * outputs, *root = y + first + i * outputs;
      A* shares = to + i * step;
      for_blocks<A>(outputs, [=]<int lanes>(int64_t o, Lanes<lanes>) {
        A grads[lanes], values[lanes];
        load<lanes>(grad + o, grads);
        load<lanes>(root + o, values);
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          shares[o + lane] = of_line.share(grads[lane], values[lane], of_line.scale(o + lane));
        }
      });
    }
  }
};

// The sum of shares that an input gets, times x^(p - 1).
template <class T, class P>
struct Slopes {
  const T* x;
  P power;

  auto line(int64_t first) const {
    using A = accumulate_t<T>;
    return [from = x + first, power = power](A sum, int64_t i) {
      return sum * power.slope(static_cast<A>(from[i]));
    };
  }
};

// One window per plane.
template <class T, class P>
void lp_planes_backward(const LpPoolBackward& args, const Roots<accumulate_t<T>, P>& roots, P power,
                        int64_t size, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t planes = args.x.size[0] * args.x.size[1];
  const T *grad_y = static_cast<const T*>(args.grad_y.data),
          *x = static_cast<const T*>(args.x.data), *y = static_cast<const T*>(args.y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  const auto of_line = roots.of_line(0, 0);
  share_out(planes, team_size(planes, args.x.numel(), threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t plane = first; plane < last; ++plane) {
                const A share = of_line.share(static_cast<A>(grad_y[plane]),
                                              static_cast<A>(y[plane]), of_line.scale(0));
                const T* row = x + plane * size;
                fold_rows<Sum>(&row, 1, grad_x + plane * size, size,
                               [=](A value, int64_t) { return share * power.slope(value); });
              }
            });
}

template <class T, class P>
void lp_pixels_backward(const LpPoolBackward& args, const Axis& depth, const Axis& height,
                        const Axis& width, const Roots<accumulate_t<T>, P>& roots, P power,
                        int64_t threads) {
  using A = accumulate_t<T>;
  const Cover cover_d(depth), cover_h(height), cover_w(width);
  const Lines lines(args.grad_x, /*channels_last=*/true);
  const int64_t channels = args.x.size[1], outputs = width.outputs * channels;
  const T *grad_y = static_cast<const T*>(args.grad_y.data),
          *y = static_cast<const T*>(args.y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  const Slopes<T, P> slopes{static_cast<const T*>(args.x.data), power};

  const int64_t team = team_size(lines.count(), args.x.numel(), threads);
  const Scratch<A> memory(team, outputs);
  const Scratch<const A*> row_memory(team, cover_w.most() + 1);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A* sums = memory.of(member);
    const A** rows = row_memory.of(member);
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      std::fill_n(sums, outputs, A{0});
      for (auto d = cover_d.begin(at.d); d != cover_d.end(at.d); ++d) {
        for (auto h = cover_h.begin(at.h); h != cover_h.end(at.h); ++h) {
          const auto of_line = roots.of_line(d->window, h->window);
          const int64_t line =
              ((at.plane * depth.outputs + d->window) * height.outputs + h->window) * outputs;
          for (int64_t o = 0; o < width.outputs; ++o) {
            const T *grad = grad_y + line + o * channels, *root = y + line + o * channels;
            A* to = sums + o * channels;
            const A scale = of_line.scale(o);
            for_vectors_once<A>(channels, [=]<int lanes>(int64_t c, Lanes<lanes>) {
              A grads[lanes], values[lanes];
              load<lanes>(grad + c, grads);
              load<lanes>(root + c, values);
              PYDL_LANES
              for (int lane = 0; lane < lanes; ++lane)
                to[c + lane] += of_line.share(grads[lane], values[lane], scale);
            });
          }
        }
      }
      for (int64_t i = 0; i < width.inputs; ++i) {
        int64_t count = 0;
        for (auto w = cover_w.begin(i); w != cover_w.end(i); ++w)
          rows[count++] = sums + w->window * channels;
        const int64_t pixel = (at.number * width.inputs + i) * channels;
        if (count == 0) {
          const T* x = slopes.x + pixel;
          fold_rows<Sum>(&x, 1, grad_x + pixel, channels,
                         [=](A value, int64_t) { return A{0} * power.slope(value); });
        } else {
          fold_rows<Sum>(rows, count, grad_x + pixel, channels, slopes.line(pixel));
        }
      }
    }
  });
}

// Any other p: one output at a time, by the C library's powers, which cost more than all else.

template <class A>
struct AnyPower {
  A p;
  int whole;  // p where it is a small whole number, for which a few products do; else 0

  explicit AnyPower(double p)
      : p(static_cast<A>(p)),
        whole(p >= 1 && p <= 8 && p == std::floor(p) ? static_cast<int>(p) : 0) {}

  A of(A x) const {
    if (whole == 0) return std::pow(x, p);
    A product = x;
    for (int i = 1; i < whole; ++i) product *= x;
    return product;
  }
};

// The runs of taps of window o inside the input, and the factor by which its sum counts for more
// than those.
struct AnyWindow {
  Axis axis[3];

  AnyWindow(const PoolWindow& window, const Tensor& x, const Tensor& y)
      : axis{Axis(window, x, y, 0), Axis(window, x, y, 1), Axis(window, x, y, 2)} {}

  int64_t end(int spatial, int64_t o) const {
    return std::min(axis[spatial].start(o) + axis[spatial].kernel, axis[spatial].inputs);
  }
  double scale(int64_t od, int64_t oh, int64_t ow) const {
    const int64_t o[] = {od, oh, ow};
    double scale = 1;
    for (int i = 0; i < 3; ++i)
      scale *= static_cast<double>(axis[i].kernel) / (end(i, o[i]) - axis[i].start(o[i]));
    return scale;
  }
};

// Calls visit(n, c, d, h, w) for all elements of a map, shared out by planes.
template <class Visit>
void for_elements(const Tensor& map, int64_t threads, const Visit& visit) {
  const int64_t planes = map.size[0] * map.size[1];
  share_out(planes, team_size(planes, map.numel(), threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t plane = first; plane < last; ++plane) {
                const int64_t n = plane / map.size[1], c = plane % map.size[1];
                for (int64_t d = 0; d < map.size[2]; ++d) {
                  for (int64_t h = 0; h < map.size[3]; ++h) {
                    for (int64_t w = 0; w < map.size[4]; ++w) visit(n, c, d, h, w);
                  }
                }
              }
            });
}

template <class T>
void any_forward(const LpPoolForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const View<const T> x(args.x);
  const View<T> y(args.y);
  const AnyWindow window(args.window, args.x, args.y);
  const AnyPower<A> power(args.norm_type);
  const A root = static_cast<A>(1 / args.norm_type);
  for_elements(args.y, threads, [&](int64_t n, int64_t c, int64_t od, int64_t oh, int64_t ow) {
    A sum = 0;
    for (int64_t d = window.axis[0].start(od); d < window.end(0, od); ++d) {
      for (int64_t h = window.axis[1].start(oh); h < window.end(1, oh); ++h) {
        for (int64_t w = window.axis[2].start(ow); w < window.end(2, ow); ++w)
          sum += power.of(static_cast<A>(x.at(n, c, d, h, w)));
      }
    }
    y.at(n, c, od, oh, ow) =
        static_cast<T>(std::pow(sum * static_cast<A>(window.scale(od, oh, ow)), root));
  });
}

template <class T>
void any_backward(const LpPoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const View<const T> grad_y(args.grad_y), x(args.x), y(args.y);
  const View<T> grad_x(args.grad_x);
  const AnyWindow window(args.window, args.x, args.y);
  const Cover over_d(window.axis[0]), over_h(window.axis[1]), over_w(window.axis[2]);
  const A slope = static_cast<A>(args.norm_type - 1);
  for_elements(args.x, threads, [&](int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) {
    A sum = 0;
    for (auto od = over_d.begin(d); od != over_d.end(d); ++od) {
      for (auto oh = over_h.begin(h); oh != over_h.end(h); ++oh) {
        for (auto ow = over_w.begin(w); ow != over_w.end(w); ++ow) {
          const int64_t at[] = {od->window, oh->window, ow->window};
          const A root = static_cast<A>(y.at(n, c, at[0], at[1], at[2]));
          if (root == 0) continue;
          sum += static_cast<A>(grad_y.at(n, c, at[0], at[1], at[2])) *
                 static_cast<A>(window.scale(at[0], at[1], at[2])) * std::pow(root, -slope);
        }
      }
    }
    grad_x.at(n, c, d, h, w) =
        static_cast<T>(sum * std::pow(static_cast<A>(x.at(n, c, d, h, w)), slope));
  });
}

}  // namespace

void lp_pool_forward(const LpPoolForward& args, bool channels_last, int64_t threads) {
  const auto& [x, y, window, p] = args;
  const Axis depth(window, x, y, 0), height(window, x, y, 1), width(window, x, y, 2);
  dispatch_floating(x.dtype, "lp_pool", [&]<class T>(T) {
    using A = accumulate_t<T>;
    if (p != 1 && p != 2) return any_forward<T>(args, threads);
    const Divisor<A> counts(depth, height, width, /*count_include_pad=*/false, 0);
    const auto pool = [&]<class P>(P power) {
      const Roots<A, P> roots{counts, static_cast<A>(taps_of(window)), power};
      sum_windows<T>(x, y, depth, height, width, PowerSum<P>{power}, roots, channels_last, threads);
    };
    p == 1 ? pool(Power<1>{}) : pool(Power<2>{});
  });
}

void lp_pool_backward(const LpPoolBackward& args, bool channels_last, int64_t threads) {
  const auto& [grad_y, x, y, grad_x, window, p] = args;
  const Axis depth(window, x, y, 0), height(window, x, y, 1), width(window, x, y, 2);
  dispatch_floating(x.dtype, "lp_pool", [&]<class T>(T) {
    using A = accumulate_t<T>;
    if (p != 1 && p != 2) return any_backward<T>(args, threads);
    const Divisor<A> counts(depth, height, width, /*count_include_pad=*/false, 0);
    const auto pool = [&]<class P>(P power) {
      const Roots<A, P> roots{counts, static_cast<A>(taps_of(window)), power};
      if (channels_last)
        return lp_pixels_backward<T>(args, depth, height, width, roots, power, threads);
      if (depth.global() && height.global() && width.global()) {
        return lp_planes_backward<T>(args, roots, power,
                                     depth.inputs * height.inputs * width.inputs, threads);
      }
      const Shares<T, P> shares{static_cast<const T*>(grad_y.data), static_cast<const T*>(y.data),
                                roots, width.outputs};
      add_shares<T>(grad_x, depth, height, width, shares,
                    Slopes<T, P>{static_cast<const T*>(x.data), power}, threads);
    };
    p == 1 ? pool(Power<1>{}) : pool(Power<2>{});
  });
}

}  // namespace pydl::cpu::PYDL_ISA
