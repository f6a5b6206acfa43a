// Cross entropy and its gradient in one pass each, without a map of probabilities (definition in
// ../cross_entropy.h).
//
// A task is a run of rows where the classes are innermost, else a block of columns side by side, as
// in softmax.cpp. Its size comes from the shape alone, and with it the order in which losses are
// added up.
//
// Bytes: forward reads x once, backward reads it and writes grad_x once; target, peak and total are
// 16 bytes per position, next to 4 * C. Operations: one exponential per element either way.
#include "../cross_entropy.h"

#include <atomic>
#include <string>

#include "parallel.h"
#include "softmax_columns.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kRows = 64;  // of a task

// What the target is: class indices without or with smoothing, or class probabilities.
enum class Kind { hard, smooth, soft };

// The first position whose class does not exist.
class Missing {
 public:
  void at(int64_t position) {
    int64_t first = first_.load(std::memory_order_relaxed);
    while (position < first && !first_.compare_exchange_weak(first, position)) {
    }
  }
  void raise(const int64_t* target) const {
    const int64_t first = first_.load();
    if (first != INT64_MAX)
      throw std::out_of_range("Target " + std::to_string(target[first]) + " is out of bounds.");
  }

 private:
  std::atomic<int64_t> first_{INT64_MAX};
};

// What every position needs to know.
template <class T>
struct Problem {
  using A = accumulate_t<T>;

  const T* x;
  const int64_t* target;   // class indices, or
  const T* probabilities;  // like x
  A *peak, *total;
  int64_t classes, inner, outer, ignore_index;
  A smoothing, kept, spread;  // s, 1 - s, s / C
  Scratch<A> weights;         // w, 1 where none are given
  A weights_sum = 0;

  template <class Arguments>
  explicit Problem(const Arguments& args)
      : x(static_cast<const T*>(args.x.data)),
        target(static_cast<const int64_t*>(args.target.data)),
        probabilities(static_cast<const T*>(args.target.data)),
        peak(static_cast<A*>(args.peak.data)),
        total(static_cast<A*>(args.total.data)),
        classes(args.x.size[1]),
        inner(args.x.size[4]),
        outer(args.x.size[0]),
        ignore_index(args.criterion.ignore_index),
        smoothing(static_cast<A>(args.criterion.label_smoothing)),
        kept(static_cast<A>(1 - args.criterion.label_smoothing)),
        spread(static_cast<A>(args.criterion.label_smoothing / static_cast<double>(classes))),
        weights(1, classes) {
    if (args.weight.data == nullptr) {
      std::fill_n(weight(), classes, A{1});
    } else {
      load_row(static_cast<const T*>(args.weight.data), weight(), classes);
    }
    for (int64_t c = 0; c < classes; ++c) weights_sum += weight()[c];
  }

  A* weight() const { return weights.of(0); }

  // The class of a position; -1 where the position does not count.
  int64_t class_of(int64_t position, Missing& missing) const {
    const int64_t t = target[position];
    if (static_cast<uint64_t>(t) < static_cast<uint64_t>(classes) && t != ignore_index) return t;
    if (t != ignore_index) missing.at(position);
    return -1;
  }

  // w[c] q'[c] of some columns: how much lse - x[c] weighs in their loss.
  template <Kind kind, int lanes>
  PYDL_INLINE Vec<A, lanes> share(int64_t c, int64_t at) const {
    if constexpr (kind == Kind::soft)
      return (load_vec<lanes>(probabilities + at) * kept + spread) * weight()[c];
    return Vec<A, lanes>{} + spread * weight()[c];
  }
  // The same of some classes of one row.
  template <Kind kind, int lanes>
  PYDL_INLINE Vec<A, lanes> row_share(int64_t c, int64_t at) const {
    const Vec<A, lanes> w = load_vec<lanes>(weight() + c);
    if constexpr (kind == Kind::soft)
      return (load_vec<lanes>(probabilities + at + c) * kept + spread) * w;
    return w * spread;
  }

  // The tasks: how many, and positions of task i.
  int64_t width() const { return block_width(classes, inner); }
  int64_t blocks() const { return (inner + width() - 1) / width(); }
  int64_t tasks() const { return inner == 1 ? (outer + kRows - 1) / kRows : outer * blocks(); }
  int64_t task_positions() const { return inner == 1 ? kRows : width(); }

