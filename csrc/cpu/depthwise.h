// Where the windows of a depthwise convolution lie, in both directions, and the staging of a map
// that makes every tap one run of memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../conv.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

// Floats of a staged band of one slice: half a first-level cache.
inline constexpr int64_t kStaged = 4096;

// One axis from targets to sources, which tap t reads:
//
//   forward      target o, an output:  input o * stride - padding + t * dilation
//   transposed   target i, an input:   output (i + padding - t * dilation) / stride, if whole
//
// The targets of one residue modulo `target_step` have the same taps, and a tap's sources are
// `source_step` apart from one of them to the next.
struct ConvAxis {
  bool transposed;
  int64_t sources, targets, kernel, stride, padding, dilation;
  int64_t source_step, target_step;

  ConvAxis(const ConvWindow& window, const Tensor& weight, const Tensor& x, const Tensor& y,
           int spatial, bool transposed)
      : transposed(transposed),
        sources((transposed ? y : x).size[2 + spatial]),
        targets((transposed ? x : y).size[2 + spatial]),
        kernel(weight.size[2 + spatial]),
        stride(window.stride[spatial]),
        padding(window.padding[spatial]),
        dilation(window.dilation[spatial]),
        source_step(transposed ? 1 : stride),
        target_step(transposed ? stride : 1) {}

  struct Link {
    int64_t source, tap;
  };
  // The sources of a target that are inside, and their taps, in the order of the taps.
  void links(int64_t target, std::vector<Link>& out) const {
    out.clear();
    for (int64_t tap = 0; tap < kernel; ++tap) {
      int64_t source = target * stride - padding + tap * dilation;
      if (transposed) {
        const int64_t reach = target + padding - tap * dilation;
        if (reach < 0 || reach % stride != 0) continue;
        source = reach / stride;
      }
      if (source >= 0 && source < sources) out.push_back({source, tap});
    }
  }

  // Forward outputs are numbered from 0; transposed an input i is q * stride + residue - padding,
  // and q counts from `first_place`.
  int64_t first_place() const { return transposed ? padding / stride : 0; }
  int64_t places() const {
    return transposed ? (padding + targets - 1) / stride + 1 - first_place() : targets;
  }
  int64_t target(int64_t place, int64_t residue) const {
    return transposed ? (first_place() + place) * stride + residue - padding : place;
  }

  bool three_by_one() const { return kernel == 3 && stride == 1 && dilation == 1; }
  int64_t reach() const { return (kernel - 1) * dilation / stride; }
};

// A tap on one axis of a staged map: it reads the places of one part, displaced.
struct StagedTap {
  int64_t number, part, displaced;
};

// How an axis is staged. Forward, its columns are dealt out to `stride` parts, as in pool_window.h;
// transposed there is one part, and the taps depend on the target's residue.
struct StagedAxis {
  ConvAxis axis;
  int64_t places, parts, residues, reach, padding;

  explicit StagedAxis(const ConvAxis& axis)
      : axis(axis),
        places(axis.places()),
        parts(axis.source_step),
        residues(axis.target_step),
        reach(axis.reach()),
        padding(axis.transposed ? reach - axis.first_place() : axis.padding) {}

  std::vector<StagedTap> taps(int64_t residue) const {
    std::vector<StagedTap> out;
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      const int64_t column = tap * axis.dilation, back = column / axis.stride;
      if (!axis.transposed) {
        out.push_back({tap, column % axis.stride, back});
      } else if (column % axis.stride == residue) {
        out.push_back({tap, 0, reach - back});
      }
    }
    return out;
  }
  // The source at a place of a part; may lie outside.
  int64_t source(int64_t part, int64_t place) const {
    return place * axis.source_step + part - padding;
  }
  // Of `count` places of a part from `first` on, [begin, end) are inside, counted from `first`.
  struct Range {
    int64_t begin, end;
  };
  Range inside(int64_t part, int64_t count, int64_t first) const {
    const int64_t before = -source(part, first), after = axis.sources + before;
    const auto places_of = [&](int64_t size) {
      return size <= 0 ? 0 : (size + axis.source_step - 1) / axis.source_step;
    };
    const int64_t begin = std::min(places_of(before), count);
    return {begin, std::clamp(places_of(after), begin, count)};
  }
  // Whether no tap reads a part.
  bool part_unused(int64_t part) const {
    if (axis.transposed) return false;
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      if (tap * axis.dilation % axis.stride == part) return false;
    }
    return true;
  }
};

// Bands of a map's rows, each staged on its own: what a band reads is small enough to stay in the
// first-level cache.
struct Staging {
  StagedAxis height, width;
  int64_t pitch;            // of a row, in places
  int64_t rows;             // of targets, in a band
  int64_t part_size, size;  // of a part (row part, column part) and of a slice

