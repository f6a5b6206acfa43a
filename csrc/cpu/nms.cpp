// Non-maximum suppression (definition in ../nms.h). Built without fused multiply-adds: see
// CMakeLists.txt.
//
// Classes do not see each other, so each is worked through alone, with its boxes stored one
// coordinate after the other. They go in blocks: the boxes of a block settle among themselves which
// of them are kept; then those left behind the block are compared with all the block's kept, a
// vector of them in registers, and what survives moves up. So a pair is compared once at most, and
// a box that is suppressed early never again.
#include "../nms.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "parallel.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kBlock = 64;

template <class A>
struct Box {
  A x1, y1, x2, y2, area;
};

// Boxes of one class, best first, each with the number it was given as.
template <class A>
class Candidates {
 public:
  static constexpr int lanes = kWidest<A>;

  template <class T>
  Candidates(const T* boxes, const int64_t* numbers, int64_t size)
      : size_(size), number_(numbers, numbers + size), alive_(size + lanes, Code<A>(-1)) {
    // Behind the last one lies room for what a vector reads beyond it.
    for (auto& row : rows_) row.assign(size + lanes, A(0));
    for (int64_t i = 0; i < size; ++i) {
      for (int row = 0; row < 4; ++row) rows_[row][i] = static_cast<A>(boxes[4 * numbers[i] + row]);
      rows_[4][i] = (rows_[2][i] - rows_[0][i]) * (rows_[3][i] - rows_[1][i]);
    }
  }

  void suppress(A threshold, uint8_t* keep, int64_t threads) {
    while (size_ > 0) {
      const int64_t block = std::min(kBlock, size_);
      std::vector<Box<A>> kept;
      for (int64_t i = 0; i < block; ++i) {
        if (alive_[i] == 0) continue;
        keep[number_[i]] = 1;
        kept.push_back({rows_[0][i], rows_[1][i], rows_[2][i], rows_[3][i], rows_[4][i]});
        compare(&kept.back(), &kept.back() + 1, threshold, i + 1, block);
      }
      const int64_t rest = size_ - block, vectors = (rest + lanes - 1) / lanes;
      // Comparing a pair costs about as much as moving a float, which team_size counts.
      const int64_t team = team_size(vectors, rest * static_cast<int64_t>(kept.size()), threads);
      share_out(vectors, team, [&](int64_t, int64_t first, int64_t last) {
        compare(kept.data(), kept.data() + kept.size(), threshold, block + first * lanes,
                std::min(size_, block + last * lanes));
      });
      move_up(block);
    }
  }

 private:
  // Marks those of [first, last), and perhaps of the few behind, that a kept one suppresses.
  void compare(const Box<A>* kept, const Box<A>* end, A threshold, int64_t first, int64_t last) {
    using V = Vec<A, lanes>;
    for (int64_t at = first; at < last; at += lanes) {
      const V x1 = load_vec<lanes>(rows_[0].data() + at),
              y1 = load_vec<lanes>(rows_[1].data() + at),
              x2 = load_vec<lanes>(rows_[2].data() + at),
              y2 = load_vec<lanes>(rows_[3].data() + at),
              area = load_vec<lanes>(rows_[4].data() + at);
      Vec<Code<A>, lanes> alive;
      std::memcpy(&alive, alive_.data() + at, sizeof(alive));
      for (const Box<A>* box = kept; box < end; ++box) {
        V width = (box->x2 < x2 ? box->x2 + V{} : x2) - (box->x1 > x1 ? box->x1 + V{} : x1);
        V height = (box->y2 < y2 ? box->y2 + V{} : y2) - (box->y1 > y1 ? box->y1 + V{} : y1);
        width = width > 0 ? width : V{};
        height = height > 0 ? height : V{};
        const V inter = width * height;
        const V overlap = inter / (box->area + area - inter);
        alive &= ~(overlap > threshold);
      }
      std::memcpy(alive_.data() + at, &alive, sizeof(alive));
    }
  }

  // Drops the first `block` and the suppressed.
  void move_up(int64_t block) {
    int64_t to = 0;
    for (int64_t i = block; i < size_; ++i) {
      if (alive_[i] == 0) continue;
      for (auto& row : rows_) row[to] = row[i];
      number_[to++] = number_[i];
    }
    size_ = to;
    std::fill_n(alive_.data(), size_, Code<A>(-1));
  }

  int64_t size_;
  std::vector<A> rows_[5];  // x1, y1, x2, y2, area
  std::vector<int64_t> number_;
  std::vector<Code<A>> alive_;  // all bits of it, or none
};

}  // namespace

void nms(const Nms& args, int64_t threads) {
  const int64_t count = args.keep.numel();
  const int64_t* classes = static_cast<const int64_t*>(args.classes.data);
  uint8_t* keep = static_cast<uint8_t*>(args.keep.data);
  std::fill_n(keep, count, uint8_t{0});
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (classes != nullptr) {
    std::stable_sort(order.begin(), order.end(),
                     [=](int64_t a, int64_t b) { return classes[a] < classes[b]; });
  }
  dispatch_floating(args.boxes.dtype, "nms", [&]<class T>(T) {
    using A = accumulate_t<T>;
    for (int64_t first = 0, last; first < count; first = last) {
      last = count;
      if (classes != nullptr) {
        last = first + 1;
        while (last < count && classes[order[last]] == classes[order[first]]) ++last;
      }
      Candidates<A>(static_cast<const T*>(args.boxes.data), order.data() + first, last - first)
          .suppress(threshold_in<A>(args.threshold), keep, threads);
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
