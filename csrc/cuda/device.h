// The one header that a .cu includes besides its family's contract: CUDA under nvcc, the emulator
// under g++.
//
// A kernel keeps CUDA's own words (__global__, threadIdx, __syncthreads(), __shfl_xor_sync, ...).
// The words below stand for what C++ cannot spell (shared arrays, <<<>>>) or CUDA spells in PTX
// only; each has a body for either world.
//
//   SHARED(float, tile, [32][33]);  a shared array, or without sizes a shared variable; aligned as
//                                   its type is: for 16-byte accesses declare float4 or uint4
//   DYNAMIC_SHARED(float, stage);   float* stage: what launch() was asked for, 16-byte aligned
//
//   launch(kernel, grid, block, shared_bytes, stream, arguments...);
//   launch_cooperative(...);
//   resident_blocks(kernel, block, shared_bytes);
//   max_shared_bytes();
//   grid_barrier();
//   load_acquire(address);
//   store_release(address, value);
//
//   cp_async<16>(shared, global[, source_bytes]);
//   cp_async_commit();
//   cp_async_wait<groups_left>();
//
//   mma_sync<float16 | bfloat16 | tf32>(c, a, b);
//   ldmatrix<1 | 2 | 4, transposed>(registers, row);
//   to_tf32(x);
//
//   reciprocal_sqrt(x);
//   near_sqrt(x);
//   canonical_nan(x);
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#if defined(__CUDACC__)
#include <cooperative_groups.h>
#include <cuda_runtime.h>
#elif defined(PYDL_EMULATED)
#include "../emulator/emulator.h"
#else
#error "a .cu is compiled with nvcc, or with g++ and -DPYDL_EMULATED"
#endif

#include "../half.h"

#if defined(__CUDACC__)
#define SHARED(type, name, ...) __shared__ type name __VA_ARGS__
// One array under one name for the whole file: CUDA lets no two kernels declare it with different
// types.
#define DYNAMIC_SHARED(type, name)                                     \
  extern __shared__ __align__(16) unsigned char pydl_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(pydl_dynamic_shared)
#define PYDL_WHERE
#else
#define SHARED(type, name, ...)                                                             \
  static ::pydl::emulator::SharedArray name##_array;                                        \
  auto& name = *static_cast<std::add_pointer_t<type __VA_ARGS__>>(::pydl::emulator::shared( \
      name##_array, sizeof(type __VA_ARGS__), alignof(type), ::pydl::emulator::Where::current()))
#define DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::pydl::emulator::dynamic_shared())
#define PYDL_WHERE , ::pydl::emulator::Where where = ::pydl::emulator::Where::current()
#endif

namespace pydl {

// Launches

// The size of a grid, which remembers the line that asked for it: errors name that line.
struct Grid {
  dim3 size;
  std::source_location where;

  Grid(dim3 size, std::source_location where = std::source_location::current())
      : size(size), where(where) {}
  // Block counts are computed in 64 bits; one that does not fit must not wrap around.
  Grid(int64_t x, std::source_location where = std::source_location::current())
      : size(0), where(where) {
    if (x <= 0x7fffffff)
      size.x = static_cast<unsigned>(x < 0 ? 0 : x);
    else
      throw std::runtime_error("a grid of " + std::to_string(x) +
                               " blocks: CUDA allows 2147483647");
  }
};

namespace detail {

[[noreturn]] inline void launch_failed(const Grid& grid, dim3 block, size_t shared_bytes,
                                       const char* why) {
  const std::string path = grid.where.file_name();
  std::ostringstream message;
  message << "the kernel launch at " << path.substr(path.find_last_of('/') + 1) << ':'
          << grid.where.line() << " (grid " << grid.size.x << " x " << grid.size.y << " x "
          << grid.size.z << ", block " << block.x << " x " << block.y << " x " << block.z << ", "
          << shared_bytes << " bytes of dynamic shared memory) failed: " << why;
  throw std::runtime_error(message.str());
}

inline void check_sizes(const Grid& grid, dim3 block, size_t shared_bytes) {
  const auto empty = [](dim3 size) { return size.x == 0 || size.y == 0 || size.z == 0; };
  if (empty(grid.size)) launch_failed(grid, block, shared_bytes, "the grid is empty");
  if (empty(block)) launch_failed(grid, block, shared_bytes, "the block is empty");
}

#if defined(__CUDACC__)

inline void require(cudaError_t error, const Grid& grid, dim3 block, size_t shared_bytes) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears it, or the next user of the device would be told of this error
  launch_failed(grid, block, shared_bytes, cudaGetErrorString(error));
}

// More than 48 KB of dynamic shared memory is given only to kernels that have been allowed it.
template <class... Parameters>
void allow_shared_bytes(void (*kernel)(Parameters...), const Grid& grid, dim3 block,
                        size_t shared_bytes) {
  if (shared_bytes <= 48 * 1024) return;
  const int bytes = static_cast<int>(shared_bytes);
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), grid,
          block, shared_bytes);
}

template <class... Parameters>
int64_t resident_blocks(void (*kernel)(Parameters...), const Grid& grid, dim3 block,
                        size_t shared_bytes) {
  allow_shared_bytes(kernel, grid, block, shared_bytes);
  const int threads = static_cast<int>(block.x * block.y * block.z);
  int device, multiprocessors, cooperative, blocks;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes);
  require(error, grid, block, shared_bytes);
  return cooperative ? int64_t{blocks} * multiprocessors : 0;
}

