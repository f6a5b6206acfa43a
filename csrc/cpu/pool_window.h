// Where pooling windows lie on an axis, and how a padded line of a map is laid out so that a
// window's taps are contiguous.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../pool.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

// One axis: window `o` of `outputs` has its tap `t` at o * stride - padding + t * dilation of
// `inputs`.
struct Axis {
  int64_t inputs, outputs, kernel, stride, padding, dilation;

  Axis(const PoolWindow& window, const Tensor& x, const Tensor& y, int spatial)
      : inputs(x.size[2 + spatial]),
        outputs(y.size[2 + spatial]),
        kernel(window.kernel[spatial]),
        stride(window.stride[spatial]),
        padding(window.padding[spatial]),
        dilation(window.dilation[spatial]) {}

  int64_t start(int64_t o) const { return o * stride - padding; }

  // Taps [first, last) of window o lie inside the input.
  struct Taps {
    int64_t first, last;
  };
  Taps taps(int64_t o) const {
    const int64_t start = this->start(o);
    if (start >= 0 && start + (kernel - 1) * dilation < inputs) return {0, kernel};
    const int64_t first = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
    const int64_t last = start >= inputs ? 0 : (inputs - start + dilation - 1) / dilation;
    return {std::min(first, kernel - 1), std::min(last, kernel)};
  }

  // Windows [first, last) lie inside the input with all their taps.
  Taps full() const {
    const int64_t room = inputs - 1 - (kernel - 1) * dilation + padding;
    const int64_t first = std::min((padding + stride - 1) / stride, outputs),
                  last = room < 0 ? 0 : room / stride + 1;
    return {first, std::clamp(last, first, outputs)};
  }

  // Whether all windows do.
  bool whole() const { return full().first == 0 && full().last == outputs; }

  // Windows [first, last) are all that hold one of the inputs [input, input + count).
  Taps holding(int64_t input, int64_t count) const {
    const int64_t first = std::max<int64_t>(input + padding - (kernel - 1) * dilation, 0);
    return {(first + stride - 1) / stride,
            std::min((input + count - 1 + padding) / stride + 1, outputs)};
  }
  // The most that hold `count` neighbours.
  int64_t most_holding(int64_t count) const {
    return ((kernel - 1) * dilation + count - 1) / stride + 1;
  }

  // Whether there is one window, which holds the whole axis and no padding.
  bool global() const { return outputs == 1 && padding == 0 && dilation == 1 && kernel == inputs; }

  // The taps that an average over window o counts.
  int64_t counted(int64_t o, bool count_include_pad) const {
    const int64_t start = this->start(o), end = start + kernel;
    if (count_include_pad) return std::min(end, inputs + padding) - start;
    return std::min(end, inputs) - std::max<int64_t>(start, 0);
  }
};

// The transposed question: the windows that hold each input of an axis, in the order of the
// windows.
class Cover {
 public:
  struct Entry {
    int64_t window, tap;
  };

  explicit Cover(const Axis& axis) : begin_(axis.inputs + 1) {
    for_each(axis, [&](int64_t input, int64_t, int64_t) { ++begin_[input + 1]; });
    for (int64_t input = 0; input < axis.inputs; ++input) {
      most_ = std::max(most_, begin_[input + 1]);
      begin_[input + 1] += begin_[input];
    }
    entries_.resize(begin_[axis.inputs]);
    std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
    for_each(axis, [&](int64_t input, int64_t window, int64_t tap) {
      entries_[next[input]++] = {window, tap};
    });
  }

  const Entry* begin(int64_t input) const { return entries_.data() + begin_[input]; }
  const Entry* end(int64_t input) const { return entries_.data() + begin_[input + 1]; }
  int64_t most() const { return most_; }

 private:
  template <class Visit>
  static void for_each(const Axis& axis, Visit visit) {
    for (int64_t window = 0; window < axis.outputs; ++window) {
      const auto [first, last] = axis.taps(window);
      for (int64_t tap = first; tap < last; ++tap) {
        visit(axis.start(window) + tap * axis.dilation, window, tap);
      }
    }
  }

  std::vector<int64_t> begin_;
  std::vector<Entry> entries_;
  int64_t most_ = 0;
};

