// RoIAlign (definition in ../roi.h): which rows a bin weighs and which columns, a few each, depends
// on the box alone, and is listed once for all channels; samples next to each other share pixels.
//
// The pixels of a bin are weighed in vectors of channels, each pixel read about once. Channels
// last: a task is a row of bins of a box. N, C, H, W: a task is as many planes as a vector has
// lanes; the rows that boxes reach are turned into pixels, and bins back into planes. A plane's own
// rows are too short: weighing those in vectors takes twice as long.
//
// Backward is the transpose, box after box in one order: a task is such a tile, or in channels last
// a band of an image's rows, and nobody else adds to it.
#include "roi_maps.h"

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
struct Plan : BoxedMaps<T> {
  using A = accumulate_t<T>;
  using BoxedMaps<T>::boxes;

  Plan(const Tensor& map, const Tensor& given, const Tensor& pooled, const Align& align)
      : BoxedMaps<T>(map, given, pooled),
        rows(boxes, true, this->lines, this->height, align),
        cols(boxes, false, this->columns, this->width, align) {
    boxes.sort_by([this](int64_t box) { return rows.reach(box).first; });
  }

  // The rows that all boxes of an image are in.
  PixelRun rows_of_image(int64_t n) const {
    return BoxedMaps<T>::rows_of_image(n, [this](int64_t box) { return rows.reach(box); });
  }

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
  const int64_t bins = plan.bins();
  // For lanes that have no channel.
  const auto begin = [&](const auto& tile) {
    std::fill_n(tile.pixels, plan.plane() * lanes, A(0));
  };
  plan.template tiles<lanes>(threads).run(begin, [&](const auto& tile) {
    const auto [n, c, plane, count, member, map, result, row] = tile;
    plan.load(x, tile, lanes, plan.rows_of_image(n));
    for (const int64_t box : plan.boxes.of_image(n)) {
      for (int64_t o = 0; o < plan.lines; ++o) {
        for (int64_t p = 0; p < plan.columns; ++p) {
          weigh_pixels<1, lanes>(map, plan.width, lanes, plan.rows.of(box, o), plan.cols.of(box, p),
                                 result + (o * plan.columns + p) * lanes);
        }
      }
      turn_narrow(result, lanes, bins, count, y + (box * plan.channels + c) * bins, bins, row);
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

// Adds what the bins of a line contribute to a row of pixels, each of `channels`.
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
  const int64_t bins = plan.bins(), pixels = plan.plane();
  // For lanes that have no channel.
  const auto begin = [&](const auto& tile) { std::fill_n(tile.bins, bins * lanes, A(0)); };
  plan.template tiles<lanes>(threads).run(begin, [&](const auto& tile) {
    const auto [n, c, plane, count, member, map, grad, row] = tile;
    std::fill_n(map, pixels * lanes, A(0));
    for (const int64_t box : plan.boxes.of_image(n)) {
      turn_wide(grad_y + (box * plan.channels + c) * bins, bins, count, bins, grad, lanes, row);
      for (int64_t o = 0; o < plan.lines; ++o) {
        for (const Tap<A>& tap : plan.rows.of(box, o)) {
          spread_line<lanes>(plan, box, tap.weight, grad + o * plan.columns * lanes,
                             map + tap.at * plan.width * lanes, lanes);
        }
      }
    }
    turn_narrow(map, lanes, pixels, count, grad_x + plane * pixels, pixels, row);
  });
}

template <class T>
void spread_pixels(const Plan<T>& plan, const T* grad_y, T* grad_x, int64_t threads) {
  using A = accumulate_t<T>;
  const Bands bands(plan);
  const int64_t channels = plan.channels, row = bands.row();
  const int64_t team = team_size(bands.count(), bands.elements(), threads);
  const Scratch<A> sums(team, std::is_same_v<T, A> ? 0 : bands.most());
  share_out(bands.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const auto [n, begin, end] = bands[task];
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
