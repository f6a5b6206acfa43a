// Power-average pooling, forward (definition in ../pool_lp.h). For p = 1 it is an average of other
// divisors; for p = 2 the sums of window_sums.h, with squares for terms and roots at the end; for
// any other p the definition.
//
// Bytes: x read, y written once. PyTorch's eight operators move about 30 bytes where this needs 5
// (3x3 windows, stride 2, float32).
#include "../pool_lp.h"
#include "lp_power.h"
#include "vec.h"
#include "window_sums.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

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

}  // namespace

void lp_pool_forward(const LpPoolForward& args, bool channels_last, int64_t threads) {
  const auto& [x, y, window, p] = args;
  const Axis depth(window, x, y, 0), height(window, x, y, 1), width(window, x, y, 2);
  dispatch_floating(x.dtype, "lp_pool", [&]<class T>(T) {
    using A = accumulate_t<T>;
    if (p != 1 && p != 2) return any_forward<T>(args, threads);
    if (p == 1) {
      const Divisor<A> counts(depth, height, width, /*count_include_pad=*/false, 0,
                              taps_of(window));
      return average_windows<T>(x, y, depth, height, width, counts, channels_last, threads);
    }
    const Divisor<A> counts(depth, height, width, /*count_include_pad=*/false, 0);
    const Roots<A> roots{counts, static_cast<A>(taps_of(window)), Power{/*squares=*/true}};
    sum_windows<T>(x, y, depth, height, width, SumOfSquares{}, roots, channels_last, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
