// RoI pooling (definition in ../roi.h).
//
// The pixels of a bin are folded in vectors of channels. Channels last: a task is a line of bins of
// a box. N, C, H, W: a task is as many planes as a vector has lanes; the rows that boxes reach are
// turned into pixels, and bins back into planes: folding columns of a plane first takes nine times
// as long, for there are only a few in a bin.
//
// Backward adds each gradient at the place its bin took it from, box after box in one order:
// a task is a plane, or in channels last a band of an image's rows, and nobody else adds to it.
#include <limits>

#include "parallel.h"
#include "roi_boxes.h"
#include "turn.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

template <class A>
constexpr A kLowest = -std::numeric_limits<A>::infinity();

template <class T>
struct Plan {
  using A = accumulate_t<T>;

  Plan(const Tensor& map, const Tensor& given, const Tensor& pooled, double scale)
      : images(map.size[0]),
        channels(map.size[1]),
        height(map.size[3]),
        width(map.size[4]),
        lines(pooled.size[3]),
        columns(pooled.size[4]),
        boxes(static_cast<const T*>(given.data), pooled.numel() > 0 ? pooled.size[0] : 0, images) {
    for (int64_t box = 0; box < boxes.count(); ++box) {
      add(box, true, lines, height, scale, rows_);
      add(box, false, columns, width, scale, cols_);
    }
    boxes.sort_by([this](int64_t box) { return rows(box, 0).first; });
  }

  PixelRun rows(int64_t box, int64_t o) const { return rows_[box * lines + o]; }
  PixelRun cols(int64_t box, int64_t p) const { return cols_[box * columns + p]; }
  // The rows that all boxes of an image are in; bins ascend.
  PixelRun rows_of_image(int64_t n) const {
    PixelRun all = {height, 0};
    for (const int64_t box : boxes.of_image(n)) {
      const PixelRun reach = {rows(box, 0).first, rows(box, lines - 1).last};
      if (reach.size() > 0)
        all = {std::min(all.first, reach.first), std::max(all.last, reach.last)};
    }
    return all;
  }

  int64_t images, channels, height, width, lines, columns;
  Boxes<A> boxes;

 private:
  void add(int64_t box, bool rows, int64_t bins, int64_t size, double scale,
           std::vector<PixelRun>& runs) {
    const auto pooled = pooled_of(boxes.from(box, rows), boxes.to(box, rows), scale, bins);
    for (int64_t o = 0; o < bins; ++o) runs.push_back(pooled.run(o, size));
  }

  std::vector<PixelRun> rows_, cols_;
};

// Whether a value takes the place of the best of those before it in scan order.
template <class A>
PYDL_INLINE bool beats(A value, A best) {
  return (value > best) | (value != value);
}

template <int lanes, bool coded, class T>
PYDL_INLINE void fold_pixels(const T* image, int64_t width, int64_t channels, const PixelRun& rows,
                             const PixelRun& cols, T* y, int64_t* index) {
  using A = accumulate_t<T>;
  A best[lanes], value[lanes];
  Code<A> code[lanes];
  const Code<A> origin = static_cast<Code<A>>(rows.first * width + cols.first);
  PYDL_LANES
  for (int lane = 0; lane < lanes; ++lane) {
    best[lane] = kLowest<A>;
    code[lane] = origin;
  }
  if (rows.size() <= 0 || cols.size() <= 0) {
    std::fill_n(y, lanes, T(0.0f));
    if constexpr (coded) std::fill_n(index, lanes, int64_t{-1});
    return;
  }
  for (int64_t row = rows.first; row < rows.last; ++row) {
    Code<A> name = static_cast<Code<A>>(row * width + cols.first);
    const T* from = image + (row * width + cols.first) * channels;
    for (int64_t col = cols.first; col < cols.last; ++col, ++name, from += channels) {
      load<lanes>(from, value);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) {
        const bool take = beats(value[lane], best[lane]);
        best[lane] = take ? value[lane] : best[lane];
        if constexpr (coded) code[lane] = take ? name : code[lane];
      }
    }
  }
  store<lanes>(best, y);
  if constexpr (coded) {
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) index[lane] = code[lane];
  }
}

template <int lanes, bool coded, class T>
void pool_tiles(const Plan<T>& plan, const T* x, T* y, int64_t* index, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t bins = plan.lines * plan.columns, plane = plan.height * plan.width;
  const int64_t groups = (plan.channels + lanes - 1) / lanes, tasks = plan.images * groups;
  const int64_t team = team_size(tasks, plan.images * plan.channels * plane, threads);
  const Scratch<A> tiles(team, plane * lanes), results(team, bins * lanes);
  const Scratch<A> rows(team, std::max(plane, bins));
  const Scratch<int64_t> places(team, coded ? bins * lanes : 0);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A *tile = tiles.of(member), *result = results.of(member), *row = rows.of(member);
    [[maybe_unused]] int64_t* place = places.of(member);
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
        for (int64_t bin = 0; bin < bins; ++bin) {
          fold_pixels<lanes, coded>(tile, plan.width, lanes, plan.rows(box, bin / plan.columns),
                                    plan.cols(box, bin % plan.columns), result + bin * lanes,
                                    coded ? place + bin * lanes : nullptr);
        }
        const int64_t to = (box * plan.channels + c) * bins;
        turn_narrow(result, lanes, bins, count, y + to, bins, row);
        if constexpr (coded) {
          for (int64_t lane = 0; lane < count; ++lane) {
            for (int64_t bin = 0; bin < bins; ++bin)
              index[to + lane * bins + bin] = place[bin * lanes + lane];
          }
        }
      }
    }
  });
}