// A padded line, its columns dealt out to `stride` parts: column q = w + padding lies in part
// q % stride at q / stride. Tap t of window o is column o * stride + t * dilation, so over all
// windows it is a contiguous run of one part:
//
//   line   [ p | x0 x1 x2 x3 x4 x5 x6 ... | p p ]        stride 2, padding 1
//   part 0 [ p   x1 x3 x5 ...  ]     tap 0 of windows 0, 1, 2, ...; tap 2 one further
//   part 1 [ x0  x2 x4 x6 ...  ]     tap 1
//
// A strided access, which no instruction set does well, happens once per line and not once per tap.
// With stride 1 the line is its only part. Parts are padded to whole blocks beyond the last tap.
struct Columns {
  int64_t stride, padding, inputs;
  int64_t part_size;
  int64_t split_size,
      join_size;  // what of a part windows read, and what of it inputs fill, in whole blocks

  explicit Columns(const Axis& axis)
      : stride(axis.stride), padding(axis.padding), inputs(axis.inputs) {
    const int64_t reach = (axis.kernel - 1) * axis.dilation / stride;
    const int64_t last = (padding + inputs - 1) / stride;
    part_size = whole_blocks(std::max(axis.outputs, last + 1)) + whole_blocks(reach);
    split_size = whole_blocks(axis.outputs + reach);
    join_size = whole_blocks(last + 1);
  }

  int64_t line_size() const { return stride * part_size; }
  // Where the run of each tap starts in the parts.
  std::vector<int64_t> tap_offsets(const Axis& axis) const {
    std::vector<int64_t> offsets(axis.kernel);
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      const int64_t column = tap * axis.dilation;
      offsets[tap] = column % stride * part_size + column / stride;
    }
    return offsets;
  }

  template <class A>
  void split(const A* line, A* parts) const {
    if (stride == 2) {
      A *even = parts, *odd = parts + part_size;
      for_whole_blocks<A>(split_size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          even[first + lane] = line[2 * (first + lane)];
          odd[first + lane] = line[2 * (first + lane) + 1];
        }
      });
      return;
    }
    for (int64_t part = 0; part < stride; ++part) {
      for (int64_t i = 0; i < split_size; ++i)
        parts[part * part_size + i] = line[i * stride + part];
    }
  }

  // The same from the line as it lies in memory, between the padding that the parts hold already.
  // `line` is room for a line.
  template <class T>
  void load_split(const T* row, accumulate_t<T>* line, accumulate_t<T>* parts) const {
    if (stride == 1) return load_row(row, parts + padding, inputs);
    if constexpr (std::is_same_v<T, accumulate_t<T>>) {
      if (stride == 2) {
        T *even = parts, *odd = parts + part_size;
        const int64_t begin = (padding + 1) / 2, pairs = (inputs - padding % 2) / 2,
                      end = begin + pairs;
        const T* from = row + padding % 2;
        if (padding % 2 == 1) odd[begin - 1] = row[0];
        if (from + 2 * pairs < row + inputs) even[end] = from[2 * pairs];
        return for_blocks<T>(pairs, [=]<int lanes>(int64_t first, Lanes<lanes>) {
          const T* pair = from + 2 * first;
          T *to_even = even + begin + first, *to_odd = odd + begin + first;
          PYDL_LANES
          for (int lane = 0; lane < lanes; ++lane) {
            to_even[lane] = pair[2 * lane];
            to_odd[lane] = pair[2 * lane + 1];
          }
        });
      }
    }
    load_row(row, line + padding, inputs);
    split(line, parts);
  }

  template <class A>
  void join(const A* parts, A* line) const {
    if (stride == 2) {
      const A *even = parts, *odd = parts + part_size;
      for_whole_blocks<A>(join_size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
        PYDL_LANES
        for (int lane = 0; lane < lanes; ++lane) {
          line[2 * (first + lane)] = even[first + lane];
          line[2 * (first + lane) + 1] = odd[first + lane];
        }
      });
      return;
    }
    for (int64_t part = 0; part < stride; ++part) {
      for (int64_t i = 0; i < join_size; ++i) line[i * stride + part] = parts[part * part_size + i];
    }
  }
};

