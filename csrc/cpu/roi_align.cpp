// RoIAlign (definition in ../roi.h), as two products with banded matrices that depend on the box
// alone: which rows a bin of it weighs and which columns, a few each, are listed once for all
// channels.
//
// N, C, H, W: a task is a plane, read from memory once for all boxes of its image. A box's rows are
// weighed in vectors along W into one line a row of bins, then the lines' columns. Channels last: a
// task is a row of bins of a box; the pixels of a bin are weighed in vectors of channels, each
// pixel read about once.
//
// Backward is the transpose, box after box in ascending order: a task is a plane, or in channels
// last a band of an image's rows, and nobody else adds to it.
#include "parallel.h"
#include "roi_boxes.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

template <class A>
struct Tap {
  int64_t at;
  A weight;
};

// The rows, or the columns, of all bins of all boxes.
template <class A>
class AxisTaps {
 public:
  AxisTaps(const Boxes<A>& boxes, bool rows, int64_t bins, int64_t size, const Align& align)
      : bins_(bins) {
    end_.reserve(boxes.count() * bins + 1);
    end_.push_back(0);
    for (int64_t box = 0; box < boxes.count(); ++box) {
      const auto samples = samples_of(boxes.from(box, rows), boxes.to(box, rows), align, bins);
      PixelRun reach = {size, 0};
      for (int64_t o = 0; o < bins; ++o) {
        add_bin(samples, o, size);
        for (const Tap<A>& tap : of(box, o)) {
          reach.first = std::min(reach.first, tap.at);
          reach.last = std::max(reach.last, tap.at + 1);
        }
      }
      reach_.push_back(reach.first < reach.last ? reach : PixelRun{0, 0});
    }
  }

  std::span<const Tap<A>> of(int64_t box, int64_t o) const {
    const int64_t bin = box * bins_ + o;
    return {taps_.data() + end_[bin], taps_.data() + end_[bin + 1]};
  }
  // What all taps of the box are in.
  PixelRun reach(int64_t box) const { return reach_[box]; }

 private:
  void add_bin(const Samples<A>& samples, int64_t o, int64_t size) {
    const size_t begin = taps_.size();
    for (int64_t k = samples.first(o, A(-1)); k < samples.count; ++k) {
      const A at = samples.at(o, k);
      Between<A> between;
      if (interpolate(at, size, between)) {
        add(begin, between.low, between.low_weight);
        add(begin, between.high, between.high_weight);
      } else if (samples.bin > 0) {
        break;
      }
    }
    for (size_t tap = begin; tap < taps_.size(); ++tap)
      taps_[tap].weight /= static_cast<A>(samples.count);
    end_.push_back(static_cast<int64_t>(taps_.size()));
  }
  // Samples next to each other share pixels.
  void add(size_t begin, int64_t at, A weight) {
    if (weight == 0) return;
    for (size_t tap = taps_.size(); tap > begin && tap + 2 > taps_.size(); --tap) {
      if (taps_[tap - 1].at == at) {
        taps_[tap - 1].weight += weight;
        return;
      }
    }
    taps_.push_back({at, weight});
  }

  int64_t bins_;
  std::vector<Tap<A>> taps_;
  std::vector<int64_t> end_;
  std::vector<PixelRun> reach_;
};

template <class T>
struct Plan {
  using A = accumulate_t<T>;

  Plan(const Tensor& map, const Tensor& given, const Tensor& pooled, const Align& align)
      : images(map.size[0]),
        channels(map.size[1]),
        height(map.size[3]),
        width(map.size[4]),
        lines(pooled.size[3]),
        columns(pooled.size[4]),
        boxes(static_cast<const T*>(given.data), pooled.numel() > 0 ? pooled.size[0] : 0, images),
        rows(boxes, true, lines, height, align),
        cols(boxes, false, columns, width, align) {}

  int64_t images, channels, height, width, lines, columns;
  Boxes<A> boxes;
  AxisTaps<A> rows, cols;
};