  // A row's length is a multiple of `lanes` plus what windows reach beyond it.
  Staging(const ConvAxis& high, const ConvAxis& wide, int64_t floats, int64_t lanes = 1)
      : height(high), width(wide), pitch((width.places + lanes - 1) / lanes * lanes + width.reach) {
    const int64_t parts = height.parts * width.parts;
    rows = std::clamp<int64_t>(floats / (pitch * parts) - height.reach, 1, height.places);
    if (rows < height.places) {
      // Bands of one size, rather than a last one of a single row.
      const int64_t bands = (height.places + rows - 1) / rows;
      rows = (height.places + bands - 1) / bands;
    }
    // Vectors run on beyond the last row.
    part_size = whole_blocks((rows + height.reach) * pitch + width.reach) + 4 * kLanes;
    size = parts * part_size;
  }
  int64_t bands() const { return (height.places + rows - 1) / rows; }

  int64_t offset(const StagedTap& tap_h, const StagedTap& tap_w) const {
    return (tap_h.part * width.parts + tap_w.part) * part_size + tap_h.displaced * pitch +
           tap_w.displaced;
  }

  // Writes a band of `count` rows of targets from `first` on, of one source slice. What lies
  // outside is zero already where there is one band.
  template <class T>
  void stage(const T* slice, int64_t first, int64_t count, accumulate_t<T>* to) const {
    using A = accumulate_t<T>;
    const int64_t sources = width.axis.sources, step = width.parts;
    const bool zero_outside = bands() > 1;
    for (int64_t part_h = 0; part_h < height.parts; ++part_h) {
      if (height.part_unused(part_h)) continue;
      const auto [top, bottom] = height.inside(part_h, count + height.reach, first);
      for (int64_t part_w = 0; part_w < width.parts; ++part_w) {
        if (width.part_unused(part_w)) continue;
        A* part = to + (part_h * width.parts + part_w) * part_size;
        const auto [begin, end] = width.inside(part_w, pitch, 0);
        if (zero_outside) {
          for (int64_t row = 0; row < count + height.reach; ++row) {
            const bool outside = row < top || row >= bottom;
            std::fill(part + row * pitch, part + row * pitch + (outside ? pitch : begin), A{0});
            if (!outside) std::fill(part + row * pitch + end, part + (row + 1) * pitch, A{0});
          }
        }
        if (begin == end || top == bottom) continue;
        const int64_t size = end - begin;
        const T* from =
            slice + height.source(part_h, first + top) * sources + width.source(part_w, begin);
        A* line = part + top * pitch + begin;
        const int64_t from_pitch = height.axis.source_step * sources, rows_inside = bottom - top;
        if (step == 1) {
          with_lanes<A>(size, [=, this]<int lanes>(Lanes<lanes>) {
            for (int64_t row = 0; row < rows_inside; ++row) {
              for_blocks_of<lanes>(size, [=, this](int64_t i) PYDL_INLINE_BODY {
                store_vec<lanes>(load_vec<lanes>(from + row * from_pitch + i),
                                 line + row * pitch + i);
              });
            }
          });
          continue;
        }
        for (int64_t row = 0; row < rows_inside; ++row) {
          const T* row_from = from + row * from_pitch;
          A* row_to = line + row * pitch;
          if (step == 2) {
            stage_pairs(row_from, row_to, size);
          } else {
            for (int64_t i = 0; i < size; ++i) row_to[i] = static_cast<A>(row_from[i * step]);
          }
        }
      }
    }
  }

 private:
  // Every other element, the last of which is the last that may be read.
  template <class T>
  static void stage_pairs(const T* from, accumulate_t<T>* to, int64_t count) {
    using A = accumulate_t<T>;
    constexpr int lanes = sizeof(A) < 8 ? 16 : 8;
    int64_t i = 0;
    for (; i + lanes < count; i += lanes) {
      A both[2 * lanes];
      load<lanes>(from + 2 * i, both);
      load<lanes>(from + 2 * i + lanes, both + lanes);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) to[i + lane] = both[2 * lane];
    }
    for (; i < count; ++i) to[i] = static_cast<A>(from[2 * i]);
  }
};

// Where a block of a 3x3 window of stride 1 reads a channels-last plane: `rows` by `columns` pixels
// from (top, left) on, pixel (r, c) at pixels[r * columns + c], zeros for one outside. True if all
// are inside; then only the first of each row is set.
template <class T>
bool place_block(const T* plane, const ConvAxis& height, const ConvAxis& width, int64_t channels,
                 int64_t top, int64_t left, int64_t rows, int64_t columns, const T* zeros,
                 const T** pixels) {
  const int64_t high = height.sources, wide = width.sources;
  const bool inside =
      plane != nullptr && top >= 0 && top + rows <= high && left >= 0 && left + columns <= wide;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < (inside ? 1 : columns); ++c) {
      const int64_t h = top + r, w = left + c;
      const bool there = inside || (plane != nullptr && h >= 0 && h < high && w >= 0 && w < wide);
      pixels[r * columns + c] = there ? plane + (h * wide + w) * channels : zeros;
    }
  }
  return inside;
}

}  // namespace pydl::cpu::PYDL_ISA
