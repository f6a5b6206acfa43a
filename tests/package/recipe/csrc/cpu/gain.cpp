// A map times a number (definition in ../gain.h). A task is a run of 4096 elements.
//
// Bytes: x read, y written once. Operations: a multiplication per element.
#include "../gain.h"

#include "parallel.h"
#include "stream.h"

namespace pydl::cpu::PYDL_ISA {

constexpr int64_t kRun = 4096;

void gain_forward(const GainForward& args, int64_t threads) {
  dispatch_floating(args.x.dtype, "gain", [&]<class T>(T) {
    using A = accumulate_t<T>;
    const int64_t elements = args.x.numel(), runs = (elements + kRun - 1) / kRun;
    const A factor = static_cast<A>(args.factor);
    share_out(runs, team_size(runs, elements, threads), [&](int64_t, int64_t begin, int64_t end) {
      const int64_t first = begin * kRun, size = std::min(end * kRun, elements) - first;
      const T* x = static_cast<const T*>(args.x.data) + first;
      T* y = static_cast<T*>(args.y.data) + first;
      for_vectors_once<A>(size, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
        write_vec<lanes>(load_vec<lanes>(x + i) * factor, y + i);
      });
    });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
