// Response normalisation within a channel, forward and backward (definition in ../spatial_norm.h,
// arithmetic of a row in norm_rows.h).
//
// A box of positions is a box of rows, once each row has been summed along itself: so every line of
// x is squared and added to its own displacements, once, and a box is `size` of those sums (size^2
// of them in a volume). The last `size` lines' sums are kept in rings, which stay in the caches. A
// displacement by one position is one element in (N, C, D, H, W) and C elements in channels last,
// and that is all that tells the layouts apart: a line there is W * C elements, and all channels
// are walked at once.
//
// Backward differentiates the line that the box below has just completed, sums indirect along it,
// and collects the line whose transposed box is then complete.
//
// A task is a map (n, c), or all channels of n, and a run of its lines. In a volume each depth goes
// through the lines of its box by itself, so that a depth's sums are made `size` times over.
//
// Bytes: forward x read, y written once; backward x and grad_y read, grad_x written once.
#include "../spatial_norm.h"

#include "norm_rows.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// Elements at a time: by the time a line is read displaced, its stores have left the store queue.
constexpr int64_t kBatch = 1024;

struct Geometry {
  int64_t maps, depth, lines, length;  // of a line, in elements
  int64_t step;                        // from a position of a line to the next
  int64_t below[2], above[2];          // of the box, along depth and along the lines
  int64_t left, right;                 // of the box, along a line
  int64_t bands;                       // runs of lines a map is cut into
  int64_t batch;                       // lines that go through each step together

  Geometry(const Tensor& x, int64_t size, bool channels_last, int64_t threads)
      : maps(x.size[0] * (channels_last ? 1 : x.size[1])),
        depth(x.size[2]),
        lines(x.size[3]),
        step(channels_last ? x.size[1] : 1) {
    length = x.size[4] * step;
    const auto reach = [](int64_t wanted, int64_t axis) { return std::min(wanted, axis - 1); };
    for (int axis = 0; axis < 2; ++axis) {
      below[axis] = reach(size / 2, x.size[2 + axis]);
      above[axis] = reach((size - 1) / 2, x.size[2 + axis]);
    }
    left = reach(size / 2, x.size[4]), right = reach((size - 1) / 2, x.size[4]);
    // A map is cut only where there are fewer maps than threads, and into runs of no less than the
    // lines that neighbours both sum.
    const int64_t least = below[1] + above[1] + 1;
    batch = std::clamp<int64_t>(kBatch / length, 1, 16);
    bands =
        std::clamp<int64_t>((threads + maps - 1) / maps, 1, std::max<int64_t>(lines / least, 1));
  }

  int64_t window(int axis) const { return below[axis] + above[axis] + 1; }
  int64_t padded() const { return length + (left + right) * step; }
  int64_t pitch() const { return whole_blocks(length); }
  // Lines in a ring: those of a box of the batch's first line to that of its last.
  int64_t ring() const { return window(1) + batch - 1; }
};

// Lines summed along themselves: the last `ring` lines of each of the last `depths` depths.
template <class A>
class LineSums {
 public:
  LineSums(A* memory, int64_t depths, const Geometry& g)
      : memory_(memory), depths_(depths), ring_(g.ring()), pitch_(g.pitch()) {}
  static int64_t size(int64_t depths, const Geometry& g) { return depths * g.ring() * g.pitch(); }
  A* at(int64_t depth, int64_t line) const {
    return memory_ + (depth % depths_ * ring_ + line % ring_) * pitch_;
  }
  // The lines [first, last) of the depths [from, to), as rows.
  int64_t rows(int64_t from, int64_t to, int64_t first, int64_t last, const A** rows) const {
    int64_t count = 0;
    for (int64_t d = from; d < to; ++d) {
      for (int64_t line = first; line < last; ++line) rows[count++] = at(d, line);
    }
    return count;
  }

 private:
  A* memory_;
  int64_t depths_, ring_, pitch_;
};

// to[i] = sum over t of padded[i + t * step]
template <class A>
void sum_along(const Geometry& g, const A* padded, const A** rows, A* to) {
  const int64_t window = g.left + g.right + 1;
  for (int64_t t = 0; t < window; ++t) rows[t] = padded + t * g.step;
  with_count<A, 3, 5>(window, [&]<int fixed>(Lanes<fixed>) {
    for_blocks<A>(g.length, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      A sum[lanes];
      sum_rows<fixed, lanes>(rows, window, first, sum, identity);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) to[first + lane] = sum[lane];
    });
  });
}

// A line in the type it is computed in: in place, or a copy.
template <class T>
const accumulate_t<T>* read(const T* line, accumulate_t<T>* copy, int64_t length) {
  if constexpr (kConverts<T>) {
    load_row(line, copy, length);
    return copy;
  } else {
    return line;
  }
}