template <bool coded, class T>
void pool_pixels(const Plan<T>& plan, const T* x, T* y, int64_t* index, int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = plan.channels, tasks = plan.boxes.count() * plan.lines;
  const int64_t team = team_size(tasks, 4 * tasks * plan.columns * channels, threads);
  share_out(tasks, team, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t box = plan.boxes.in_order(task / plan.lines), o = task % plan.lines;
      const T* image = x + plan.boxes.image(box) * plan.height * plan.width * channels;
      const PixelRun rows = plan.rows(box, o);
      for (int64_t p = 0; p < plan.columns; ++p) {
        const PixelRun cols = plan.cols(box, p);
        const int64_t to = ((box * plan.lines + o) * plan.columns + p) * channels;
        for_blocks<A>(channels, [=, &plan]<int lanes>(int64_t c, Lanes<lanes>) {
          fold_pixels<lanes, coded>(image + c, plan.width, channels, rows, cols, y + to + c,
                                    coded ? index + to + c : nullptr);
        });
      }
    }
  });
}

template <class T>
void unpool_planes(const Plan<T>& plan, const T* grad_y, const int64_t* index, T* grad_x,
                   int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t plane = plan.height * plan.width, bins = plan.lines * plan.columns;
  const int64_t tasks = plan.images * plan.channels;
  const int64_t team = team_size(tasks, tasks * plane, threads);
  const Scratch<A> sums(team, plane);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A* sum = sums.of(member);
    for (int64_t task = first; task < last; ++task) {
      std::fill_n(sum, plane, A(0));
      for (const int64_t box : plan.boxes.of_image(task / plan.channels)) {
        const int64_t from = (box * plan.channels + task % plan.channels) * bins;
        for (int64_t bin = from; bin < from + bins; ++bin) {
          if (static_cast<uint64_t>(index[bin]) < static_cast<uint64_t>(plane))
            sum[index[bin]] += static_cast<A>(grad_y[bin]);
        }
      }
      store_row(sum, grad_x + task * plane, plane);
    }
  });
}

template <class T>
void unpool_pixels(const Plan<T>& plan, const T* grad_y, const int64_t* index, T* grad_x,
                   int64_t threads) {
  using A = accumulate_t<T>;
  const int64_t channels = plan.channels, row = plan.width * channels;
  const int64_t height = std::min(plan.height, band_rows(row * sizeof(A)));
  const int64_t bands = (plan.height + height - 1) / height, tasks = plan.images * bands;
  const int64_t team = team_size(tasks, plan.images * plan.height * row, threads);
  const Scratch<A> sums(team, height * row);
  share_out(tasks, team, [&](int64_t member, int64_t first, int64_t last) {
    A* sum = sums.of(member);
    for (int64_t task = first; task < last; ++task) {
      const int64_t n = task / bands, begin = task % bands * height,
                    end = std::min(plan.height, begin + height);
      const int64_t origin = begin * plan.width;
      const uint64_t pixels = (end - begin) * plan.width;
      std::fill_n(sum, (end - begin) * row, A(0));
      for (const int64_t box : plan.boxes.of_image(n)) {
        for (int64_t o = 0; o < plan.lines; ++o) {
          const PixelRun rows = plan.rows(box, o);
          if (rows.first >= end || rows.last <= begin) continue;
          const int64_t from = (box * plan.lines + o) * plan.columns * channels;
          for (int64_t at = from; at < from + plan.columns * channels; at += channels) {
            for (int64_t c = 0; c < channels; ++c) {
              const uint64_t pixel = static_cast<uint64_t>(index[at + c]) - origin;
              if (pixel < pixels) sum[pixel * channels + c] += static_cast<A>(grad_y[at + c]);
            }
          }
        }
      }
      store_row(sum, grad_x + (n * plan.height + begin) * row, (end - begin) * row);
    }
  });
}

template <bool coded, class T>
void pool(const RoiPoolForward& args, bool channels_last, int64_t threads) {
  const Plan<T> plan(args.x, args.boxes, args.y, args.scale);
  const T* x = static_cast<const T*>(args.x.data);
  T* y = static_cast<T*>(args.y.data);
  int64_t* index = static_cast<int64_t*>(args.index.data);
  if (channels_last) return pool_pixels<coded>(plan, x, y, index, threads);
  with_lanes<accumulate_t<T>>(plan.channels, [&]<int lanes>(Lanes<lanes>) {
    pool_tiles<lanes, coded>(plan, x, y, index, threads);
  });
}

}  // namespace

void roi_pool_forward(const RoiPoolForward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.x.dtype, "roi_pool", [&]<class T>(T) {
    args.index.data == nullptr ? pool<false, T>(args, channels_last, threads)
                               : pool<true, T>(args, channels_last, threads);
  });
}

void roi_pool_backward(const RoiPoolBackward& args, bool channels_last, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "roi_pool", [&]<class T>(T) {
    const Plan<T> plan(args.grad_x, args.boxes, args.grad_y, args.scale);
    (channels_last ? unpool_pixels<T>
                   : unpool_planes<T>)(plan, static_cast<const T*>(args.grad_y.data),
                                       static_cast<const int64_t*>(args.index.data),
                                       static_cast<T*>(args.grad_x.data), threads);
  });
}

}  // namespace pydl::cpu::PYDL_ISA
