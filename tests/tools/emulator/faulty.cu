// Kernels with a planted fault each, and what they would compute without it. test_emulator.py
// says what must notice.
#include "cases.h"

using namespace pydl;

namespace {

constexpr unsigned all = 0xffffffffu;
constexpr int threads = 64;

void expect_values(const Memory<float>& y, const std::function<float(int)>& value) {
  for (int i = 0; i < y.end() - y.begin(); ++i)
    expect(y[i] == value(i), "element " + std::to_string(i));
}

// Barriers

__host__ __device__ int neighbour(int t, int distance) {
  return min(max(t + distance, 0), threads - 1);
}

template <int distance>
__global__ void no_barrier_after_store(float* y) {
  SHARED(float, x, [threads]);
  const int t = threadIdx.x;
  x[t] = static_cast<float>(t);
  y[t] = x[neighbour(t, distance)];
}
template <int distance>
void missing_barrier() {
  Memory<float> y(threads);
  start(no_barrier_after_store<distance>, 1, threads, 0, y);
  expect_values(y, [](int t) { return static_cast<float>(neighbour(t, distance)); });
}

// Others still read the first values when the second are stored.
__global__ void no_barrier_before_store(float* y) {
  SHARED(float, x, [threads]);
  const int t = threadIdx.x;
  for (int round = 0; round < 4; ++round) {
    x[t] = static_cast<float>(t + round);
    __syncthreads();
    y[t] = x[(t + 1) % threads] + (round > 0 ? y[t] : 0);
  }
}
void missing_barrier_before_overwriting() {
  Memory<float> y(threads);
  start(no_barrier_before_store, 1, threads, 0, y);
  expect_values(y, [](int t) { return static_cast<float>(4 * ((t + 1) % threads) + 6); });
}

__global__ void no_syncwarp(float* y) {
  SHARED(float, x, [32]);
  const int lane = threadIdx.x;
  x[31 - lane] = static_cast<float>(lane);
  y[lane] = x[lane];
}
void missing_syncwarp() {
  Memory<float> y(32);
  start(no_syncwarp, 1, 32, 0, y);
  expect_values(y, [](int t) { return static_cast<float>(31 - t); });
}

// A shuffle brings the lanes together but orders no memory.
__global__ void shuffle_as_barrier(float* y) {
  SHARED(float, x, [32]);
  const int lane = threadIdx.x;
  x[lane] = 1;
  const float zero = __shfl_sync(all, 0.f, 0);
  y[lane] = x[lane ^ 1] + zero;
}
void shuffle_is_no_barrier() {
  Memory<float> y(32);
  start(shuffle_as_barrier, 1, 32, 0, y);
  expect_values(y, [](int) { return 1.f; });
}

__global__ void both_branches(float* y) {
  if (threadIdx.x % 2 == 0) {
    y[threadIdx.x] = 0;
    __syncthreads();
  } else {
    __syncthreads();
    y[threadIdx.x] = 0;
  }
}
void divergent_barrier() { start(both_branches, 1, threads, 0, Memory<float>(threads)); }

__global__ void one_branch(float* y) {
  if (threadIdx.x < 40) __syncthreads();
  y[threadIdx.x] = 0;
}
void barrier_in_branch() { start(one_branch, 1, threads, 0, Memory<float>(threads)); }

__global__ void guard_before_barrier(float* y, int n) {
  const int t = threadIdx.x;
  if (t >= n) return;
  y[t] = 0;
  __syncthreads();
}
void early_exit() {
  start(guard_before_barrier, 1, threads, 0, Memory<float>(threads), threads - 1);
}

// Half of the block waits for the other half, which waits for it elsewhere.
__global__ void two_waits(unsigned* flag) {
  if (threadIdx.x == 0) {
    __syncthreads();
  } else if (threadIdx.x < 32) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  flag[0] = 1;
}
void crossed_waits() { start(two_waits, 1, threads, 0, Memory<unsigned>(1)); }

// Warps

__global__ void lane_that_stays_away(float* y) {
  const int lane = threadIdx.x;
  if (lane != 5) y[lane] = __shfl_xor_sync(all, static_cast<float>(lane), 1);
}
void missing_lane() { start(lane_that_stays_away, 1, 32, 0, Memory<float>(32)); }

__global__ void half_a_warp(float* y) { y[threadIdx.x] = __shfl_xor_sync(all, 1.f, 1); }
void lanes_that_never_were() { start(half_a_warp, 1, 48, 0, Memory<float>(48)); }

__global__ void mask_without_oneself(float* y) {
  y[threadIdx.x] = __shfl_xor_sync(0xfffffffeu, 1.f, 1);
}
void lane_outside_its_mask() { start(mask_without_oneself, 1, 32, 0, Memory<float>(32)); }

__global__ void two_masks(float* y) {
  const int lane = threadIdx.x;
  y[lane] = __shfl_xor_sync(lane == 31 ? all : 0x7fffffffu | 0x80000000u * (lane < 16), 1.f, 1);
}
void masks_that_differ() { start(two_masks, 1, 32, 0, Memory<float>(32)); }

__global__ void collectives_apart(float* y) {
  const int lane = threadIdx.x;
  y[lane] = lane < 16 ? __shfl_xor_sync(all, 1.f, 1) : __shfl_xor_sync(all, 2.f, 1);
}
void divergent_shuffle() { start(collectives_apart, 1, 32, 0, Memory<float>(32)); }

__global__ void source_outside_mask(float* y) {
  const int lane = threadIdx.x;
  if (lane < 16) y[lane] = __shfl_sync(0xffffu, static_cast<float>(lane), 16 + lane);
}
void shuffle_from_nobody() {
  Memory<float> y(16);
  start(source_outside_mask, 1, 32, 0, y);
  expect_values(y, [](int t) { return static_cast<float>(16 + t); });
}

// Memory

__global__ void sum_with_tail(float* y) {
  SHARED(float, x, [threads]);
  const int t = threadIdx.x;
  if (t < threads - 1) x[t] = 1;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < threads; ++i) sum += x[i];
  y[t] = sum;
}
void unwritten_shared_memory() {
  Memory<float> y(threads);
  start(sum_with_tail, 1, threads, 0, y);
  expect_values(y, [](int) { return threads - 1.f; });
}

