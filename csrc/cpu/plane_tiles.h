// Tiles of planes, for maps (N, C, D, H, W) whose rows are too short for vectors along them: as
// many planes of an image as a vector has lanes are turned into pixels (turn.h), worked on like
// channels last, and the result is turned back.
#pragma once

#include "parallel.h"
#include "turn.h"

namespace pydl::cpu::PYDL_ISA {

template <int lanes, class A>
class PlaneTiles {
 public:
  // `planes` planes of one image, the first of which is `channel` of the image and number `plane`
  // of all; and the memory of the thread that works on the tile.
  struct Tile {
    int64_t image, channel, plane, planes, member;
    A *pixels, *bins;  // of the map and of what is pooled, `lanes` elements each
    A* row;            // room for a row of either, which turn_wide and turn_narrow convert
  };

  // Of images * channels planes of `pixels` pixels, pooled into `bins` bins.
  PlaneTiles(int64_t images, int64_t channels, int64_t pixels, int64_t bins, int64_t threads)
      : channels_(channels),
        groups_((channels + lanes - 1) / lanes),
        count_(images * groups_),
        team_(team_size(count_, images * channels * pixels, threads)),
        pixels_(team_, pixels * lanes),
        bins_(team_, bins * lanes),
        rows_(team_, std::max(pixels, bins)) {}

  int64_t team() const { return team_; }

  // Calls begin(tile) once for each member of the team, with its memory and no planes, and
  // work(tile) for each tile.
  template <class Begin, class Work>
  void run(const Begin& begin, const Work& work) const {
    share_out(count_, team_, [&](int64_t member, int64_t first, int64_t last) {
      Tile tile{0, 0, 0, 0, member, pixels_.of(member), bins_.of(member), rows_.of(member)};
      begin(tile);
      for (int64_t number = first; number < last; ++number) {
        tile.image = number / groups_, tile.channel = number % groups_ * lanes;
        tile.plane = tile.image * channels_ + tile.channel;
        tile.planes = std::min<int64_t>(lanes, channels_ - tile.channel);
        work(tile);
      }
    });
  }

 private:
  int64_t channels_, groups_, count_, team_;
  Scratch<A> pixels_, bins_, rows_;
};

}  // namespace pydl::cpu::PYDL_ISA