template <class T>
void align_planes(const Plan<T>& plan, const T* x, T* y, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t bins = plan.lines * plan.columns, tasks = plan.images * plan.channels;
  const int64_t team = team_size(tasks, 4 * plan.boxes.count() * plan.channels * bins, threads);
  const Scratch<A> weighed(team, plan.lines * plan.width), result(team, bins);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A *line = weighed.of(member), *out = result.of(member);
    for (int64_t task = first; task < last; ++task) {
      const T* plane = x + task * plan.height * plan.width;
      for (const int64_t box : plan.boxes.of_image(task / plan.channels)) {
        const PixelRun reach = plan.cols.reach(box);
        const int64_t size = reach.size();
        if (size > 0) {
          with_lanes<A>(size, [&]<int lanes>(Lanes<lanes>) {
            for (int64_t o = 0; o < plan.lines; ++o) {
              const auto taps = plan.rows.of(box, o);
              for_blocks_of<lanes>(size, [&](int64_t at) PYDL_INLINE_BODY {
                Vec<A, lanes> sum = {};
                for (const Tap<A>& tap : taps)
                  sum +=
                      tap.weight * load_vec<lanes>(plane + tap.at * plan.width + reach.first + at);
                store_vec<lanes>(sum, line + o * size + at);
              });
            }
          });
        }
        for (int64_t p = 0; p < plan.columns; ++p) {
          const auto taps = plan.cols.of(box, p);
          for (int64_t o = 0; o < plan.lines; ++o) {
            const A* from = line + o * size - reach.first;
            A sum = 0;
            for (const Tap<A>& tap : taps) sum += tap.weight * from[tap.at];
            out[o * plan.columns + p] = sum;
          }
        }
        store_row(out, y + (box * plan.channels + task % plan.channels) * bins, bins);
      }
    }
  });
}

template <int vecs, int lanes, class T>
PYDL_INLINE void weigh_pixels(const T* image, int64_t width, int64_t channels,
                              std::span<const Tap<accumulate_t<T>>> rows,
                              std::span<const Tap<accumulate_t<T>>> cols, T* to) {
  using A = accumulate_t<T>;
  Vec<A, lanes> sums[vecs] = {};
  for (const Tap<A>& row : rows) {
    for (const Tap<A>& col : cols) {
      const A weight = row.weight * col.weight;
      const T* from = image + (row.at * width + col.at) * channels;
      for (int v = 0; v < vecs; ++v) sums[v] += weight * load_vec<lanes>(from + v * lanes);
    }
  }
  for (int v = 0; v < vecs; ++v) store_vec<lanes>(sums[v], to + v * lanes);
}

template <class T>
void align_pixels(const Plan<T>& plan, const T* x, T* y, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = plan.channels, tasks = plan.boxes.count() * plan.lines;
  const int64_t team = team_size(tasks, 4 * tasks * plan.columns * channels, threads);
  share_out(tasks, team, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t box = task / plan.lines;
      const T* image = x + plan.boxes.image(box) * plan.height * plan.width * channels;
      const auto rows = plan.rows.of(box, task % plan.lines);
      for (int64_t p = 0; p < plan.columns; ++p) {
        const auto cols = plan.cols.of(box, p);
        T* to = y + (task * plan.columns + p) * channels;
        with_lanes<A>(channels, [&]<int lanes>(Lanes<lanes>) {
          int64_t c = 0;
          for (; c + 4 * lanes <= channels; c += 4 * lanes)
            weigh_pixels<4, lanes>(image + c, plan.width, channels, rows, cols, to + c);
          for (; c < channels; c += lanes) {
            c = std::min<int64_t>(c, channels - lanes);
            weigh_pixels<1, lanes>(image + c, plan.width, channels, rows, cols, to + c);
          }
        });
      }
    }
  });
}

template <class A>
PYDL_INLINE void add_weighed(A weight, const auto* from, A* to, int64_t size) {
  for_vectors_once<A>(size, [&]<int lanes>(int64_t at, Lanes<lanes>) PYDL_INLINE_BODY {
    store_vec<lanes>(load_vec<lanes>(to + at) + weight * load_vec<lanes>(from + at), to + at);
  });
}

// Where sums for `to` are taken: there, or in memory of their own if its type is narrower.
template <class T, class A>
PYDL_INLINE A* summed_at(T* to, A* memory) {
  if constexpr (std::is_same_v<T, A>)
    return to;
  else
    return memory;
}