__global__ void one_past_the_end(float* y, int n) {
  SHARED(float, x, [threads]);
  float* const first = x;
  for (int i = 0; i <= n; ++i) first[i] = 1;
  y[threadIdx.x] = first[threadIdx.x];
}
void shared_array_overrun() { start(one_past_the_end, 1, 1, 0, Memory<float>(1), threads); }

__global__ void one_past_the_dynamic_end(float* y, int n) {
  DYNAMIC_SHARED(float, x);
  for (int i = 0; i <= n; ++i) x[i] = 1;
  y[threadIdx.x] = x[threadIdx.x];
}
void dynamic_array_overrun() { start(one_past_the_dynamic_end, 1, 1, 40, Memory<float>(1), 10); }

__global__ void into_the_next_row(float* y, int columns) {
  SHARED(float, x, [4][8]);
  for (int c = 0; c <= columns; ++c) x[1][c] = 1;
  y[0] = x[1][0];
}
void row_overrun() { start(into_the_next_row, 1, 1, 0, Memory<float>(1), 8); }

__global__ void past_the_global_end(float* y) { y[threadIdx.x] = 1; }
void global_overrun() { start(past_the_global_end, 1, 33, 0, Memory<float>(32)); }

// Every block writes its element and reads its neighbour's.
__global__ void neighbours(float* x, float* y) {
  x[blockIdx.x] = 1;
  y[blockIdx.x] = x[(blockIdx.x + gridDim.x - 1) % gridDim.x];
}
void blocks_that_race() {
  Memory<float> x(8), y(8);
  start(neighbours, 8, 1, 0, x, y);
  expect_values(y, [](int) { return 1.f; });
}

// The same behind a barrier, which orders the threads of a block and nobody else.
__global__ void neighbours_behind_barriers(float* x, float* y) {
  if (threadIdx.x == 0) x[blockIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 1) y[blockIdx.x] = x[blockIdx.x ^ 1];
}
void blocks_that_race_behind_barriers() {
  Memory<float> x(4, 1), y(4);
  start(neighbours_behind_barriers, 4, 2, 0, x, y);
  expect_values(y, [](int) { return 1.f; });
}

__global__ void plain_increment(int* count) { *count += 1; }
void lost_update() {
  Memory<int> count(1);
  start(plain_increment, 2, 32, 0, count);
  expect(count[0] == 64, "count");
}