inline int64_t max_shared_bytes(const Grid& grid) {
  int device, bytes;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  require(error, grid, dim3(), 0);
  return bytes;
}

template <class... Parameters, class... Arguments>
void launch(bool cooperative, void (*kernel)(Parameters...), const Grid& grid, dim3 block,
            size_t shared_bytes, int64_t stream, Arguments&&... arguments) {
  allow_shared_bytes(kernel, grid, block, shared_bytes);
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t configuration = {};
  configuration.gridDim = grid.size;
  configuration.blockDim = block;
  configuration.dynamicSmemBytes = shared_bytes;
  configuration.stream = reinterpret_cast<cudaStream_t>(stream);
  configuration.attrs = &attribute;
  configuration.numAttrs = cooperative ? 1 : 0;
  require(cudaLaunchKernelEx(&configuration, kernel, static_cast<Parameters>(arguments)...), grid,
          block, shared_bytes);
}

#else

template <class... Parameters>
int64_t resident_blocks(void (*)(Parameters...), const Grid&, dim3 block, size_t shared_bytes) {
  return emulator::resident_blocks(block, shared_bytes);
}

inline int64_t max_shared_bytes(const Grid&) { return emulator::max_shared_bytes; }

template <class... Parameters, class... Arguments>
void launch(bool cooperative, void (*kernel)(Parameters...), const Grid& grid, dim3 block,
            size_t shared_bytes, int64_t, Arguments&&... arguments) {
  using Call = std::tuple<void (*)(Parameters...), Parameters...>;
  const auto thread = [](const void* call) {
    // Every thread gets parameters of its own, as it does on a GPU.
    std::apply([](auto kernel, auto... parameters) { kernel(parameters...); },
               *static_cast<const Call*>(call));
  };
  const emulator::Configuration configuration = {grid.size, block, shared_bytes, cooperative,
                                                 grid.where};
  if (emulator::recording()) {
    std::string parameters;
    (emulator::append(parameters, static_cast<Parameters>(arguments)), ...);
    return emulator::record({reinterpret_cast<const void*>(kernel), configuration, parameters});
  }
  const Call call(kernel, static_cast<Parameters>(arguments)...);
  emulator::run(configuration, thread, &call);
}

#endif

}  // namespace detail

// Runs the kernel on `stream`, a cudaStream_t. Throws std::runtime_error where CUDA refuses; an
// empty grid is refused too.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, dim3 block, size_t shared_bytes,
            int64_t stream, Arguments&&... arguments) {
  detail::check_sizes(grid, block, shared_bytes);
  detail::launch(false, kernel, grid, block, shared_bytes, stream, arguments...);
}

// How many blocks a cooperative launch of this kernel may have on the current device.
template <class... Parameters>
int64_t resident_blocks(void (*kernel)(Parameters...), dim3 block, size_t shared_bytes,
                        std::source_location where = std::source_location::current()) {
  return detail::resident_blocks(kernel, Grid(dim3(), where), block, shared_bytes);
}

// How many bytes of dynamic shared memory a block may ask for on the current device.
inline int64_t max_shared_bytes(std::source_location where = std::source_location::current()) {
  return detail::max_shared_bytes(Grid(dim3(), where));
}

