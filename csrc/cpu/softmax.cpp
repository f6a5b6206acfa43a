// Softmax and log softmax along one axis, forward and backward (definition in ../softmax.h).
//
// A task is a row where the axis is innermost (the classes of channels-last pixels), else a block
// of columns side by side (pixels of contiguous maps): vectors run along the row or across the
// columns, and nothing is transposed.
//
// Bytes: x read, y written once; backward grad_y and y read, grad_x written once: a row or a block
// is small enough to be found in a cache by the later passes. Operations: one exponential per
// element, about 15 vector instructions.
#include "../softmax.h"

#include "parallel.h"
#include "softmax_columns.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// A row of `count` vectors, the last moved back, that stay in registers: what a vector stores and
// another that overlaps it loads again takes longer than the arithmetic.
template <bool log, int lanes, int count, class T>
void forward_short_row(const T* x, T* y, int64_t size) {
  using A = accumulate_t<T>;
  using V = Vec<A, lanes>;
  const auto first = [=](int block) { return block < count - 1 ? block * lanes : size - lanes; };
  V values[count];
  V most = V{} - std::numeric_limits<A>::infinity();
  for (int block = 0; block < count; ++block) {
    values[block] = load_vec<lanes>(x + first(block));
    most = values[block] > most ? values[block] : most;
  }
  const A peak = max_lanes<lanes, A>(most);
  V sums{};
  for (int block = 0; block < count; ++block) {
    values[block] -= peak;
    const V e = exp_nonpositive<lanes, A>(values[block]);
    if constexpr (!log) values[block] = e;
    sums += block < count - 1 ? e : without<lanes, A>(e, static_cast<int>(count * lanes - size));
  }
  const A total = sum_lanes<lanes, A>(sums);
  const A scale = log ? log_positive<1, A>(total) : A{1} / total;
  for (int block = 0; block < count; ++block)
    store_vec<lanes>(log ? V(values[block] - scale) : V(values[block] * scale), y + first(block));
}

template <bool log, int lanes, class T>
void forward_long_row(const T* x, T* y, accumulate_t<T>* kept, int64_t size) {
  using A = accumulate_t<T>;
  if constexpr (std::is_same_v<T, A>) kept = y;
  const A peak = row_peak<lanes>(x, size);
  const A total =
      row_total<lanes>(x, size, peak, [=](int64_t first, const auto& e) PYDL_INLINE_BODY {
        if constexpr (!log) store_vec<lanes>(e, kept + first);
      });
  const A scale = log ? log_positive<1, A>(total) : A{1} / total;
  for_vectors_once<A>(size, [=]<int some>(int64_t i, Lanes<some>) PYDL_INLINE_BODY {
    if constexpr (log) {
      store_vec<some>((load_vec<some>(x + i) - peak) - scale, y + i);
    } else {
      store_vec<some>(load_vec<some>(kept + i) * scale, y + i);
    }
  });
}

template <bool log, int lanes, class T>
PYDL_INLINE void forward_row(const T* x, T* y, accumulate_t<T>* kept, int64_t size) {
  switch ((size + lanes - 1) / lanes) {
    case 1:
      return forward_short_row<log, lanes, 1>(x, y, size);
    case 2:
      return forward_short_row<log, lanes, 2>(x, y, size);
    case 3:
      return forward_short_row<log, lanes, 3>(x, y, size);
    case 4:
      return forward_short_row<log, lanes, 4>(x, y, size);
    default:
      return forward_long_row<log, lanes>(x, y, kept, size);
  }
}

template <bool log, int lanes, class T>
void backward_row(const T* grad_y, const T* y, T* grad_x, int64_t size) {
  using A = accumulate_t<T>;
  RowSum<lanes, A> sums;
  for_row<lanes>(size, [&](int64_t first, auto last, int skipped) PYDL_INLINE_BODY {
    Vec<A, lanes> term = load_vec<lanes>(grad_y + first);
    if constexpr (!log) term *= load_vec<lanes>(y + first);
    sums.add(term, last, skipped);
  });
  const A sum = sums.total();
  for_row<lanes>(size, [=](int64_t first, auto, int) PYDL_INLINE_BODY {
    const Vec<A, lanes> grad = load_vec<lanes>(grad_y + first), value = load_vec<lanes>(y + first);
    if constexpr (log) {
      store_vec<lanes>(grad - exp_nonpositive<lanes, A>(value) * sum, grad_x + first);
    } else {
      store_vec<lanes>((grad - sum) * value, grad_x + first);
    }
  });
}

// `kept` has room for classes * width numbers, `rows` for two of width.
template <bool log, class T>
void forward_columns(const T* x, T* y, accumulate_t<T>* kept, accumulate_t<T>* rows,
                     int64_t classes, int64_t step, int64_t width, bool streams) {
  using A = accumulate_t<T>;
  A *peak = rows, *scale = rows + width;
  column_peaks(x, classes, step, width, peak);
  column_totals(x, classes, step, width, peak, scale,
                [=]<int lanes>(int64_t c, int64_t i, const auto&, const auto& e, Lanes<lanes>)
                    PYDL_INLINE_BODY {
                      if constexpr (!log) store_vec<lanes>(e, kept + c * width + i);
                    });
  for_vectors_once<A>(width, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
    const Vec<A, lanes> total = load_vec<lanes>(scale + i);
    store_vec<lanes>(log ? log_positive<lanes, A>(total) : Vec<A, lanes>(A{1} / total), scale + i);
  });
  for (int64_t c = 0; c < classes; ++c) {
    write_row(y + c * step, streams, [&](auto* out) PYDL_INLINE_BODY {
      for_vectors_once<A>(width, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
        const Vec<A, lanes> by = load_vec<lanes>(scale + i);
        if constexpr (log) {
          const Vec<A, lanes> value = load_vec<lanes>(x + c * step + i);
          write_vec<lanes>(Vec<A, lanes>((value - load_vec<lanes>(peak + i)) - by), out + i);
        } else {
          write_vec<lanes>(Vec<A, lanes>(load_vec<lanes>(kept + c * width + i) * by), out + i);
        }
      });
    });
  }
}

