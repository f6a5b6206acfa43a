// Max pooling, backward (definition in ../pool.h):
//
//   grad_x[i] = sum over the windows o that chose i of grad_y[o], in the order of the windows
//
// Three forms, each with one order of additions whatever the threads:
//
// Place, N, C, D, H, W, windows two wide that share no input, uint8: a task is a run of lines of
// windows. Every input is in one window, so the lines of it are written once, from the first byte
// to the last: the gradient where the choice is this tap, else 0.
//
// Scatter, all others N, C, D, H, W: a task is a run of planes (n, c), zeroed and then added to
// window by window; a plane that fits the first-level cache makes that two instructions per output
// more than reading its choice. Also for few channels last, where a plane is one n.
//
// Gather, many channels last: a task is a run of lines (n, d, h). A pixel looks at the windows that
// hold it, 16 channels at a time: the gradient where the choice is this pixel, else 0.
//
// Bytes: grad_y and index read, grad_x written once (scatter: the plane stays in cache).
//
// Measured at 16x96x55x55, float32, uint8, windows 3x3 stride 2, one thread of a Zen 4 with
// AVX-512, data in cache: 0.32 ns per input element. Before: a gather by lines in N, C, ... as
// well, 1.1 ns: nine comparisons and masked additions for two columns, and lists of terms, against
// one addition per window. For channels last the gather wins from 64 channels on (6 of them: 550 us
// gathering, 55 us scattering) as long as windows have few taps. Placing, 2x64x16x56x56, windows
// 1x2x2, with AVX2: forward and backward 12.3 ms for 17.7 scattering. Left to the compiler, what is
// placed was picked lane by lane with branches, slower than scattering.
#include <atomic>

#include "../pool.h"
#include "parallel.h"
#include "pool_window.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

// Channels last: gather
// A choice is compared with the code that the tap has in uint8, or with the input's position.

template <int fixed, class T, class Index>
void add_chosen(const T* const* grads, const Index* const* choices,
                const Code<accumulate_t<T>>* codes, int64_t count, T* out, int64_t channels) {
  using A = accumulate_t<T>;
  for_blocks<A>(channels, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    A sum[lanes] = {}, grad[lanes];
    Code<A> choice[lanes];
    for_steps<fixed>(0, count, [&](int64_t term) PYDL_INLINE_BODY {
      load<lanes>(grads[term] + first, grad);
      widen<lanes>(choices[term] + first, choice);
      const Code<A> code = codes[term];
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane)
        sum[lane] += choice[lane] == code ? grad[lane] : A{0};
    });
    store<lanes>(sum, out + first);
  });
}

template <class T, class Index>
void gather_pixels(const MaxPoolBackward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const Axis depth(args.window, args.grad_x, args.grad_y, 0),
      height(args.window, args.grad_x, args.grad_y, 1),
      width(args.window, args.grad_x, args.grad_y, 2);
  const Cover cover_d(depth), cover_h(height), cover_w(width);
  const Lines lines(args.grad_x, /*channels_last=*/true);
  const int64_t channels = args.grad_x.size[1];
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  const Index* index = static_cast<const Index*>(args.index.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  const int64_t terms = cover_d.most() * cover_h.most() * cover_w.most();
  const int64_t team = team_size(lines.count(), args.grad_x.numel(), threads);
  const Scratch<const T*> grad_memory(team, terms);
  const Scratch<const Index*> choice_memory(team, terms);
  const Scratch<Code<A>> code_memory(team, terms);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const T** grads = grad_memory.of(member);
    const Index** choices = choice_memory.of(member);
    Code<A>* codes = code_memory.of(member);
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      for (int64_t i = 0; i < width.inputs; ++i) {
        const int64_t position = (at.d * height.inputs + at.h) * width.inputs + i;
        int64_t count = 0;
        for (auto d = cover_d.begin(at.d); d != cover_d.end(at.d); ++d) {
          for (auto h = cover_h.begin(at.h); h != cover_h.end(at.h); ++h) {
            const int64_t from =
                ((at.plane * depth.outputs + d->window) * height.outputs + h->window) *
                width.outputs;
            for (auto w = cover_w.begin(i); w != cover_w.end(i); ++w, ++count) {
              grads[count] = grad_y + (from + w->window) * channels;
              choices[count] = index + (from + w->window) * channels;
              const int64_t tap = (d->tap * height.kernel + h->tap) * width.kernel + w->tap;
              codes[count] = static_cast<Code<A>>(std::is_same_v<Index, int64_t> ? position : tap);
            }
          }
        }
        T* to = grad_x + (at.number * width.inputs + i) * channels;
        with_count<A, 1, 2, 4>(count, [&]<int fixed>(Lanes<fixed>) {
          add_chosen<fixed>(grads, choices, codes, count, to, channels);
        });
      }
    }
  });
}