// The flag is raised without a release: what was written before may be seen after it.
__global__ void relaxed_flag(float* x, float* y, unsigned* flag) {
  if (blockIdx.x == 0) {
    x[0] = 1;
    atomicExch(flag, 1u);
  } else {
    while (load_acquire(flag) == 0) {
    }
    y[0] = x[0];
  }
}
void missing_release() {
  Memory<float> x(1), y(1);
  start_cooperative(relaxed_flag, 2, 1, 0, x, y, Memory<unsigned>(1));
  expect(y[0] == 1, "value");
}

// Asynchronous copies

template <bool wait, int groups_left>
__global__ void copy(const float* x, float* y) {
  SHARED(float, buffer, [2][32]);
  const int t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    cp_async<4>(&buffer[i][t], x + t);
    cp_async_commit();
  }
  if (wait) cp_async_wait<groups_left>();
  y[t] = buffer[1][t];
  cp_async_wait<0>();
}
template <bool wait, int groups_left>
void copied() {
  Memory<float> x(32, 1), y(32);
  start(copy<wait, groups_left>, 1, 32, 0, x, y);
  expect_values(y, [](int) { return 1.f; });
}

__global__ void copy_and_end(const float* x) {
  SHARED(float, buffer, [32]);
  cp_async<4>(&buffer[threadIdx.x], x + threadIdx.x);
  cp_async_commit();
}
void copy_never_waited_for() { start(copy_and_end, 1, 32, 0, Memory<float>(32)); }

__global__ void read_before_barrier(const float* x, float* y) {
  SHARED(float, buffer, [threads]);
  const int t = threadIdx.x;
  cp_async<4>(&buffer[t], x + t);
  cp_async_commit();
  cp_async_wait<0>();
  y[t] = buffer[t ^ 1];
}
void copy_without_barrier() {
  Memory<float> x(threads, 1), y(threads);
  start(read_before_barrier, 1, threads, 0, x, y);
  expect_values(y, [](int) { return 1.f; });
}

// The copy for the next round is issued while slower threads still read.
__global__ void copy_over(const float* x, float* y) {
  SHARED(float, buffer, [threads]);
  const int t = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    cp_async<4>(&buffer[t], x + t);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    sum += buffer[(t + 1) % threads];
  }
  y[t] = sum;
}
void copy_over_what_is_read() {
  Memory<float> x(threads, 1), y(threads);
  start(copy_over, 1, threads, 0, x, y);
  expect_values(y, [](int) { return 3.f; });
}

__global__ void crooked_copy(const float* x) {
  SHARED(float4, buffer, [2]);
  cp_async<16>(buffer, x + 1);
  cp_async_commit();
  cp_async_wait<0>();
}
void unaligned_copy() { start(crooked_copy, 1, 1, 0, Memory<float>(8)); }

// CUDA aligns an array of floats to 4 bytes.
__global__ void floats_taken_for_float4s(const float* x) {
  SHARED(float, buffer, [8]);
  cp_async<16>(buffer, x);
  cp_async_commit();
  cp_async_wait<0>();
}
void assumed_alignment() {
  Memory<float4> x(1);
  start(floats_taken_for_float4s, 1, 1, 0, &x[0].x);
}

__global__ void copy_to_nowhere(const float* x, float* y) {
  cp_async<4>(y, x);
  cp_async_commit();
  cp_async_wait<0>();
}
void copy_outside_shared_memory() {
  start(copy_to_nowhere, 1, 1, 0, Memory<float>(1), Memory<float>(1));
}

__global__ void crooked_matrix(uint32_t* out) {
  SHARED(uint4, rows, [9]);
  uint32_t registers[1];
  ldmatrix<1>(registers, reinterpret_cast<const uint16_t*>(rows) + threadIdx.x);
  out[0] = registers[0];
}
void unaligned_ldmatrix() { start(crooked_matrix, 1, 32, 0, Memory<uint32_t>(1)); }

// Grids

