// Power-average pooling, backward (definition in ../pool_lp.h). For p = 1 and 2: the shares of
// window_shares.h. For any other p: the definition.
//
// Channels last: a task is a run of input lines (n, d, h). The shares of the windows' lines that
// hold an input line are added up whole, and each pixel adds up its windows in the sum.
//
// Bytes: x, y and grad_y read, grad_x written once.
#include "../pool_lp.h"
#include "lp_power.h"
#include "vec.h"
#include "window_shares.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

template <class T>
struct Shares {
  using A = accumulate_t<T>;
  const T *grad_y, *y;
  const Roots<A>& roots;
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
template <class T>
struct Slopes {
  const T* x;
  Power power;

  auto line(int64_t first) const {
    using A = accumulate_t<T>;
    return [from = x + first, power = power](A sum, int64_t i) {
      return sum * power.slope(static_cast<A>(from[i]));
    };
  }
};

// One window per plane.
template <class T>
void lp_planes_backward(const LpPoolBackward& args, const Roots<accumulate_t<T>>& roots,
                        Power power, int64_t size, int64_t threads) {
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

template <class T>
void lp_pixels_backward(const LpPoolBackward& args, const Axis& depth, const Axis& height,
                        const Axis& width, const Roots<accumulate_t<T>>& roots, Power power,
                        int64_t threads) {
  using A = accumulate_t<T>;
  const Cover cover_d(depth), cover_h(height), cover_w(width);
  const Lines lines(args.grad_x, /*channels_last=*/true);
  const int64_t channels = args.x.size[1], outputs = width.outputs * channels;
  const T *grad_y = static_cast<const T*>(args.grad_y.data),
          *y = static_cast<const T*>(args.y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  const Slopes<T> slopes{static_cast<const T*>(args.x.data), power};

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

void lp_pool_backward(const LpPoolBackward& args, bool channels_last, int64_t threads) {
  const auto& [grad_y, x, y, grad_x, window, p] = args;
  const Axis depth(window, x, y, 0), height(window, x, y, 1), width(window, x, y, 2);
  dispatch_floating(x.dtype, "lp_pool", [&]<class T>(T) {
    using A = accumulate_t<T>;
    if (p != 1 && p != 2) return any_backward<T>(args, threads);
    const Divisor<A> counts(depth, height, width, /*count_include_pad=*/false, 0);
    const Power power{p == 2};
    const Roots<A> roots{counts, static_cast<A>(taps_of(window)), power};
    if (channels_last)
      return lp_pixels_backward<T>(args, depth, height, width, roots, power, threads);
    if (depth.global() && height.global() && width.global()) {
      return lp_planes_backward<T>(args, roots, power, depth.inputs * height.inputs * width.inputs,
                                   threads);
    }
    const Shares<T> shares{static_cast<const T*>(grad_y.data), static_cast<const T*>(y.data), roots,
                           width.outputs};
    add_shares<T>(grad_x, depth, height, width, shares,
                  Slopes<T>{static_cast<const T*>(x.data), power}, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