void check_inside(bool inside) {
  check(inside, "max_pool backward: an index lies outside its window or the input's plane");
}

// N, C, D, H, W, and few channels last: scatter

// Where in the plane the choices of a line of windows lie: for int64 they say so, for uint8 choice
// c of window o lies at origin + o * stride + offsets[c].
struct Choices {
  int64_t origin, stride;
  const int64_t* offsets;

  int64_t operator()(int64_t, int64_t choice) const { return choice; }
  int64_t operator()(int64_t o, uint8_t choice) const {
    return origin + o * stride + offsets[choice];
  }
};

// Adds the gradients of windows [first, last) of a line, each of `channels` (1 in N, C, ...).
// Returns false if one chose outside the plane.
template <class A, class Index>
PYDL_INLINE bool scatter(const Choices& place_of, const A* grads, const Index* choices,
                         int64_t first, int64_t last, int64_t channels, A* sums, int64_t inputs) {
  bool inside = true;
  for (int64_t o = first; o < last; ++o) {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t i = place_of(o, choices[o * channels + c]);
      if (static_cast<uint64_t>(i) < static_cast<uint64_t>(inputs)) {
        sums[i * channels + c] += grads[o * channels + c];
      } else {
        inside = false;
      }
    }
  }
  return inside;
}

// A plane (all channels of one n if they are last) is added up in grad_x itself where its type
// allows.
template <class T, class Index>
void scatter_planes(const MaxPoolBackward& args, bool channels_last, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr bool converts = !std::is_same_v<T, A>;
  const Axis depth(args.window, args.grad_x, args.grad_y, 0),
      height(args.window, args.grad_x, args.grad_y, 1),
      width(args.window, args.grad_x, args.grad_y, 2);
  const Lines lines(args.grad_y, channels_last);
  const int64_t channels = channels_last ? args.grad_x.size[1] : 1;
  const int64_t inputs = depth.inputs * height.inputs * width.inputs, size = inputs * channels;

  std::vector<int64_t> offsets;
  for (int64_t d = 0; d < depth.kernel && std::is_same_v<Index, uint8_t>; ++d) {
    for (int64_t h = 0; h < height.kernel; ++h) {
      for (int64_t w = 0; w < width.kernel; ++w) {
        offsets.push_back((d * depth.dilation * height.inputs + h * height.dilation) *
                              width.inputs +
                          w * width.dilation);
      }
    }
  }
  offsets.resize(256, INT64_MIN / 2);  // a code of no tap leads outside

  // A window whose taps all miss the input, as dilation allows, gives nothing: runs of windows are
  // those in between.
  std::vector<Axis::Taps> runs;
  for (int64_t o = 0, next = -1; o < width.outputs; ++o) {
    if (width.taps(o).first >= width.taps(o).last) continue;
    if (o != next) runs.push_back({o, o});
    runs.back().last = next = o + 1;
  }

  const int64_t team = team_size(lines.planes, args.grad_x.numel(), threads);
  const Scratch<A> memory(team, converts ? size + width.outputs * channels : 1);
  std::atomic<bool> outside = false;
  share_out(lines.planes, team, [&](int64_t member, int64_t first, int64_t last) {
    for (int64_t plane = first; plane < last; ++plane) {
      T* grad_x = static_cast<T*>(args.grad_x.data) + plane * size;
      A* sums = memory.of(member);
      if constexpr (!converts) sums = grad_x;
      std::fill_n(sums, size, A{0});
      bool inside = true;
      for (Lines at = lines.from(plane * depth.outputs * height.outputs); at.plane == plane;
           at.next()) {
        if (depth.taps(at.d).first >= depth.taps(at.d).last ||
            height.taps(at.h).first >= height.taps(at.h).last)
          continue;
        const T* grad_y =
            static_cast<const T*>(args.grad_y.data) + at.number * width.outputs * channels;
        const Index* choices =
            static_cast<const Index*>(args.index.data) + at.number * width.outputs * channels;
        const Choices place_of{
            (depth.start(at.d) * height.inputs + height.start(at.h)) * width.inputs - width.padding,
            width.stride, offsets.data()};
        const A* grads;
        if constexpr (converts) {
          load_row(grad_y, sums + size, width.outputs * channels);
          grads = sums + size;
        } else {
          grads = grad_y;
        }
        for (const auto [begin, end] : runs) {
          inside &= channels == 1
                        ? scatter(place_of, grads, choices, begin, end, 1, sums, inputs)
                        : scatter(place_of, grads, choices, begin, end, channels, sums, inputs);
        }
      }
      if constexpr (converts) store_row(sums, grad_x, size);
      if (!inside) outside = true;
    }
  });
  check_inside(!outside);
}