// Calls task(member, map, first line, last line) for all of them.
template <class Task>
void for_tasks(const Geometry& g, int64_t team, const Task& task) {
  share_out(g.maps * g.bands, team, [&](int64_t member, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t band = i % g.bands;
      task(member, i / g.bands, g.lines * band / g.bands, g.lines * (band + 1) / g.bands);
    }
  });
}

// The squares of x, summed along lines as they are needed.
template <class T>
class SquareSums {
 public:
  using A = accumulate_t<T>;

  static int64_t size(const Geometry& g, int64_t depths) {
    return g.batch * g.padded() + g.pitch() + LineSums<A>::size(depths, g);
  }
  SquareSums(const Geometry& g, A* memory, int64_t depths)
      : g_(g),
        padded_(memory),
        copy_(memory + g.batch * g.padded()),
        sums_(copy_ + g.pitch(), depths, g) {
    std::fill_n(padded_, g.batch * g.padded(), A{0});
  }
  // Lines before `end` of the depths [from, to) of the map are wanted, those before `done` are
  // there; no more than a batch of them.
  void reach(const T* map, int64_t from, int64_t to, int64_t done, int64_t end, const A** rows) {
    for (int64_t d = from; d < to; ++d) {
      for (int64_t line = done; line < end; ++line) {
        const T* x = map + (d * g_.lines + line) * g_.length;
        square_row(read(x, copy_, g_.length), padded(line) + g_.left * g_.step, g_.length);
      }
      for (int64_t line = done; line < end; ++line)
        sum_along(g_, padded(line), rows, sums_.at(d, line));
    }
  }
  // The box of a line, as rows.
  int64_t box(int64_t d, int64_t line, const A** rows) const {
    return sums_.rows(
        std::max<int64_t>(d - g_.below[0], 0), std::min(d + g_.above[0] + 1, g_.depth),
        std::max<int64_t>(line - g_.below[1], 0), std::min(line + g_.above[1] + 1, g_.lines), rows);
  }

 private:
  A* padded(int64_t line) const { return padded_ + line % g_.batch * g_.padded(); }

  const Geometry& g_;
  A *padded_, *copy_;
  LineSums<A> sums_;
};

// Pointers to the rows of a box, or to the displacements of a line.
int64_t most_rows(const Geometry& g) {
  return std::max(g.window(0) * g.window(1), g.left + g.right + 1);
}

template <class T, class Exponent>
void forward(const SpatialNormForward& args, bool channels_last, int64_t threads) {
  using A = accumulate_t<T>;
  const Geometry g(args.x, args.size, channels_last, threads);
  const Scale<A, Exponent> of(args.rate, args.beta, args.k);

  const int64_t team = team_size(g.maps * g.bands, args.x.numel(), threads);
  const int64_t squares_size = SquareSums<T>::size(g, g.window(0));
  const Scratch<const A*> row_memory(team, most_rows(g));
  const Scratch<A> memory(team, squares_size + (kConverts<T> ? 2 * g.pitch() : 0));
  for_tasks(g, team, [&](int64_t member, int64_t map, int64_t begin, int64_t end) {
    const A** rows = row_memory.of(member);
    SquareSums<T> squares(g, memory.of(member), g.window(0));
    A* x_copy = memory.of(member) + squares_size;
    const int64_t offset = map * g.depth * g.lines * g.length;
    const T* x = static_cast<const T*>(args.x.data) + offset;
    T* y = static_cast<T*>(args.y.data) + offset;
    for (int64_t d = 0; d < g.depth; ++d) {
      const int64_t from = std::max<int64_t>(d - g.below[0], 0),
                    to = std::min(d + g.above[0] + 1, g.depth);
      int64_t done = std::max<int64_t>(begin - g.below[1], 0);
      for (int64_t line = begin; line < end; ++line) {
        while (done < std::min(line + g.above[1] + 1, g.lines)) {
          const int64_t wanted = std::min({done + g.batch, end + g.above[1], g.lines});
          squares.reach(x, from, to, done, wanted, rows);
          done = wanted;
        }
        const int64_t count = squares.box(d, line, rows), at = (d * g.lines + line) * g.length;
        const A* values = read(x + at, x_copy, g.length);
        write(y + at, g.length, x_copy + g.pitch(), [&](A* out) {
          normalise(of, rows, count, values, out, g.length, identity, NothingAhead());
        });
      }
    }
  });
}

