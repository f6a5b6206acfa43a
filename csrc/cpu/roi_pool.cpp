// RoI pooling (definition in ../roi.h).
//
// The pixels of a bin are folded in vectors of channels. Channels last: a task is a line of bins of
// a box. N, C, H, W: a task is as many planes as a vector has lanes; the rows that boxes reach are
// turned into pixels, and bins back into planes: folding columns of a plane first takes nine times
// as long, as there are only a few in a bin.
//
// Backward adds each gradient at the place its bin took it from, box after box in one order:
// a task is a plane, or in channels last a band of an image's rows, and nobody else adds to it.
#include "maxima.h"
#include "roi_maps.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

template <class T>
struct Plan : BoxedMaps<T> {
  using BoxedMaps<T>::boxes, BoxedMaps<T>::lines, BoxedMaps<T>::columns;

  Plan(const Tensor& map, const Tensor& given, const Tensor& pooled, double scale)
      : BoxedMaps<T>(map, given, pooled) {
    for (int64_t box = 0; box < boxes.count(); ++box) {
      add(box, true, lines, map.size[3], scale, rows_);
      add(box, false, columns, map.size[4], scale, cols_);
    }
    boxes.sort_by([this](int64_t box) { return rows(box, 0).first; });
  }

  PixelRun rows(int64_t box, int64_t o) const { return rows_[box * lines + o]; }
  PixelRun cols(int64_t box, int64_t p) const { return cols_[box * columns + p]; }
  // The rows that all boxes of an image are in; bins ascend.
  PixelRun rows_of_image(int64_t n) const {
    return BoxedMaps<T>::rows_of_image(
        n, [this](int64_t box) { return PixelRun{rows(box, 0).first, rows(box, lines - 1).last}; });
  }

 private:
  void add(int64_t box, bool rows, int64_t bins, int64_t size, double scale,
           std::vector<PixelRun>& runs) {
    const auto pooled = pooled_of(boxes.from(box, rows), boxes.to(box, rows), scale, bins);
    for (int64_t o = 0; o < bins; ++o) runs.push_back(pooled.run(o, size));
  }

  std::vector<PixelRun> rows_, cols_;
};

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
  const int64_t bins = plan.bins();
  const PlaneTiles<lanes, A> tiles = plan.template tiles<lanes>(threads);
  const Scratch<int64_t> places(tiles.team(), coded ? bins * lanes : 0);
  // For lanes that have no channel.
  const auto begin = [&](const auto& tile) {
    std::fill_n(tile.pixels, plan.plane() * lanes, A(0));
  };
  tiles.run(begin, [&](const auto& tile) {
    const auto [n, c, plane, count, member, map, result, row] = tile;
    [[maybe_unused]] int64_t* place = places.of(member);
    plan.load(x, tile, lanes, plan.rows_of_image(n));
    for (const int64_t box : plan.boxes.of_image(n)) {
      for (int64_t bin = 0; bin < bins; ++bin) {
        fold_pixels<lanes, coded>(map, plan.width, lanes, plan.rows(box, bin / plan.columns),
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
  const Bands bands(plan);
  const int64_t channels = plan.channels, row = bands.row();
  const int64_t team = team_size(bands.count(), bands.elements(), threads);
  const Scratch<A> sums(team, bands.most());
  share_out(bands.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    A* sum = sums.of(member);
    for (int64_t task = first; task < last; ++task) {
      const auto [n, begin, end] = bands[task];
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