// N, C, D, H, W, windows two wide side by side: place

// Whether the windows of an axis begin where the one before ends and lie inside the input.
bool side_by_side(const Axis& axis) {
  return axis.stride == axis.kernel && axis.dilation == 1 && axis.padding == 0 && axis.whole();
}

// The lanes of two vectors in turns: a0 b0 a1 b1 ..., in two vectors.
template <int lanes, class A>
PYDL_INLINE void in_turns(const Vec<A, lanes>& a, const Vec<A, lanes>& b, Vec<A, lanes>& low,
                          Vec<A, lanes>& high) {
  if constexpr (lanes == 1) {
    low = a, high = b;
  } else {
#if defined(__GNUC__) && !defined(__clang__)
    using I = Vec<Code<A>, lanes>;
    I lows{}, highs{};
    for (int lane = 0; lane < lanes; ++lane) {
      lows[lane] = lane / 2 + lane % 2 * lanes;
      highs[lane] = lows[lane] + lanes / 2;
    }
    low = __builtin_shuffle(a, b, lows);
    high = __builtin_shuffle(a, b, highs);
#else
    for (int lane = 0; lane < lanes / 2; ++lane) {
      low[2 * lane] = a[lane], low[2 * lane + 1] = b[lane];
      high[2 * lane] = a[lane + lanes / 2], high[2 * lane + 1] = b[lane + lanes / 2];
    }
#endif
  }
}

// Places the gradients of a line of windows in one of their lines of the input, whose taps are
// `code` and the next.
template <class T>
PYDL_INLINE void place(const T* grads, const uint8_t* choices, Code<accumulate_t<T>> code,
                       int64_t outputs, T* to) {
  using A = accumulate_t<T>;
  for_blocks<A>(outputs, [=]<int lanes>(int64_t first, Lanes<lanes>) PYDL_INLINE_BODY {
    Code<A> codes[lanes];
    widen<lanes>(choices + first, codes);
    Vec<Code<A>, lanes> choice;
    std::memcpy(&choice, codes, sizeof(choice));
    const Vec<A, lanes> grad = load_vec<lanes>(grads + first), none{};
    Vec<A, lanes> low, high;
    in_turns<lanes, A>(choice == code ? grad : none, choice == code + 1 ? grad : none, low, high);
    store_vec<lanes>(low, to + 2 * first);
    store_vec<lanes>(high, to + 2 * first + lanes);
  });
}

