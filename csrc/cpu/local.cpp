// Locally connected layer, forward and its two gradients (definition in ../local.h).
//
// The weights are the large operand, used once per image and never shared between positions: they
// are read (or written) once, in blocks of 64 neighbouring positions of the output, for all images
// of the batch. What a block's windows read of x is gathered beforehand, (C, taps, N, 64), so that
// every product is one of vectors over positions: 64 floats of weight serve N images and, gathered,
// x serves F filters.
//
// Forward and the weight's gradient: a task is a run of blocks. The input's gradient: a task is a
// run of channels, which adds its share of every window to the planes of its channel.
//
// Bytes: the weight once; x once for each block that its windows reach, from cache; y once.
//
// Measured at 8x16x28x28, 16 filters, 3x3, float32, one thread of a Zen 4 with AVX-512 that others
// shared, in copies of the weight (PyTorch's unfolding and product): forward 2.8 (55), the weight's
// gradient 3.5 (24), the input's 10 (38).
#include "../local.h"

#include <vector>

#include "parallel.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kBlock = 64;  // positions
constexpr int kImages = 8;      // whose sums stay in registers
constexpr int64_t kTerms = 32;  // of a sum: parts of this length round less than one long sum

// Sizes of the layer, and what each tap reads.
struct LocalShape {
  int64_t batch, channels, filters, taps, inputs, outputs;
  // For tap t and output o at t * outputs + o: what it reads of a plane; -1 outside.
  std::vector<int32_t> from;

  LocalShape(const Tensor& x, const Tensor& y, const LocalWindow& window)
      : batch(x.size[0]),
        channels(x.size[1]),
        filters(y.size[1]),
        taps(window.kernel[0] * window.kernel[1] * window.kernel[2]),
        inputs(x.size[2] * x.size[3] * x.size[4]),
        outputs(y.size[2] * y.size[3] * y.size[4]),
        from(taps * outputs) {
    int32_t* to = from.data();
    int64_t tap[3], at[3];
    for (tap[0] = 0; tap[0] < window.kernel[0]; ++tap[0]) {
      for (tap[1] = 0; tap[1] < window.kernel[1]; ++tap[1]) {
        for (tap[2] = 0; tap[2] < window.kernel[2]; ++tap[2]) {
          for (at[0] = 0; at[0] < y.size[2]; ++at[0]) {
            for (at[1] = 0; at[1] < y.size[3]; ++at[1]) {
              for (at[2] = 0; at[2] < y.size[4]; ++at[2]) {
                int64_t place = 0;
                bool inside = true;
                for (int axis = 0; axis < 3; ++axis) {
                  const int64_t i = at[axis] * window.stride[axis] - window.padding[axis] +
                                    tap[axis] * window.dilation[axis];
                  inside &= i >= 0 && i < x.size[2 + axis];
                  place = place * x.size[2 + axis] + i;
                }
                *to++ = inside ? static_cast<int32_t>(place) : -1;
              }
            }
          }
        }
      }
    }
  }

  int64_t blocks() const { return (outputs + kBlock - 1) / kBlock; }
  int64_t rows() const { return channels * taps; }

  // to[(c * taps + t) * batch + n] = the block's inputs, 0 outside and beyond the last position.
  template <class T>
  void gather(const T* x, int64_t first, int64_t count, accumulate_t<T>* to) const {
    using A = accumulate_t<T>;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        const int32_t* at = from.data() + t * outputs + first;
        for (int64_t n = 0; n < batch; ++n, to += kBlock) {
          const T* plane = x + (n * channels + c) * inputs;
          for (int64_t i = 0; i < count; ++i)
            to[i] = at[i] < 0 ? A{0} : static_cast<A>(plane[at[i]]);
          std::fill(to + count, to + kBlock, A{0});
        }
      }
    }
  }
};

// A block of `count` positions, converted and padded with zeros.
template <class T>
void load_block(const T* from, int64_t count, accumulate_t<T>* to) {
  using A = accumulate_t<T>;
  if (count == kBlock) return load_row(from, to, kBlock);
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<A>(from[i]);
  std::fill(to + count, to + kBlock, A{0});
}

template <class T>
void store_block(const accumulate_t<T>* from, T* to, int64_t count) {
  if (count == kBlock) return store_row(from, to, kBlock);
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(from[i]);
}

