// CUDA's execution model on a CPU, as a kernel's source sees it: the .cu is compiled as C++ and its
// threads run as fibers of one OS thread, for the tests. What is here bears CUDA's own names; what
// CUDA has no name for is in csrc/cuda/device.h.
//
// It shows faults rather than hides them (see emulator.cpp for how): barriers that not everybody
// reaches, lanes missing from a mask, deadlocks, bounds of a launch and bad addresses become
// exceptions with file, line and thread; shared memory that nobody wrote is NaN; a missing barrier
// makes wrong results in one of the orders that set_order selects. What it cannot show: speed, a
// weak memory model, the rounding inside tensor cores.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ \
  _Pragma("GCC error \"write SHARED(type, name, [sizes]): a raw __shared__ becomes a local\"")

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace pydl::emulator {

// The line that calls: barriers and collectives are matched by it, faults name it.
using Where = std::source_location;

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// 0: greedy, a thread runs until it waits, then those that woke last. Any other: random, drawn from
// this seed.
void set_order(uint64_t seed);
uint64_t order();

// Runs `thread(closure)` once for every thread of the grid and returns when all have ended. Throws
// what a thread threw.
struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  bool cooperative;
  Where where;
};
void run(const Configuration& configuration, void (*thread)(const void*), const void* closure);

// While launches are recorded none runs: what matters is which kernel is launched with which
// parameters, and the launching code sees an H100 (for tests/machine_code.py). `parameters` is what
// a kernel gets, one after the other, each aligned as its type is.
struct Record {
  const void* kernel;
  Configuration configuration;
  std::string parameters;
};
void start_recording();
std::vector<Record> stop_recording();
bool recording();
void record(Record record);

template <class T>
void append(std::string& parameters, const T& value) {
  parameters.resize((parameters.size() + alignof(T) - 1) / alignof(T) * alignof(T));
  parameters.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// The dynamic shared memory that a block may have, as on compute capability 9.0.
inline constexpr size_t max_shared_bytes = 227 * 1024;
// The blocks that a cooperative launch may have.
int64_t resident_blocks(dim3 block, size_t shared_bytes);

// Static shared memory: where the array of one declaration lies in the block of the calling thread.
struct SharedArray {
  uint64_t launch = 0;  // the launch for which `number` holds
  size_t number = 0;
};
void* shared(SharedArray& declaration, size_t bytes, size_t alignment, Where where);
void* dynamic_shared();

// Returns how many threads of the block brought a predicate that was not 0.
int block_barrier(const char* name, int predicate, Where where);
void grid_barrier(Where where);

// What the lanes of `mask` do together: the last to arrive does it, with the arguments of all.
// Every lane that the mask names must arrive: CUDA forgives one that has ended, here it is a fault,
// since what one reads from it is undefined.
using Work = void (*)(void* const (&arguments)[32], unsigned mask);
void collective(const char* name, unsigned mask, void* argument, Work work, Where where);
uint64_t shuffle(const char* name, unsigned mask, uint64_t bits, int source, Where where);
unsigned ballot(const char* name, unsigned mask, int predicate, Where where);

// Tensor cores (device.h has the layouts).
enum class Operand { float16, bfloat16, tf32 };
void multiply(Operand operand, float* c, const uint32_t* a, const uint32_t* b, Where where);
void load_matrices(int matrices, bool transposed, uint32_t* registers, const void* row,
                   Where where);

// Throws unless a whole access of this many bytes is aligned and inside a shared array of the
// block.
void check_shared(const char* name, const void* address, size_t bytes, Where where);

// Asynchronous copies. Between issue and wait the destination is NaN: it may hold the old, the new
// or half of each. A thread must wait for all of its own before it ends.
void copy_async(void* to, const void* from, size_t bytes, size_t source_bytes, Where where);
void commit_copies();
void wait_for_copies(uint64_t groups_left);

// Lets others run; for loops that wait for another thread's store.
void yield(Where where);
// A thread fence. To ThreadSanitizer each comes after those before it, which may hide a race but
// invents none.
void fence();

inline int lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <class T>
T shuffle(const char* name, unsigned mask, T value, int source, Where where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(name, mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float reciprocal_sqrt(float x) { return 1 / std::sqrt(x); }
inline double reciprocal_sqrt(double x) { return 1 / std::sqrt(x); }

}  // namespace pydl::emulator

#define PYDL_HERE ::pydl::emulator::Where where = ::pydl::emulator::Where::current()

inline void __syncthreads(PYDL_HERE) { pydl::emulator::block_barrier("__syncthreads", 0, where); }
inline int __syncthreads_count(int predicate, PYDL_HERE) {
  return pydl::emulator::block_barrier("__syncthreads_count", predicate, where);
}
inline int __syncthreads_or(int predicate, PYDL_HERE) {
  return pydl::emulator::block_barrier("__syncthreads_or", predicate, where) != 0;
}
inline int __syncthreads_and(int predicate, PYDL_HERE) {
  return pydl::emulator::block_barrier("__syncthreads_and", predicate == 0, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, PYDL_HERE) {
  pydl::emulator::collective("__syncwarp", mask, nullptr, nullptr, where);
}

// A source beyond the lane's segment of `width` lanes means the lane itself.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, PYDL_HERE) {
  const int lane = pydl::emulator::lane(), from = (lane & -width) | (source & (width - 1));
  return pydl::emulator::shuffle("__shfl_sync", mask, value, from, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, PYDL_HERE) {
  const int lane = pydl::emulator::lane(), from = lane - static_cast<int>(distance);
  return pydl::emulator::shuffle("__shfl_up_sync", mask, value,
                                 from < (lane & -width) ? lane : from, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, PYDL_HERE) {
  const int lane = pydl::emulator::lane(), from = lane + static_cast<int>(distance);
  return pydl::emulator::shuffle("__shfl_down_sync", mask, value,
                                 from > (lane | (width - 1)) ? lane : from, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, PYDL_HERE) {
  const int lane = pydl::emulator::lane(), from = lane ^ bits;
  return pydl::emulator::shuffle("__shfl_xor_sync", mask, value,
                                 from > (lane | (width - 1)) ? lane : from, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, PYDL_HERE) {
  return pydl::emulator::ballot("__ballot_sync", mask, predicate, where);
}
inline int __any_sync(unsigned mask, int predicate, PYDL_HERE) {
  return pydl::emulator::ballot("__any_sync", mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, PYDL_HERE) {
  return pydl::emulator::ballot("__all_sync", mask, predicate, where) == mask;
}

// Integers only: the order of a floating-point sum would differ from run to run.
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>,
                "no floating-point atomics: results must repeat bit for bit");
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < before && !__atomic_compare_exchange_n(address, &before, value, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  T before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (before < value && !__atomic_compare_exchange_n(address, &before, value, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline void __threadfence() { pydl::emulator::fence(); }
inline void __threadfence_block() { pydl::emulator::fence(); }

// CUDA's minimum of a number and a NaN is the number.
template <class T>
T min(T a, std::type_identity_t<T> b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
  return b < a ? b : a;
}
template <class T>
T max(T a, std::type_identity_t<T> b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
  return a < b ? b : a;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline int __ffs(int bits) { return bits ? std::countr_zero(static_cast<unsigned>(bits)) + 1 : 0; }

// Macros, because C libraries use some of these names themselves.
#define rsqrtf(x) (::pydl::emulator::reciprocal_sqrt(static_cast<float>(x)))
#define rsqrt(x) (::pydl::emulator::reciprocal_sqrt(x))
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
#define __fdividef(x, y) (static_cast<float>(x) / static_cast<float>(y))