template <class T>
void place_lines(const MaxPoolBackward& args, const Axis& depth, const Axis& height,
                 const Axis& width, int64_t threads) {
  const Lines lines(args.grad_y);
  const int64_t inputs = width.inputs, outputs = width.outputs;
  const uint8_t taps = static_cast<uint8_t>(depth.kernel * height.kernel * width.kernel - 1);
  const T* grad_y = static_cast<const T*>(args.grad_y.data);
  const uint8_t* index = static_cast<const uint8_t*>(args.index.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);

  const int64_t team = team_size(lines.count(), args.grad_x.numel(), threads);
  std::atomic<bool> outside = false;
  share_out(lines.count(), team, [&](int64_t, int64_t first, int64_t last) {
    for (Lines at = lines.from(first); at.number < last; at.next()) {
      const int64_t from = at.number * outputs;
      for_lines_of_windows(depth, height, at, [&](int64_t line, int64_t tap_d, int64_t tap_h) {
        T* to = grad_x + line * inputs;
        place(grad_y + from, index + from,
              static_cast<Code<accumulate_t<T>>>((tap_d * height.kernel + tap_h) * 2), outputs, to);
        std::fill(to + 2 * outputs, to + inputs, T{});
      });
      // Where the input goes on beyond the last windows.
      const auto clear = [&](int64_t d, int64_t begin, int64_t end) {
        T* plane = grad_x + (at.plane * depth.inputs + d) * height.inputs * inputs;
        std::fill(plane + begin * inputs, plane + end * inputs, T{});
      };
      if (at.h + 1 < height.outputs) continue;
      for (int64_t tap_d = 0; tap_d < depth.kernel; ++tap_d)
        clear(at.d * depth.kernel + tap_d, height.outputs * height.kernel, height.inputs);
      if (at.d + 1 < depth.outputs) continue;
      for (int64_t d = depth.outputs * depth.kernel; d < depth.inputs; ++d)
        clear(d, 0, height.inputs);
    }
    const uint8_t* end = index + last * outputs;
    uint8_t most = 0;
    for (const uint8_t* choice = index + first * outputs; choice < end; ++choice)
      most = std::max(most, *choice);
    if (most > taps) outside = true;
  });
  check_inside(!outside);
}

// A gather compares 16 channels at a time but does so for each tap, and makes a list of windows for
// each pixel.
bool gathers(const MaxPoolBackward& args) {
  const int64_t* kernel = args.window.kernel;
  return args.grad_x.size[1] >= 64 && kernel[0] * kernel[1] * kernel[2] <= 12 &&
         args.grad_x.dtype != DType::float64;
}

}  // namespace

void max_pool_backward(const MaxPoolBackward& args, bool channels_last, int64_t threads) {
  const Axis depth(args.window, args.grad_x, args.grad_y, 0),
      height(args.window, args.grad_x, args.grad_y, 1),
      width(args.window, args.grad_x, args.grad_y, 2);
  // Shorter lines do not fill a vector: 16x512x13x13 scattered 1.4 ms, placed 3.1.
  const bool places = !channels_last && args.index.dtype == DType::uint8 && width.kernel == 2 &&
                      width.outputs >= 8 && side_by_side(depth) && side_by_side(height) &&
                      side_by_side(width);
  dispatch_floating(args.grad_x.dtype, "max_pool", [&]<class T>(T) {
    if (places) return place_lines<T>(args, depth, height, width, threads);
    const auto run = [&]<class Index>(Index) {
      channels_last&& gathers(args) ? gather_pixels<T, Index>(args, threads)
                                    : scatter_planes<T, Index>(args, channels_last, threads);
    };
    args.index.dtype == DType::uint8 ? run(uint8_t{}) : run(int64_t{});
  });
}

}  // namespace pydl::cpu::PYDL_ISA