// The same for the transposed pass: a line of the windows' gradients lies between zeros, so that
// part `p` of an input line is a sum of contiguous runs, one for each tap t with
// t * dilation % stride == p, which starts t * dilation / stride before.
struct WindowLine {
  int64_t lead, size,
      inputs;  // zeros before the first window; length of the line; columns of a part

  struct Tap {
    int64_t number, back;
  };
  std::vector<std::vector<Tap>> taps_of_part;

  WindowLine(const Axis& axis, const Columns& columns)
      : lead((axis.kernel - 1) * axis.dilation / axis.stride),
        inputs((columns.padding + columns.inputs - 1) / columns.stride + 1),
        taps_of_part(columns.stride) {
    size = lead + whole_blocks(std::max(inputs, axis.outputs));
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      const int64_t column = tap * axis.dilation;
      taps_of_part[column % axis.stride].push_back({tap, column / axis.stride});
    }
  }
};

// Lines are taken through each step of a kernel in batches: a step that reads what the step before
// has just stored, at other places of the vector, waits for those stores to reach the cache; a
// batch later they have.
inline int64_t batch_of_lines(const Axis& width) {
  return std::clamp<int64_t>(512 / width.inputs, 1, 8);
}

// The lines of a map in memory order, with their place. A line holds one d and h: of a plane (N, C,
// ...), where a plane is one n and c, or of all channels of one n (channels last).
struct Lines {
  int64_t planes, depth, height;
  int64_t number = 0, plane = 0, d = 0, h = 0;

  explicit Lines(const Tensor& map, bool channels_last = false)
      : planes(channels_last ? map.size[0] : map.size[0] * map.size[1]),
        depth(map.size[2]),
        height(map.size[3]) {}

  int64_t count() const { return planes * depth * height; }
  Lines from(int64_t first) const {
    Lines at = *this;
    at.number = first, at.h = first % height, at.d = first / height % depth,
    at.plane = first / height / depth;
    return at;
  }
  // By lines of the same plane and d.
  void advance(int64_t count) {
    number += count;
    if ((h += count) < height) return;
    h = 0;
    if (++d < depth) return;
    d = 0, ++plane;
  }
  void next() { advance(1); }
};

// How many lines from `at` on, at most `most`, have windows that lie in the input with all their
// taps in h; 1 if not even `at` has: what is done for one line can be done for that many with one
// list of its taps.
inline int64_t lines_alike(const Axis::Taps& full, const Lines& at, int64_t most) {
  return at.h >= full.first && at.h < full.last ? std::min(most, full.last - at.h) : 1;
}

// Calls visit(line, tap_d, tap_h) with the number of each line of the input that the windows of the
// output line `at` reach, in the order of the taps.
template <class Visit>
PYDL_INLINE void for_lines_of_windows(const Axis& depth, const Axis& height, const Lines& at,
                                      Visit visit) {
  const auto [first_d, last_d] = depth.taps(at.d);
  const auto [first_h, last_h] = height.taps(at.h);
  for (int64_t tap_d = first_d; tap_d < last_d; ++tap_d) {
    const int64_t plane = at.plane * depth.inputs + depth.start(at.d) + tap_d * depth.dilation;
    int64_t line = plane * height.inputs + height.start(at.h) + first_h * height.dilation;
    for (int64_t tap_h = first_h; tap_h < last_h; ++tap_h, line += height.dilation)
      visit(line, tap_d, tap_h);
  }
}

// Places where the same is done, each a step further than the one before.
struct Places {
  int64_t count = 1, from_step = 0, to_step = 0;
};

// A block of rows from `offset` on, folded in this order.
template <int fixed, int lanes, class T, class Down>
PYDL_INLINE Vec<accumulate_t<T>, lanes> fold_down(const T* const* rows, int64_t count,
                                                  int64_t offset, Down down) {
  Vec<accumulate_t<T>, lanes> folded = down.first(load_vec<lanes>(rows[0] + offset));
  for_steps<fixed>(1, count, [&](int64_t row) PYDL_INLINE_BODY {
    folded = down(folded, load_vec<lanes>(rows[row] + offset));
  });
  return folded;
}

