// Work shared out among OpenMP threads: contiguous runs of items, one run per thread.
//
// A kernel's items (output rows, blocks of positions) are computed from its inputs alone, so
// neither the number of threads nor the seams between their runs can be seen in a result.
#pragma once

#include <omp.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

namespace pydl::cpu::PYDL_ISA {

// How many of `threads` are worth waking for `elements` floats moved. Two threads halve the time at
// 65,536 floats (10.8 to 5.7 us for a copy) and gain nothing much below.
inline int64_t team_size(int64_t items, int64_t elements, int64_t threads) {
  return std::clamp<int64_t>(elements / 32768, 1, std::max<int64_t>(1, std::min(threads, items)));
}

// Calls body(member, first, last) once for each member of the team; the runs [first, last) cover
// [0, items).
template <class Body>
void share_out(int64_t items, int64_t team, const Body& body) {
  const auto run = [&](int64_t member, int64_t members) {
    body(member, items * member / members, items * (member + 1) / members);
#if defined(__SSE2__)
    _mm_sfence();  // nothing else orders what stream.h stores
#endif
  };
  if (team == 1) return run(0, 1);
#pragma omp parallel num_threads(static_cast<int>(team))
  run(omp_get_thread_num(), omp_get_num_threads());
}

// Memory for a team, taken before its threads start so that a failure is an exception in the
// caller. Each member's part begins at a cache line.
template <class T>
class Scratch {
 public:
  Scratch(int64_t team, int64_t size)
      : size_((size + kLine - 1) / kLine * kLine),
        memory_(new (std::align_val_t{64}) T[team * size_]) {}
  T* of(int64_t member) const { return memory_.get() + member * size_; }

 private:
  static constexpr int64_t kLine = 64 / sizeof(T);
  struct Delete {
    void operator()(T* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
  };

  int64_t size_;
  std::unique_ptr<T[], Delete> memory_;
};

}  // namespace pydl::cpu::PYDL_ISA