template <class T, class Exponent>
void backward(const SpatialNormBackward& args, bool channels_last, int64_t threads) {
  using A = accumulate_t<T>;
  const Geometry g(args.x, args.size, channels_last, threads);
  const Scale<A, Exponent> of(args.rate, args.beta, args.k);
  // The transposed box of a depth takes from `depths` of them, whose boxes take from more.
  const int64_t depths = g.window(0), square_depths = std::min(2 * depths - 1, g.depth);

  const int64_t team = team_size(g.maps * g.bands, args.x.numel(), threads);
  const int64_t squares_size = SquareSums<T>::size(g, square_depths),
                indirect_size = LineSums<A>::size(depths, g), direct_size = LineSums<A>::size(1, g),
                padded_size = g.batch * g.padded();
  const Scratch<const A*> row_memory(team, most_rows(g));
  const Scratch<A> memory(team, squares_size + indirect_size + direct_size + padded_size +
                                    g.pitch() * (kConverts<T> ? 4 : 1));
  for_tasks(g, team, [&](int64_t member, int64_t map, int64_t begin, int64_t end) {
    const A** rows = row_memory.of(member);
    SquareSums<T> squares(g, memory.of(member), square_depths);
    A* at_indirect = memory.of(member) + squares_size;
    const LineSums<A> indirect(at_indirect, depths, g), direct(at_indirect + indirect_size, 1, g);
    A* padded = at_indirect + indirect_size + direct_size;  // transposed: `right` comes first
    A *unwanted = padded + padded_size, *x_copy = unwanted + g.pitch(),
      *grad_copy = x_copy + g.pitch(), *result = grad_copy + g.pitch();
    std::fill_n(padded, padded_size, A{0});
    const auto padded_line = [&](int64_t line) { return padded + line % g.batch * g.padded(); };
    const int64_t offset = map * g.depth * g.lines * g.length;
    const T* x = static_cast<const T*>(args.x.data) + offset;
    const T* grad_y = static_cast<const T*>(args.grad_y.data) + offset;
    T* grad_x = static_cast<T*>(args.grad_x.data) + offset;
    for (int64_t d = 0; d < g.depth; ++d) {
      const int64_t from = std::max<int64_t>(d - g.above[0], 0),
                    to = std::min(d + g.below[0] + 1, g.depth);
      const int64_t first = std::max<int64_t>(begin - g.above[1], 0), last = end + g.below[1];
      int64_t done = std::max<int64_t>(first - g.below[1], 0);
      // A batch of lines is differentiated, and those collected whose transposed boxes are then
      // complete, `below` lines behind.
      for (int64_t batch = first; batch < last; batch += g.batch) {
        const int64_t batch_end = std::min(batch + g.batch, last),
                      ahead_end = std::min(batch_end, g.lines);
        while (done < std::min(ahead_end + g.above[1], g.lines)) {
          const int64_t wanted = std::min({done + g.batch, ahead_end + g.above[1], g.lines});
          squares.reach(x, std::max<int64_t>(from - g.below[0], 0),
                        std::min(to + g.above[0], g.depth), done, wanted, rows);
          done = wanted;
        }
        for (int64_t near = from; near < to; ++near) {
          for (int64_t line = batch; line < ahead_end; ++line) {
            const int64_t count = squares.box(near, line, rows),
                          at = (near * g.lines + line) * g.length;
            const A* values = read(x + at, x_copy, g.length);
            const A* grads = read(grad_y + at, grad_copy, g.length);
            differentiate(of, rows, count, values, grads, near == d ? direct.at(0, line) : unwanted,
                          padded_line(line) + g.right * g.step, g.length, identity, NothingAhead());
          }
          for (int64_t line = batch; line < ahead_end; ++line)
            sum_along(g, padded_line(line), rows, indirect.at(near, line));
        }
        for (int64_t line = std::max(batch - g.below[1], begin); line < batch_end - g.below[1];
             ++line) {
          const int64_t count = indirect.rows(from, to, std::max<int64_t>(line - g.above[1], 0),
                                              std::min(line + g.below[1] + 1, g.lines), rows);
          const int64_t at = (d * g.lines + line) * g.length;
          const A* values = read(x + at, x_copy, g.length);
          write(grad_x + at, g.length, result, [&](A* out) {
            collect(of.slope, rows, count, values, direct.at(0, line), out, g.length,
                    NothingAhead());
          });
        }
      }
    }
  });
}

}  // namespace

void spatial_norm_forward(const SpatialNormForward& args, bool channels_last, int64_t threads) {
  with_exponent("spatial norm", args.x.dtype, args.beta, [&]<class T, class Exponent>() {
    forward<T, Exponent>(args, channels_last, threads);
  });
}

void spatial_norm_backward(const SpatialNormBackward& args, bool channels_last, int64_t threads) {
  with_exponent("spatial norm", args.x.dtype, args.beta, [&]<class T, class Exponent>() {
    backward<T, Exponent>(args, channels_last, threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