// Finishes what was folded for places [first, first + lanes) and stores it there. finish may look
// something up, so it takes one lane.
template <int lanes, class A, class Finish, class To>
PYDL_INLINE void store_finished(const Vec<A, lanes>& folded, Finish finish, int64_t first, To* to) {
  A finished[lanes];
  std::memcpy(finished, &folded, sizeof(folded));
  PYDL_LANES
  for (int lane = 0; lane < lanes; ++lane) finished[lane] = finish(finished[lane], first + lane);
  store<lanes>(finished, to + first);
}

// A fold of rows: out[i] is the fold of rows[0][i], rows[1][i], ... in this order, begun by
// fold.first and finished by finish(folded, i). At least one row. Loads and stores convert. The fold
// takes vectors; finish, which may look something up, one lane.
template <class Fold, class From, class To, class Finish>
inline void fold_rows(const From* const* rows, int64_t count, To* out, int64_t size, Finish finish,
                      Places places = {}, Fold fold = {}) {
  using A = accumulate_t<From>;
  with_count<A, 1, 2, 3, 4, 9>(count, [=]<int fixed>(Lanes<fixed>) {
    for (int64_t place = 0; place < places.count; ++place) {
      const int64_t offset = place * places.from_step;
      To* to = out + place * places.to_step;
      for_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) PYDL_INLINE_BODY {
        store_finished<lanes, A>(fold_down<fixed, lanes>(rows, count, offset + first, fold), finish,
                                 first, to);
      });
    }
  });
}

struct Sum {
  template <class A>
  A first(A value) const {
    return value;
  }
  template <class A>
  A operator()(A sum, A value) const {
    return sum + value;
  }
};

// Whether the windows are three columns that begin at every other one.
inline bool by_threes(const Axis& axis) {
  return axis.kernel == 3 && axis.stride == 2 && axis.dilation == 1;
}

// The columns of as many windows as a vector has lanes.
template <int lanes, class A>
struct Threes {
  Vec<A, lanes> first, second, third;
};

// From 2 * lanes + 1 columns: the first two vectors of them and the one that they end with, whose
// last lane is the third column of the last window.
template <int lanes, class A>
PYDL_INLINE Threes<lanes, A> threes_of(const Vec<A, lanes>& low, const Vec<A, lanes>& high,
                                       const Vec<A, lanes>& end) {
  if constexpr (lanes == 1) {
    return {low, high, end};
  } else {
    Threes<lanes, A> threes;
#if defined(__GNUC__) && !defined(__clang__)
    using I = Vec<Code<A>, lanes>;
    I firsts{}, seconds{}, thirds{};
    for (int lane = 0; lane < lanes; ++lane)
      firsts[lane] = 2 * lane, seconds[lane] = 2 * lane + 1, thirds[lane] = lane + 1;
    thirds[lanes - 1] = 2 * lanes - 1;
    threes.first = __builtin_shuffle(low, high, firsts);
    threes.second = __builtin_shuffle(low, high, seconds);
    threes.third = __builtin_shuffle(threes.first, end, thirds);
#else
    const auto column = [&](int i) { return i < lanes ? low[i] : high[i - lanes]; };
    for (int lane = 0; lane < lanes; ++lane) {
      threes.first[lane] = column(2 * lane), threes.second[lane] = column(2 * lane + 1);
      threes.third[lane] = lane + 1 < lanes ? column(2 * lane + 2) : end[lane];
    }
#endif
    return threes;
  }
}

// The folds of such windows, `lanes` of them, over the columns from here.
template <int lanes, class A, class Fold>
PYDL_INLINE Vec<A, lanes> fold_threes(const A* columns, Fold fold) {
  const auto [first, second, third] =
      threes_of<lanes, A>(load_vec<lanes>(columns), load_vec<lanes>(columns + lanes),
                          load_vec<lanes>(columns + lanes + 1));
  return fold(fold(first, second), third);
}

struct Unchanged {
  template <class A>
  A operator()(A value, int64_t) const {
    return value;
  }
};

}  // namespace pydl::cpu::PYDL_ISA