  // Calls on_row(row, lanes) for each row of the task, or on_block(first position, first element,
  // columns).
  template <class OnRow, class OnBlock>
  PYDL_INLINE void run(int64_t task, OnRow on_row, OnBlock on_block) const {
    if (inner == 1) {
      return with_lanes<A>(classes, [&](auto lanes) {
        for (int64_t row = task * kRows; row < std::min(outer, (task + 1) * kRows); ++row)
          on_row(row, lanes);
      });
    }
    const int64_t image = task / blocks(), from = task % blocks() * width();
    on_block(image * inner + from, image * classes * inner + from, std::min(width(), inner - from));
  }
};

// The sum of losses and of what the mean divides by, of a task.
struct Partial {
  double loss = 0, divisor = 0;
};

template <Kind kind, class T>
class Forward {
  using A = accumulate_t<T>;

 public:
  Forward(const CrossEntropyForward& args, int64_t threads) : args_(args), problem_(args) {
    const int64_t tasks = problem_.tasks();
    const int64_t team = team_size(tasks, args.x.numel(), threads);
    const Scratch<A> sums(team, 2 * problem_.task_positions());
    const Scratch<Partial> partials(1, tasks);
    share_out(tasks, team, [&](int64_t member, int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        Partial partial;
        problem_.run(
            task, [&](int64_t row, auto lanes) { row_loss(row, lanes, partial); },
            [&](int64_t position, int64_t element, int64_t columns) {
              block_losses(position, element, columns, sums.of(member), partial);
            });
        partials.of(0)[task] = partial;
      }
    });
    if constexpr (kind != Kind::soft) missing_.raise(problem_.target);
    Partial all;
    for (int64_t task = 0; task < tasks; ++task) {
      all.loss += partials.of(0)[task].loss;
      all.divisor += partials.of(0)[task].divisor;
    }
    const bool mean = args.criterion.reduction == Reduction::mean;
    *static_cast<A*>(args.divisor.data) = static_cast<A>(mean ? all.divisor : 1);
    if (args.criterion.reduction != Reduction::none)
      *static_cast<T*>(args.loss.data) =
          T(static_cast<A>(mean ? all.loss / all.divisor : all.loss));
  }

 private:
  // Adds a position's loss; `weighed` is its sum of shares times x - peak, `shares` its sum of
  // shares.
  PYDL_INLINE void loss(int64_t position, A log_total, A weighed, A shares, const T* x,
                        int64_t step, Partial& partial) {
    A value = kind == Kind::hard ? A{0} : shares * log_total - weighed;
    A divisor = 1;
    if constexpr (kind != Kind::soft) {
      const int64_t t = problem_.class_of(position, missing_);
      divisor = 0;
      if (t < 0) {
        value = 0;
      } else {
        divisor = problem_.weight()[t];
        const A hit = log_total - (static_cast<A>(x[t * step]) - problem_.peak[position]);
        value += problem_.kept * divisor * hit;
      }
    }
    if (args_.criterion.reduction == Reduction::none)
      static_cast<T*>(args_.loss.data)[position] = T(value);
    partial.loss += value;
    partial.divisor += divisor;
  }

  template <int lanes>
  PYDL_INLINE void row_loss(int64_t row, Lanes<lanes>, Partial& partial) {
    const T* x = problem_.x + row * problem_.classes;
    const A peak = row_peak<lanes>(x, problem_.classes);
    const A total =
        row_total<lanes>(x, problem_.classes, peak, [](int64_t, const auto&) PYDL_INLINE_BODY {});
    problem_.peak[row] = peak;
    problem_.total[row] = total;
    A weighed = 0, shares = problem_.smoothing / problem_.classes * problem_.weights_sum;
    if constexpr (kind != Kind::hard) {
      RowSum<lanes, A> products, sums;
      for_row<lanes>(problem_.classes, [&](int64_t c, auto last, int skipped) PYDL_INLINE_BODY {
        const Vec<A, lanes> share =
            problem_.template row_share<kind, lanes>(c, row * problem_.classes);
        const Vec<A, lanes> product = share * (load_vec<lanes>(x + c) - peak);
        products.add(product, last, skipped);
        sums.add(share, last, skipped);
      });
      weighed = products.total();
      shares = sums.total();
    }
    loss(row, log_positive<1, A>(total), weighed, shares, x, 1, partial);
  }

  void block_losses(int64_t position, int64_t element, int64_t columns, A* sums, Partial& partial) {
    const T* x = problem_.x + element;
    A *peak = problem_.peak + position, *total = problem_.total + position;
    A *weighed = sums, *shares = sums + columns;
    column_peaks(x, problem_.classes, problem_.inner, columns, peak);
    std::fill_n(weighed, kind == Kind::hard ? 0 : 2 * columns, A{0});
    column_totals(
        x, problem_.classes, problem_.inner, columns, peak, total,
        [=, this]<int lanes>(int64_t c, int64_t i, const auto& value, const auto&, Lanes<lanes>)
            PYDL_INLINE_BODY {
              if constexpr (kind != Kind::hard) {
                using V = Vec<A, lanes>;
                const V share =
                    problem_.template share<kind, lanes>(c, element + c * problem_.inner + i);
                store_vec<lanes>(V(load_vec<lanes>(weighed + i) + share * value), weighed + i);
                store_vec<lanes>(V(load_vec<lanes>(shares + i) + share), shares + i);
              }
            });
    A logs[64];
    for (int64_t from = 0; from < columns; from += 64) {
      const int64_t count = std::min<int64_t>(64, columns - from);
      for_vectors_once<A>(count, [&]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
        store_vec<lanes>(log_positive<lanes, A>(load_vec<lanes>(total + from + i)), logs + i);
      });
      for (int64_t i = from; i < from + count; ++i) {
        loss(position + i, logs[i - from], kind == Kind::hard ? A{0} : weighed[i],
             kind == Kind::hard ? A{0} : shares[i], x + i, problem_.inner, partial);
      }
    }
  }

  const CrossEntropyForward& args_;
  const Problem<T> problem_;
  Missing missing_;
};

