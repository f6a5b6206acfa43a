// RoIAlign (definition in ../roi.h): which rows a bin weighs and which columns, a few each, hangs
// on the box alone, and is listed once for all channels; samples next to each other share pixels.
//
// The pixels of a bin are weighed in vectors of channels, each pixel read about once. Channels
// last: a task is a row of bins of a box. N, C, H, W: a task is as many planes as a vector has
// lanes; the rows that boxes reach are turned into pixels, and bins back into planes. A plane's own
// rows are too short: weighing those in vectors takes twice as long.
//
// Backward is the transpose, box after box in one order: a task is such a tile, or in channels last
// a band of an image's rows, and nobody else adds to it.
#include "parallel.h"
#include "roi_boxes.h"
#include "turn.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// No wider than it has to be: the taps of all boxes are read again for every plane.
template <class A>
struct Tap {
  Code<A> at;
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
          reach.first = std::min<int64_t>(reach.first, tap.at);
          reach.last = std::max<int64_t>(reach.last, tap.at + 1);
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
    taps_.push_back({static_cast<Code<A>>(at), weight});
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
        cols(boxes, false, columns, width, align) {
    boxes.sort_by([this](int64_t box) { return rows.reach(box).first; });
  }

  // The rows that all boxes of an image are in.
  PixelRun rows_of_image(int64_t n) const {
    PixelRun all = {height, 0};
    for (const int64_t box : boxes.of_image(n)) {
      const PixelRun reach = rows.reach(box);
      if (reach.size() <= 0) continue;
      all = {std::min(all.first, reach.first), std::max(all.last, reach.last)};
    }
    return all;
  }

  int64_t images, channels, height, width, lines, columns;
  Boxes<A> boxes;
  AxisTaps<A> rows, cols;
};

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

template <int lanes, class T>
void align_tiles(const Plan<T>& plan, const T* x, T* y, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t bins = plan.lines * plan.columns, plane = plan.height * plan.width;
  const int64_t groups = (plan.channels + lanes - 1) / lanes, tasks = plan.images * groups;
  const int64_t team = team_size(tasks, plan.images * plan.channels * plane, threads);
  const Scratch<A> tiles(team, plane * lanes), results(team, bins * lanes);
  const Scratch<A> rows(team, std::max(plane, bins));
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A *tile = tiles.of(member), *result = results.of(member), *row = rows.of(member);
    std::fill_n(tile, plane * lanes, A(0));  // for the lanes of channels that there are not
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / groups, c = task % groups * lanes;
      const int64_t count = std::min<int64_t>(lanes, plan.channels - c);
      const PixelRun reach = plan.rows_of_image(n);
      const int64_t at = reach.first * plan.width, size = reach.size() * plan.width;
      if (size > 0) {
        turn_wide(x + (n * plan.channels + c) * plane + at, plane, count, size, tile + at * lanes,
                  lanes, row);
      }
      for (const int64_t box : plan.boxes.of_image(n)) {
        for (int64_t o = 0; o < plan.lines; ++o) {
          for (int64_t p = 0; p < plan.columns; ++p) {
            weigh_pixels<1, lanes>(tile, plan.width, lanes, plan.rows.of(box, o),
                                   plan.cols.of(box, p), result + (o * plan.columns + p) * lanes);
          }
        }
        turn_narrow(result, lanes, bins, count, y + (box * plan.channels + c) * bins, bins, row);
      }
    }
  });
}

template <class T>
void align_pixels(const Plan<T>& plan, const T* x, T* y, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = plan.channels, tasks = plan.boxes.count() * plan.lines;
  const int64_t team = team_size(tasks, 4 * tasks * plan.columns * channels, threads);
  share_out(tasks, team, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t box = plan.boxes.in_order(task / plan.lines), o = task % plan.lines;
      const T* image = x + plan.boxes.image(box) * plan.height * plan.width * channels;
      const auto rows = plan.rows.of(box, o);
      for (int64_t p = 0; p < plan.columns; ++p) {
        const auto cols = plan.cols.of(box, p);
        T* to = y + ((box * plan.lines + o) * plan.columns + p) * channels;
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

// Adds what the bins of a line weigh a row of pixels, each of `channels`.
template <int known, class T, class From>
PYDL_INLINE void spread_line(const Plan<T>& plan, int64_t box, accumulate_t<T> weight,
                             const From* grads, accumulate_t<T>* row, int64_t channels) {
  using A = accumulate_t<T>;
  for (int64_t p = 0; p < plan.columns; ++p, grads += channels) {
    for (const Tap<A>& tap : plan.cols.of(box, p)) {
      A* to = row + tap.at * channels;
      if constexpr (known > 0) {
        store_vec<known>(load_vec<known>(to) + weight * tap.weight * load_vec<known>(grads), to);
      } else {
        add_weighed(weight * tap.weight, grads, to, channels);
      }
    }
  }
}

// Where sums for `to` are taken: there, or in memory of their own if its type is narrower.
template <class T, class A>
PYDL_INLINE A* summed_at(T* to, A* memory) {
  if constexpr (std::is_same_v<T, A>)
    return to;
  else
    return memory;
}

template <int lanes, class T>
void spread_tiles(const Plan<T>& plan, const T* grad_y, T* grad_x, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t bins = plan.lines * plan.columns, plane = plan.height * plan.width;
  const int64_t groups = (plan.channels + lanes - 1) / lanes, tasks = plan.images * groups;
  const int64_t team = team_size(tasks, plan.images * plan.channels * plane, threads);
  const Scratch<A> tiles(team, plane * lanes), grads(team, bins * lanes);
  const Scratch<A> rows(team, std::max(plane, bins));
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A *tile = tiles.of(member), *grad = grads.of(member), *row = rows.of(member);
    std::fill_n(grad, bins * lanes, A(0));
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / groups, c = task % groups * lanes;
      const int64_t count = std::min<int64_t>(lanes, plan.channels - c);
      std::fill_n(tile, plane * lanes, A(0));
      for (const int64_t box : plan.boxes.of_image(n)) {
        turn_wide(grad_y + (box * plan.channels + c) * bins, bins, count, bins, grad, lanes, row);
        for (int64_t o = 0; o < plan.lines; ++o) {
          for (const Tap<A>& tap : plan.rows.of(box, o)) {
            spread_line<lanes>(plan, box, tap.weight, grad + o * plan.columns * lanes,
                               tile + tap.at * plan.width * lanes, lanes);
          }
        }
      }
      turn_narrow(tile, lanes, plane, count, grad_x + (n * plan.channels + c) * plane, plane, row);
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
            spread_line<0>(plan, box, tap.weight, grads, sum + (tap.at - begin) * row, channels);
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
    const T* x = static_cast<const T*>(args.x.data);
    T* y = static_cast<T*>(args.y.data);
    if (channels_last) return align_pixels(plan, x, y, threads);
    with_lanes<accumulate_t<T>>(
        plan.channels, [&]<int lanes>(Lanes<lanes>) { align_tiles<lanes>(plan, x, y, threads); });
  });
}

void roi_align_backward(const RoiAlignBackward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "roi_align", [&]<class T>(T) {
    const Plan<T> plan(args.grad_x, args.boxes, args.grad_y, args.align);
    const T* grad_y = static_cast<const T*>(args.grad_y.data);
    T* grad_x = static_cast<T*>(args.grad_x.data);
    if (channels_last) return spread_pixels(plan, grad_y, grad_x, threads);
    with_lanes<accumulate_t<T>>(plan.channels, [&]<int lanes>(Lanes<lanes>) {
      spread_tiles<lanes>(plan, grad_y, grad_x, threads);
    });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