// Rows of a weight, one block wide. A whole block is read where it lies, with the one after next
// prefetched: rows lie as many elements apart as there are outputs, which no hardware prefetcher
// follows.
template <class T>
struct WeightRows {
  using A = accumulate_t<T>;
  const T* weight;
  int64_t pitch, count;
  A* copy;

  const A* operator()(int64_t row, int64_t ahead) const {
    const T* from = weight + row * pitch;
    for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T)))
      fetch(from + ahead * pitch + i);
    if constexpr (std::is_same_v<T, A>) {
      if (count == kBlock) return from;
    }
    load_block(from, count, copy);
    return copy;
  }
};

// sums[n] += weight * x[n] for a block of positions and up to kImages images, `pitch` apart.
template <int images, class A>
PYDL_INLINE void add_products(const A* weight, const A* x, A* sums) {
  constexpr int lanes = kWidest<A>;
  for (int64_t i = 0; i < kBlock; i += lanes) {
    const Vec<A, lanes> w = load_vec<lanes>(weight + i);
#pragma GCC unroll 8
    for (int n = 0; n < images; ++n) {
      A* sum = sums + n * kBlock + i;
      store_vec<lanes>(
          Vec<A, lanes>(load_vec<lanes>(sum) + w * load_vec<lanes>(x + n * kBlock + i)), sum);
    }
  }
}

template <class A>
void add_products(const A* weight, const A* x, A* sums, int64_t images) {
  for (; images >= kImages; images -= kImages, x += kImages * kBlock, sums += kImages * kBlock)
    add_products<kImages>(weight, x, sums);
  for (; images > 0; --images, x += kBlock, sums += kBlock) add_products<1>(weight, x, sums);
}

template <class T>
void forward(const LocalForward& args, int64_t threads) {
  using A = accumulate_t<T>;
  const LocalShape shape(args.x, args.y, args.window);
  const T *x = static_cast<const T*>(args.x.data),
          *weight = static_cast<const T*>(args.weight.data),
          *bias = static_cast<const T*>(args.bias.data);
  T* y = static_cast<T*>(args.y.data);
  const int64_t team = team_size(shape.blocks(), args.weight.numel(), threads);
  const int64_t results = shape.batch * kBlock;
  const Scratch<A> memory(team, (shape.rows() + 2) * results + kBlock);
  share_out(shape.blocks(), team, [&](int64_t member, int64_t begin, int64_t end) {
    A* gathered = memory.of(member);
    A* sums = gathered + shape.rows() * results;
    A* part = sums + results;
    A* copy = part + results;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, count = std::min(kBlock, shape.outputs - first);
      shape.gather(x, first, count, gathered);
      for (int64_t f = 0; f < shape.filters; ++f) {
        const WeightRows<T> rows{weight + f * shape.rows() * shape.outputs + first, shape.outputs,
                                 count, copy};
        std::fill_n(sums, results, A{0});
        if (bias != nullptr) {
          for (int64_t n = 0; n < shape.batch; ++n)
            load_block(bias + f * shape.outputs + first, count, sums + n * kBlock);
        }
        for (int64_t from = 0; from < shape.rows(); from += kTerms) {
          std::fill_n(part, results, A{0});
          for (int64_t row = from; row < std::min(from + kTerms, shape.rows()); ++row) {
            // Beyond the last filter's rows there may be no memory; prefetching it is harmless.
            add_products(rows(row, 4), gathered + row * results, part, shape.batch);
          }
          PYDL_LANES
          for (int64_t i = 0; i < results; ++i) sums[i] += part[i];
        }
        for (int64_t n = 0; n < shape.batch; ++n)
          store_block(sums + n * kBlock, y + (n * shape.filters + f) * shape.outputs + first,
                      count);
      }
    }
  });
}