template <Kind kind, class T>
class Backward {
  using A = accumulate_t<T>;

 public:
  Backward(const CrossEntropyBackward& args, int64_t threads)
      : args_(args),
        problem_(args),
        grad_x_(static_cast<T*>(args.grad_x.data)),
        streams_(worth_streaming<T>(args.x.numel())) {
    const int64_t tasks = problem_.tasks();
    const int64_t team = team_size(tasks, args.x.numel(), threads);
    const Scratch<A> sums(team, 3 * problem_.task_positions());
    const Scratch<Code<A>> codes(team, problem_.task_positions());
    share_out(tasks, team, [&](int64_t member, int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        problem_.run(
            task, [&](int64_t row, auto lanes) { row_gradient(row, lanes); },
            [&](int64_t position, int64_t element, int64_t columns) {
              block_gradient(position, element, columns, sums.of(member), codes.of(member));
            });
      }
    });
    if constexpr (kind != Kind::soft) missing_.raise(problem_.target);
  }

 private:
  // What multiplies the terms of grad_x: exp(x - peak), w q', and 1 at the target's class.
  struct Factors {
    A exponential, share, hit;
    int64_t t;
  };

  PYDL_INLINE Factors factors(int64_t position, A shares) {
    const T* grad_loss = static_cast<const T*>(args_.grad_loss.data);
    const bool each = args_.criterion.reduction == Reduction::none;
    A g = static_cast<A>(grad_loss[each ? position : 0]);
    g /= *static_cast<const A*>(args_.divisor.data);
    Factors f{0, g, 0, -1};
    if constexpr (kind != Kind::soft) {
      f.t = problem_.class_of(position, missing_);
      if (f.t < 0) {
        f.share = g = 0;
      } else {
        f.hit = g * problem_.kept * problem_.weight()[f.t];
        shares = problem_.kept * problem_.weight()[f.t] +
                 (kind == Kind::smooth ? problem_.spread * problem_.weights_sum : A{0});
      }
    }
    f.exponential = g * shares / problem_.total[position];
    return f;
  }

  template <int lanes>
  PYDL_INLINE void row_gradient(int64_t row, Lanes<lanes>) {
    const int64_t element = row * problem_.classes;
    const T* x = problem_.x + element;
    T* grad_x = grad_x_ + element;
    const A peak = problem_.peak[row];
    A shares = 0;
    if constexpr (kind == Kind::soft) {
      RowSum<lanes, A> sums;
      for_row<lanes>(problem_.classes, [&](int64_t c, auto last, int skipped) PYDL_INLINE_BODY {
        const Vec<A, lanes> share = problem_.template row_share<kind, lanes>(c, element);
        sums.add(share, last, skipped);
      });
      shares = sums.total();
    }
    const Factors f = factors(row, shares);
    const auto gradient = [&]<int some>(int64_t c, Lanes<some>) PYDL_INLINE_BODY {
      Vec<A, some> value = exp_nonpositive<some, A>(load_vec<some>(x + c) - peak) * f.exponential;
      if constexpr (kind != Kind::hard)
        value -= problem_.template row_share<kind, some>(c, element) * f.share;
      return value;
    };
    for_row<lanes>(problem_.classes, [&](int64_t c, auto, int) PYDL_INLINE_BODY {
      store_vec<lanes>(gradient(c, Lanes<lanes>{}), grad_x + c);
    });
    if (f.t >= 0) grad_x[f.t] = T(gradient(f.t, Lanes<1>{}) - f.hit);
  }

  void block_gradient(int64_t position, int64_t element, int64_t columns, A* sums, Code<A>* codes) {
    const int64_t step = problem_.inner;
    A *exponential = sums, *share = sums + columns, *hit = sums + 2 * columns;
    if constexpr (kind == Kind::soft) {
      std::fill_n(exponential, columns, A{0});
      for (int64_t c = 0; c < problem_.classes; ++c) {
        for_vectors_once<A>(columns, [=, this]<int lanes>(int64_t i,
                                                          Lanes<lanes>) PYDL_INLINE_BODY {
          const Vec<A, lanes> of = problem_.template share<kind, lanes>(c, element + c * step + i);
          store_vec<lanes>(Vec<A, lanes>(load_vec<lanes>(exponential + i) + of), exponential + i);
        });
      }
    }
    for (int64_t i = 0; i < columns; ++i) {
      const Factors f = factors(position + i, kind == Kind::soft ? exponential[i] : A{0});
      exponential[i] = f.exponential;
      share[i] = f.share;
      hit[i] = f.hit;
      codes[i] = static_cast<Code<A>>(f.t);
    }
    const A* peak = problem_.peak + position;
    for (int64_t c = 0; c < problem_.classes; ++c) {
      const T* x = problem_.x + element + c * step;
      write_row(grad_x_ + element + c * step, streams_, [&](auto* out) PYDL_INLINE_BODY {
        for_vectors_once<A>(
            columns, [=, this]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
              using V = Vec<A, lanes>;
              using I = Vec<Code<A>, lanes>;
              V value = load_vec<lanes>(x + i) - load_vec<lanes>(peak + i);
              value = exp_nonpositive<lanes, A>(value) * load_vec<lanes>(exponential + i);
              if constexpr (kind != Kind::hard) {
                value -= problem_.template share<kind, lanes>(c, element + c * step + i) *
                         load_vec<lanes>(share + i);
              }
              if constexpr (kind != Kind::soft) {
                I code;
                std::memcpy(&code, codes + i, sizeof(code));
                value -= code == static_cast<Code<A>>(c) ? load_vec<lanes>(hit + i) : V{};
              }
              write_vec<lanes>(value, out + i);
            });
      });
    }
  }

  const CrossEntropyBackward& args_;
  const Problem<T> problem_;
  T* grad_x_;
  bool streams_;
  Missing missing_;
};

// Calls function.operator()<kind, T>().
template <class Arguments, class Function>
void dispatch(const Arguments& args, Function&& function) {
  dispatch_floating(args.x.dtype, "cross_entropy", [&]<class T>(T) {
    if (args.target.dtype != DType::int64) return function.template operator()<Kind::soft, T>();
    if (args.criterion.label_smoothing > 0) return function.template operator()<Kind::smooth, T>();
    function.template operator()<Kind::hard, T>();
  });
}

}  // namespace

void cross_entropy_forward(const CrossEntropyForward& args, int64_t threads) {
  dispatch(args, [&]<Kind kind, class T>() { Forward<kind, T>(args, threads); });
}

void cross_entropy_backward(const CrossEntropyBackward& args, int64_t threads) {
  dispatch(args, [&]<Kind kind, class T>() { Backward<kind, T>(args, threads); });
}

}  // namespace pydl::cpu::PYDL_ISA