template <class T>
void spread_planes(const Plan<T>& plan, const T* grad_y, T* grad_x, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t plane = plan.height * plan.width, bins = plan.lines * plan.columns;
  const int64_t tasks = plan.images * plan.channels;
  const int64_t team = team_size(tasks, tasks * plane, threads);
  const Scratch<A> sums(team, std::is_same_v<T, A> ? 0 : plane);
  const Scratch<A> spread(team, plan.lines * plan.width), row(team, bins);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A *line = spread.of(member), *grad = row.of(member);
    for (int64_t task = first; task < last; ++task) {
      T* to = grad_x + task * plane;
      A* sum = summed_at(to, sums.of(member));
      std::fill_n(sum, plane, A(0));
      for (const int64_t box : plan.boxes.of_image(task / plan.channels)) {
        const PixelRun reach = plan.cols.reach(box);
        const int64_t size = reach.size();
        load_row(grad_y + (box * plan.channels + task % plan.channels) * bins, grad, bins);
        std::fill_n(line, plan.lines * size, A(0));
        for (int64_t p = 0; p < plan.columns; ++p) {
          for (const Tap<A>& tap : plan.cols.of(box, p)) {
            for (int64_t o = 0; o < plan.lines; ++o)
              line[o * size + tap.at - reach.first] += tap.weight * grad[o * plan.columns + p];
          }
        }
        for (int64_t o = 0; o < plan.lines; ++o) {
          for (const Tap<A>& tap : plan.rows.of(box, o))
            add_weighed(tap.weight, line + o * size, sum + tap.at * plan.width + reach.first, size);
        }
      }
      if constexpr (!std::is_same_v<T, A>) store_row(sum, to, plane);
    }
  });
}

template <class T>
void spread_pixels(const Plan<T>& plan, const T* grad_y, T* grad_x, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = plan.channels, row = plan.width * channels;
  const int64_t height = std::min(plan.height, band_rows(row * sizeof(A)));
  const int64_t bands = (plan.height + height - 1) / height, tasks = plan.images * bands;
  const int64_t team = team_size(tasks, plan.images * plan.height * row, threads);
  const Scratch<A> sums(team, std::is_same_v<T, A> ? 0 : height * row);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / bands, begin = task % bands * height,
                    end = std::min(plan.height, begin + height);
      T* to = grad_x + (n * plan.height + begin) * row;
      A* sum = summed_at(to, sums.of(member));
      std::fill_n(sum, (end - begin) * row, A(0));
      for (const int64_t box : plan.boxes.of_image(n)) {
        const PixelRun reach = plan.rows.reach(box);
        if (reach.first >= end || reach.last <= begin) continue;
        for (int64_t o = 0; o < plan.lines; ++o) {
          const T* grads = grad_y + (box * plan.lines + o) * plan.columns * channels;
          for (const Tap<A>& tap : plan.rows.of(box, o)) {
            if (tap.at < begin || tap.at >= end) continue;
            A* line = sum + (tap.at - begin) * row;
            for (int64_t p = 0; p < plan.columns; ++p) {
              for (const Tap<A>& col : plan.cols.of(box, p))
                add_weighed(tap.weight * col.weight, grads + p * channels, line + col.at * channels,
                            channels);
            }
          }
        }
      }
      if constexpr (!std::is_same_v<T, A>) store_row(sum, to, (end - begin) * row);
    }
  });
}

}  // namespace

void roi_align_forward(const RoiAlignForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "roi_align", [&]<class T>(T) {
    const Plan<T> plan(args.x, args.boxes, args.y, args.align);
    (channels_last ? align_pixels<T> : align_planes<T>)(plan, static_cast<const T*>(args.x.data),
                                                        static_cast<T*>(args.y.data), threads);
  });
}

void roi_align_backward(const RoiAlignBackward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "roi_align", [&]<class T>(T) {
    const Plan<T> plan(args.grad_x, args.boxes, args.grad_y, args.align);
    (channels_last ? spread_pixels<T>
                   : spread_planes<T>)(plan, static_cast<const T*>(args.grad_y.data),
                                       static_cast<T*>(args.grad_x.data), threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