template <bool barrier>
__global__ void exchange(float* x, float* y) {
  if (threadIdx.x == 0) x[blockIdx.x] = 1;
  __syncthreads();
  if constexpr (barrier) grid_barrier();
  if (threadIdx.x == 0) y[blockIdx.x] = x[(blockIdx.x + gridDim.x - 1) % gridDim.x];
}
void missing_grid_barrier() {
  Memory<float> x(4), y(4);
  start_cooperative(exchange<false>, 4, threads, 0, x, y);
  expect_values(y, [](int) { return 1.f; });
}
void grid_barrier_in_a_plain_launch() {
  start(exchange<true>, 4, threads, 0, Memory<float>(4), Memory<float>(4));
}

__global__ void block_that_leaves() {
  if (blockIdx.x == 2) return;
  grid_barrier();
}
void grid_barrier_without_all_blocks() { start_cooperative(block_that_leaves, 4, 32, 0); }

__global__ void wait_for_flag(const unsigned* flag) {
  while (load_acquire(flag) == 0) {
  }
}
void flag_that_nobody_raises() { start_cooperative(wait_for_flag, 2, 32, 0, Memory<unsigned>(1)); }

// Launches that hardware refuses

__global__ void nothing() {}

#if defined(__CUDACC__)
constexpr int too_many = 12000;  // nvcc itself refuses more
#else
constexpr int too_many = 13000;
#endif

__global__ void much_shared_memory(float* y) {
  SHARED(float, x, [too_many]);
  x[threadIdx.x] = 0;
  y[threadIdx.x] = x[threadIdx.x];
}
void too_much_static_memory() { start(much_shared_memory, 1, 1, 0, Memory<float>(1)); }

}  // namespace

const std::vector<Case> faulty_cases = {
    {"missing_barrier_up", missing_barrier<1>},
    {"missing_barrier_down", missing_barrier<-1>},
    {"missing_barrier_before_overwriting", missing_barrier_before_overwriting},
    {"missing_syncwarp", missing_syncwarp},
    {"shuffle_is_no_barrier", shuffle_is_no_barrier},
    {"divergent_barrier", divergent_barrier},
    {"barrier_in_branch", barrier_in_branch},
    {"early_exit", early_exit},
    {"crossed_waits", crossed_waits},
    {"missing_lane", missing_lane},
    {"lanes_that_never_were", lanes_that_never_were},
    {"lane_outside_its_mask", lane_outside_its_mask},
    {"masks_that_differ", masks_that_differ},
    {"divergent_shuffle", divergent_shuffle},
    {"shuffle_from_nobody", shuffle_from_nobody},
    {"unwritten_shared_memory", unwritten_shared_memory},
    {"shared_array_overrun", shared_array_overrun},
    {"dynamic_array_overrun", dynamic_array_overrun},
    {"row_overrun", row_overrun},
    {"global_overrun", global_overrun},
    {"blocks_that_race", blocks_that_race},
    {"blocks_that_race_behind_barriers", blocks_that_race_behind_barriers},
    {"lost_update", lost_update},
    {"missing_release", missing_release},
    {"copy_without_wait", copied<false, 0>},
    {"copy_with_too_few_waits", copied<true, 1>},
    {"copy_never_waited_for", copy_never_waited_for},
    {"copy_without_barrier", copy_without_barrier},
    {"copy_over_what_is_read", copy_over_what_is_read},
    {"unaligned_copy", unaligned_copy},
    {"assumed_alignment", assumed_alignment},
    {"copy_outside_shared_memory", copy_outside_shared_memory},
    {"unaligned_ldmatrix", unaligned_ldmatrix},
    {"missing_grid_barrier", missing_grid_barrier},
    {"grid_barrier_in_a_plain_launch", grid_barrier_in_a_plain_launch},
    {"grid_barrier_without_all_blocks", grid_barrier_without_all_blocks},
    {"flag_that_nobody_raises", flag_that_nobody_raises},
    {"too_many_threads", [] { start(nothing, 1, dim3(32, 33), 0); }},
    {"too_tall_a_grid", [] { start(nothing, dim3(1, 65536), 1, 0); }},
    {"too_long_a_grid", [] { start(nothing, int64_t{1} << 32, 1, 0); }},
    {"empty_grid", [] { start(nothing, 0, 1, 0); }},
    {"too_much_dynamic_memory", [] { start(nothing, 1, 1, 227 * 1024 + 1); }},
    {"too_much_static_memory", too_much_static_memory},
    {"grid_that_is_not_resident", [] { start_cooperative(nothing, 129, 128, 0); }},
};