template <class T>
void grad_weight(const LocalGradWeight& args, int64_t threads) {
  using A = accumulate_t<T>;
  constexpr int lanes = kWidest<A>;
  using V = Vec<A, lanes>;
  const LocalShape shape(args.x, args.grad_y, args.window);
  const T *x = static_cast<const T*>(args.x.data),
          *grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_weight = static_cast<T*>(args.grad_weight.data);
  const int64_t team = team_size(shape.blocks(), args.grad_weight.numel(), threads);
  const Scratch<A> memory(team, (shape.rows() + 1) * shape.batch * kBlock + kBlock);
  share_out(shape.blocks(), team, [&](int64_t member, int64_t begin, int64_t end) {
    A* gathered = memory.of(member);
    A* grads = gathered + shape.rows() * shape.batch * kBlock;
    A* result = grads + shape.batch * kBlock;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, count = std::min(kBlock, shape.outputs - first);
      shape.gather(x, first, count, gathered);
      for (int64_t f = 0; f < shape.filters; ++f) {
        for (int64_t n = 0; n < shape.batch; ++n)
          load_block(grad_y + (n * shape.filters + f) * shape.outputs + first, count,
                     grads + n * kBlock);
        for (int64_t row = 0; row < shape.rows(); ++row) {
          const A* from = gathered + row * shape.batch * kBlock;
          for (int64_t i = 0; i < kBlock; i += 2 * lanes) {
            V a{}, b{};
            for (int64_t n = 0; n < shape.batch; ++n) {
              const int64_t at = n * kBlock + i;
              a += load_vec<lanes>(grads + at) * load_vec<lanes>(from + at);
              b += load_vec<lanes>(grads + at + lanes) * load_vec<lanes>(from + at + lanes);
            }
            store_vec<lanes>(a, result + i);
            store_vec<lanes>(b, result + i + lanes);
          }
          store_block(result, grad_weight + (f * shape.rows() + row) * shape.outputs + first,
                      count);
        }
      }
    }
  });
}

template <class T>
void grad_input(const LocalGradInput& args, int64_t threads) {
  using A = accumulate_t<T>;
  const LocalShape shape(args.grad_x, args.grad_y, args.window);
  const T *weight = static_cast<const T*>(args.weight.data),
          *grad_y = static_cast<const T*>(args.grad_y.data);
  T* grad_x = static_cast<T*>(args.grad_x.data);
  const int64_t team = team_size(shape.channels, args.weight.numel(), threads);
  const Scratch<A> memory(
      team, shape.batch * shape.inputs + (shape.filters + 1) * shape.batch * kBlock + kBlock);
  share_out(shape.channels, team, [&](int64_t member, int64_t begin, int64_t end) {
    A* planes = memory.of(member);
    A* sums = planes + shape.batch * shape.inputs;
    A* grads = sums + shape.batch * kBlock;
    A* copy = grads + shape.filters * shape.batch * kBlock;
    for (int64_t c = begin; c < end; ++c) {
      std::fill_n(planes, shape.batch * shape.inputs, A{0});
      for (int64_t first = 0; first < shape.outputs; first += kBlock) {
        const int64_t count = std::min(kBlock, shape.outputs - first);
        for (int64_t f = 0; f < shape.filters; ++f) {
          for (int64_t n = 0; n < shape.batch; ++n)
            load_block(grad_y + (n * shape.filters + f) * shape.outputs + first, count,
                       grads + (f * shape.batch + n) * kBlock);
        }
        for (int64_t t = 0; t < shape.taps; ++t) {
          std::fill_n(sums, shape.batch * kBlock, A{0});
          const WeightRows<T> rows{weight + (c * shape.taps + t) * shape.outputs + first,
                                   shape.rows() * shape.outputs, count, copy};
          for (int64_t f = 0; f < shape.filters; ++f)
            add_products(rows(f, 4), grads + f * shape.batch * kBlock, sums, shape.batch);
          const int32_t* at = shape.from.data() + t * shape.outputs + first;
          for (int64_t n = 0; n < shape.batch; ++n) {
            A* plane = planes + n * shape.inputs;
            for (int64_t i = 0; i < count; ++i) {
              if (at[i] >= 0) plane[at[i]] += sums[n * kBlock + i];
            }
          }
        }
      }
      for (int64_t n = 0; n < shape.batch; ++n)
        store_row(planes + n * shape.inputs, grad_x + (n * shape.channels + c) * shape.inputs,
                  shape.inputs);
    }
  });
}

}  // namespace

void local_forward(const LocalForward& args, int64_t threads) {
  dispatch_floating(args.x.dtype, "local", [&]<class T>(T) { forward<T>(args, threads); });
}

void local_grad_input(const LocalGradInput& args, int64_t threads) {
  dispatch_floating(args.grad_x.dtype, "local", [&]<class T>(T) { grad_input<T>(args, threads); });
}

void local_grad_weight(const LocalGradWeight& args, int64_t threads) {
  dispatch_floating(args.x.dtype, "local", [&]<class T>(T) { grad_weight<T>(args, threads); });
}

}  // namespace pydl::cpu::PYDL_ISA