// The same, with all blocks running at once, so that they may wait for each other: grid_barrier()
// and spin loops work.
template <class... Parameters, class... Arguments>
void launch_cooperative(void (*kernel)(Parameters...), const Grid& grid, dim3 block,
                        size_t shared_bytes, int64_t stream, Arguments&&... arguments) {
  detail::check_sizes(grid, block, shared_bytes);
  const int64_t blocks = int64_t{grid.size.x} * grid.size.y * grid.size.z;
  const int64_t resident = detail::resident_blocks(kernel, grid, block, shared_bytes);
  if (blocks > resident) {
    const std::string why =
        "a cooperative launch needs all its blocks resident, and this device holds " +
        std::to_string(resident) + " of them at once";
    detail::launch_failed(grid, block, shared_bytes, why.c_str());
  }
  detail::launch(true, kernel, grid, block, shared_bytes, stream, arguments...);
}

// Barriers and flags across blocks

// Waits for every thread of the grid; what they wrote before is seen after. Cooperative launches
// only.
#if defined(__CUDACC__)
__device__ __forceinline__ void grid_barrier() { cooperative_groups::this_grid().sync(); }
#else
inline void grid_barrier(std::source_location where = std::source_location::current()) {
  emulator::grid_barrier(where);
}
#endif

// What was written before store_release(address, value), by that thread or seen by it through a
// barrier, is seen by whoever reads that value with load_acquire. Integers of 4 or 8 bytes,
// anywhere on the device.
template <class T>
__device__ __forceinline__ T load_acquire(const T* address PYDL_WHERE) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
#if defined(__CUDACC__)
  T value;
  if constexpr (sizeof(T) == 4)
    asm volatile("ld.acquire.gpu.b32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  else
    asm volatile("ld.acquire.gpu.b64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
  return value;
#else
  emulator::yield(where);
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
#endif
}

template <class T>
__device__ __forceinline__ void store_release(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4)
    asm volatile("st.release.gpu.b32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
  else
    asm volatile("st.release.gpu.b64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
#else
  __atomic_store_n(address, value, __ATOMIC_RELEASE);
#endif
}

// Asynchronous copies from global to shared memory

// Copies `bytes` (4, 8 or 16, both addresses aligned to it), of which the first `source_bytes` are
// read and the rest are zeros; with 0 nothing is read. Seen by this thread after its wait, by
// others after a barrier that follows it.
template <int bytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global,
                                         int source_bytes = bytes PYDL_WHERE) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
#if defined(__CUDACC__)
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const size_t from = __cvta_generic_to_global(global);
  // Sixteen bytes can bypass L1: nobody else in the block wants them.
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(bytes),
                 "r"(source_bytes)
                 : "memory");
  }
#else
  emulator::copy_async(shared, global, bytes, source_bytes, where);
#endif
}

// Makes one group of the copies that this thread issued since the last commit; there may be none.
__device__ __forceinline__ void cp_async_commit() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulator::commit_copies();
#endif
}

// Waits until at most the `groups_left` groups that this thread committed last are still under way.
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#else
  emulator::wait_for_copies(groups_left);
#endif
}

// Tensor cores

struct tf32 {};  // names the type of operands that are floats with 10 bits of mantissa

// Rounds to the nearest tf32, ties away from zero, as the bits that mma_sync<tf32> takes.
__device__ __forceinline__ uint32_t to_tf32(float value) {
  uint32_t bits;
#if defined(__CUDACC__)
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
#else
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
  bits &= ~0x1fffu;
#endif
  return bits;
}

