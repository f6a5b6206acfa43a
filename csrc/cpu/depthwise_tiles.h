// Small planes of maps (N, C, D, H, W). A plane of 7x7 gives four vectors of outputs, and staging
// it costs more than its sums. So sixteen channels of a run of images are turned into a tile
// (images, D, H, W, 16) in the second-level cache, which the kernels of channels-last maps take as
// any other map, and their result is turned back. Turning costs one shuffle per four elements.
//
// Measured at batch 32, float32, 3x3, one thread of a Zen 4 with AVX-512, by lines and by tiles:
//   960x7x7    forward 3.1 and 2.9 ms, weight gradient 6.4 and 3.0
//   576x14x14  forward 2.4 and 5.6 ms, weight gradient 7.3 and 5.7, of stride 2 6.2 and 3.6
//   192x28x28  weight gradient of stride 2 7.0 and 3.3
#pragma once

#include "../conv.h"
#include "parallel.h"
#include "turn.h"

namespace pydl::cpu::PYDL_ISA {

inline constexpr int64_t kTileChannels = 16;
inline constexpr int64_t kTileElements = 1 << 15;  // of one tensor: a quarter of the cache

// A map whose tiles are taken one after another.
template <class T>
class TiledMap {
 public:
  explicit TiledMap(const Tensor& map)
      : map_(map), plane_(map.size[2] * map.size[3] * map.size[4]) {}

  int64_t size(int64_t images) const { return images * plane_ * kTileChannels; }
  // The tile as a map of its own.
  Tensor tensor(T* tile, int64_t images, int64_t channels) const {
    Tensor out = map_;
    out.data = tile;
    out.size[0] = images, out.size[1] = channels;
    return out;
  }
  void load(int64_t image, int64_t channel, const Tensor& tile) const {
    for (int64_t n = 0; n < tile.size[0]; ++n) {
      turn(at(image + n, channel), plane_, tile.size[1], plane_,
           static_cast<T*>(tile.data) + n * plane_ * tile.size[1], tile.size[1]);
    }
  }
  void store(const Tensor& tile, int64_t image, int64_t channel) const {
    for (int64_t n = 0; n < tile.size[0]; ++n) {
      turn(static_cast<const T*>(tile.data) + n * plane_ * tile.size[1], tile.size[1], plane_,
           tile.size[1], at(image + n, channel), plane_);
    }
  }

 private:
  T* at(int64_t n, int64_t c) const {
    return static_cast<T*>(map_.data) + (n * map_.size[1] + c) * plane_;
  }

  Tensor map_;
  int64_t plane_;
};

// Whether x and y, one plane of y for each of x, are to be turned: planes of at most this many
// elements. Not those of halves, which would have to be widened on the way.
inline bool tiles_serve(const Tensor& x, int64_t most_x, const Tensor& y, int64_t most_y) {
  const auto plane = [](const Tensor& t) { return t.size[2] * t.size[3] * t.size[4]; };
  return x.size[1] == y.size[1] && x.size[1] >= kTileChannels && plane(x) <= most_x &&
         plane(y) <= most_y;
}

// The tiles of a pair of maps, shared out by channels: a member goes through the images of its
// channels in turn.
template <class T>
struct TilePair {
  TiledMap<T> x, y;
  int64_t batch, channels, images, blocks, team;
  Scratch<T> memory;

  TilePair(const Tensor& of_x, const Tensor& of_y, int64_t threads)
      : x(of_x),
        y(of_y),
        batch(of_x.size[0]),
        channels(of_x.size[1]),
        images(std::clamp<int64_t>(kTileElements / std::max({x.size(1), y.size(1), int64_t{1}}), 1,
                                   std::max<int64_t>(batch, 1))),
        blocks((channels + kTileChannels - 1) / kTileChannels),
        team(team_size(blocks, std::max(of_x.numel(), of_y.numel()), threads)),
        memory(team, x.size(images) + y.size(images)) {}

  // Calls run(tile of x, tile of y, first image, first channel).
  template <class Run>
  void run(const Run& run) const {
    share_out(blocks, team, [&](int64_t member, int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t c = block * kTileChannels, size = std::min(kTileChannels, channels - c);
        for (int64_t n = 0; n < batch; n += images) {
          const int64_t count = std::min(images, batch - n);
          T* at = memory.of(member);
          run(x.tensor(at, count, size), y.tensor(at + x.size(images), count, size), n, c);
        }
      }
    });
  }
};

}  // namespace pydl::cpu::PYDL_ISA
