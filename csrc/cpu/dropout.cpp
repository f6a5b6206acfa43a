// Dropout with Philox's mask (definition in ../dropout.h).
//
// A task is a run of 1024 elements, whose words are computed first and stay in the first-level
// cache. Bytes: x read, y written once. Operations: 10 rounds of Philox per four elements, 20
// multiplications of vectors for 4 * kCounters of them, about 3 instructions per element.
#include "../dropout.h"

#include "parallel.h"
#include "philox.h"
#include "stream.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

constexpr int64_t kRun = 1024;
static_assert(kRun % kWords == 0);

template <class T, class Out>
void dropout_run(const T* x, const uint32_t* words, Out* y, int64_t size, uint32_t least,
                 accumulate_t<T> scale) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(size, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
    using V = Vec<A, lanes>;
    using U = Vec<std::make_unsigned_t<Code<A>>, lanes>;
    U word;
    if constexpr (sizeof(A) == 4) {
      std::memcpy(&word, words + i, sizeof(word));
    } else {
      Vec<uint32_t, lanes> narrow;
      std::memcpy(&narrow, words + i, sizeof(narrow));
      if constexpr (lanes == 1) {
        word = narrow;
      } else {
        word = __builtin_convertvector(narrow, U);
      }
    }
    const V factor = word >= least ? V{} + scale : V{};
    write_vec<lanes>(V(load_vec<lanes>(x + i) * factor), y + i);
  });
}

}  // namespace

void dropout(const Dropout& args, int64_t threads) {
  dispatch_floating(args.x.dtype, "dropout", [&]<class T>(T) {
    const int64_t elements = args.x.numel(), runs = (elements + kRun - 1) / kRun;
    const T* x = static_cast<const T*>(args.x.data);
    T* y = static_cast<T*>(args.y.data);
    const auto least = static_cast<uint32_t>(std::min(args.p * 0x1p32, 0x1p32 - 1));
    const auto scale = static_cast<accumulate_t<T>>(args.p < 1 ? 1 / (1 - args.p) : 0);
    const bool streams = x != y && worth_streaming<T>(elements);
    // A word costs about as much as moving four floats.
    share_out(
        runs, team_size(runs, 4 * elements, threads), [&](int64_t, int64_t begin, int64_t end) {
          alignas(64) uint32_t words[kRun];
          for (int64_t first = begin * kRun; first < std::min(end * kRun, elements);
               first += kRun) {
            const int64_t size = std::min(kRun, elements - first);
            for (int64_t i = 0; i < size; i += kWords)
              philox((first + i) / 4, static_cast<uint64_t>(args.seed), words + i);
            write_row(y + first, streams,
                      [&](auto* out) { dropout_run(x + first, words, out, size, least, scale); });
          }
        });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