template <bool log, class T>
void backward_columns(const T* grad_y, const T* y, T* grad_x, accumulate_t<T>* sum, int64_t classes,
                      int64_t step, int64_t width, bool streams) {
  using A = accumulate_t<T>;
  std::fill_n(sum, width, A{0});
  for (int64_t c = 0; c < classes; ++c) {
    for_vectors_once<A>(width, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
      Vec<A, lanes> term = load_vec<lanes>(grad_y + c * step + i);
      if constexpr (!log) term *= load_vec<lanes>(y + c * step + i);
      store_vec<lanes>(Vec<A, lanes>(load_vec<lanes>(sum + i) + term), sum + i);
    });
  }
  for (int64_t c = 0; c < classes; ++c) {
    write_row(grad_x + c * step, streams, [&](auto* out) PYDL_INLINE_BODY {
      for_vectors_once<A>(width, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
        using V = Vec<A, lanes>;
        const V grad = load_vec<lanes>(grad_y + c * step + i), by = load_vec<lanes>(sum + i);
        const V value = load_vec<lanes>(y + c * step + i);
        if constexpr (log) {
          write_vec<lanes>(V(grad - exp_nonpositive<lanes, A>(value) * by), out + i);
        } else {
          write_vec<lanes>(V((grad - by) * value), out + i);
        }
      });
    });
  }
}

// Rows, or blocks of columns, shared out among threads. on_row(first, lanes, member) works on the
// row that begins at element `first`, on_block(first, width, member) on columns.
template <class T, class OnRow, class OnBlock>
void share_columns(const Tensor& x, int64_t threads, OnRow on_row, OnBlock on_block) {
  const int64_t classes = x.size[1], inner = x.size[4], outer = x.size[0];
  if (inner == 1) {
    return share_out(outer, team_size(outer, x.numel(), threads),
                     [&](int64_t member, int64_t begin, int64_t end) {
                       with_lanes<accumulate_t<T>>(classes, [&](auto lanes) {
                         for (int64_t row = begin; row < end; ++row)
                           on_row(row * classes, lanes, member);
                       });
                     });
  }
  const int64_t width = block_width(classes, inner), blocks = (inner + width - 1) / width;
  share_out(outer * blocks, team_size(outer * blocks, x.numel(), threads),
            [&](int64_t member, int64_t begin, int64_t end) {
              for (int64_t block = begin; block < end; ++block) {
                const int64_t from = block % blocks * width;
                on_block(block / blocks * classes * inner + from, std::min(width, inner - from),
                         member);
              }
            });
}

template <bool log, class T>
void forward(const SoftmaxForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  const int64_t classes = args.x.size[1], inner = args.x.size[4];
  const int64_t width = block_width(classes, inner);
  const bool streams = worth_streaming<T>(args.x.numel());
  const int64_t team = team_size(args.x.numel() / classes, args.x.numel(), threads);
  const Scratch<A> kept(team, log ? 0 : classes * width), rows(team, 2 * width);
  share_columns<T>(
      args.x, threads,
      [&]<int lanes>(int64_t first, Lanes<lanes>, int64_t member) {
        forward_row<log, lanes>(x + first, y + first, kept.of(member), classes);
      },
      [&](int64_t first, int64_t columns, int64_t member) {
        forward_columns<log>(x + first, y + first, kept.of(member), rows.of(member), classes, inner,
                             columns, streams);
      });
}

template <bool log, class T>
void backward(const SoftmaxBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const T *grad_y = static_cast<const T*>(args.grad_y.data),
          *y = static_cast<const T*>(args.y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  const int64_t classes = args.y.size[1], inner = args.y.size[4];
  const bool streams = worth_streaming<T>(args.y.numel());
  const int64_t team = team_size(args.y.numel() / classes, args.y.numel(), threads);
  const Scratch<A> sums(team, block_width(classes, inner));
  share_columns<T>(
      args.y, threads,
      [&]<int lanes>(int64_t first, Lanes<lanes>, int64_t) {
        backward_row<log, lanes>(grad_y + first, y + first, grad_x + first, classes);
      },
      [&](int64_t first, int64_t columns, int64_t member) {
        backward_columns<log>(grad_y + first, y + first, grad_x + first, sums.of(member), classes,
                              inner, columns, streams);
      });
}

}  // namespace

void softmax_forward(const SoftmaxForward& args, int64_t threads) {
  dispatch_floating(args.x.dtype, "softmax", [&]<class T>(T) {
    args.log ? forward<true, T>(args, threads) : forward<false, T>(args, threads);
  });
}

void softmax_backward(const SoftmaxBackward& args, int64_t threads) {
  dispatch_floating(args.y.dtype, "softmax", [&]<class T>(T) {
    args.log ? backward<true, T>(args, threads) : backward<false, T>(args, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