// c += a * b by one warp, all 32 lanes: a is 16 x K, b is K x 8, c is 16 x 8 in float; K is 16 for
// float16 and bfloat16 (two values per register, the lower half first), 8 for tf32. With
// g = lane / 4 and t = lane % 4, lane holds
//
//   a   (row, k)       16-bit   [0] (g, 2t..2t+1)   [1] (g + 8, 2t..)
//                               [2] (g, 2t + 8..)   [3] (g + 8, 2t + 8..)
//                      tf32     [0] (g, t)          [1] (g + 8, t)
//                               [2] (g, t + 4)      [3] (g + 8, t + 4)
//   b   (k, column)    16-bit   [0] (2t..2t+1, g)   [1] (2t + 8.., g)
//                      tf32     [0] (t, g)          [1] (t + 4, g)
//   c   (row, column)  float    [0] (g, 2t)         [1] (g, 2t + 1)
//                               [2] (g + 8, 2t)     [3] (g + 8, 2t + 1)
template <class T>
__device__ __forceinline__ void mma_sync(float (&c)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2] PYDL_WHERE) {
  static_assert(std::is_same_v<T, float16> || std::is_same_v<T, bfloat16> ||
                std::is_same_v<T, tf32>);
#if defined(__CUDACC__)
#define PYDL_MMA(shape_and_types)                                                 \
  asm volatile("mma.sync.aligned." shape_and_types                                \
               " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (std::is_same_v<T, float16>)
    PYDL_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  else if constexpr (std::is_same_v<T, bfloat16>)
    PYDL_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  else
    PYDL_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
#undef PYDL_MMA
#else
  constexpr emulator::Operand operand = std::is_same_v<T, float16>    ? emulator::Operand::float16
                                        : std::is_same_v<T, bfloat16> ? emulator::Operand::bfloat16
                                                                      : emulator::Operand::tf32;
  // Read and written here, where the bounds of the kernel's arrays are known.
  float sums[4] = {c[0], c[1], c[2], c[3]};
  emulator::multiply(operand, sums, a, b, where);
  for (int i = 0; i < 4; ++i) c[i] = sums[i];
#endif
}

// Loads 8 x 8 matrices of 16-bit values from shared memory, all 32 lanes of a warp together. Lanes
// 0 to 7 give the addresses of the rows of matrix 0 (16 bytes each, 16-byte aligned), lanes 8 to 15
// of matrix 1, and so on; the rest are ignored. Register i gets from matrix i, with g = lane / 4
// and t = lane % 4, the values (g, 2t) and (g, 2t + 1), the first in the lower half; transposed,
// (2t, g) and (2t + 1, g). So a of mma_sync is ldmatrix<4> of its quarters in the order of its
// registers, and b is ldmatrix<2> of rows that run along k, or ldmatrix<2, true> of rows that run
// along the columns.
template <int matrices, bool transposed = false>
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[matrices], const void* row PYDL_WHERE) {
  static_assert(matrices == 1 || matrices == 2 || matrices == 4);
#if defined(__CUDACC__)
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
#define PYDL_LDMATRIX(trans)                                                                 \
  if constexpr (matrices == 1) {                                                             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 {%0}, [%1];"             \
                 : "=r"(r[0])                                                                \
                 : "r"(from)                                                                 \
                 : "memory");                                                                \
  } else if constexpr (matrices == 2) {                                                      \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 {%0, %1}, [%2];"         \
                 : "=r"(r[0]), "=r"(r[1])                                                    \
                 : "r"(from)                                                                 \
                 : "memory");                                                                \
  } else {                                                                                   \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                            \
                 : "r"(from)                                                                 \
                 : "memory");                                                                \
  }
  if constexpr (transposed) {
    PYDL_LDMATRIX(".trans")
  } else {
    PYDL_LDMATRIX("")
  }
#undef PYDL_LDMATRIX
#else
  emulator::load_matrices(matrices, transposed, r, row, where);
#endif
}

// Arithmetic

// 1 / sqrt(x) for x >= 0: of floats within 2 units in the last place, by a GPU's instruction for it.
template <class A>
__device__ __forceinline__ A reciprocal_sqrt(A x) {
#if defined(__CUDACC__)
  return rsqrt(x);
#else
  return 1 / std::sqrt(x);
#endif
}

// sqrt(x) for x >= 0 that is not subnormal: of floats within one unit in the last place, in one of a
// GPU's instructions, where the nearest takes about ten.
template <class A>
__device__ __forceinline__ A near_sqrt(A x) {
#if defined(__CUDACC__)
  if constexpr (std::is_same_v<A, float>) {
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
  } else {
    return std::sqrt(x);
  }
#else
  return std::sqrt(x);
#endif
}

// x, but of NaN the one whose bits are 0x7fffffff.
__device__ __forceinline__ float canonical_nan(float x) {
#if defined(__CUDACC__)
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(x), "f"(-INFINITY));
  return x;
#else
  return x != x ? detail::float_of(0x7fffffff) : x;
#endif
}

}  // namespace pydl
