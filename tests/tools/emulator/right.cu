// Kernels without a fault: every order and every sanitizer must find them right.
#include "cases.h"

using namespace pydl;

namespace {

constexpr unsigned all = 0xffffffffu;

// Blocks and warps

__global__ void block_sum(const float* x, float* sums, int n) {
  SHARED(float, partial, [64]);
  const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  partial[t] = i < n ? x[i] : 0;
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) partial[t] += partial[t + half];
  }
  if (t == 0) sums[blockIdx.x] = partial[0];
}

void block_sums() {
  constexpr int n = 250;
  Memory<float> x(n), sums(4);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i);
  start(block_sum, 4, 64, 0, x, sums, n);
  for (int b = 0; b < 4; ++b) {
    float sum = 0;
    for (int i = b * 64; i < n && i < b * 64 + 64; ++i) sum += x[i];
    expect(sums[b] == sum, "block " + std::to_string(b));
  }
}

// A sum of doubles by every kind of shuffle, over segments of `width` lanes.
__global__ void warp_sum(double* out, int width) {
  const int lane = threadIdx.x;
  const double x = lane * lane;
  double by_xor = x, by_down = x, by_up = x;
  for (int d = width / 2; d > 0; d /= 2) by_xor += __shfl_xor_sync(all, by_xor, d, width);
  for (int d = width / 2; d > 0; d /= 2) by_down += __shfl_down_sync(all, by_down, d, width);
  for (int d = 1; d < width; d *= 2) {
    const double below = __shfl_up_sync(all, by_up, d, width);
    if (lane % width >= d) by_up += below;
  }
  out[lane] = by_xor;
  out[32 + lane] = __shfl_sync(all, by_down, 0, width);
  out[64 + lane] = __shfl_sync(all, by_up, width - 1, width);
}

void warp_sums() {
  for (int width : {2, 8, 32}) {
    Memory<double> out(96);
    start(warp_sum, 1, 32, 0, out, width);
    for (int i = 0; i < 96; ++i) {
      double sum = 0;
      for (int lane = i % 32 / width * width, last = lane + width; lane < last; ++lane)
        sum += lane * lane;
      expect(out[i] == sum, "width " + std::to_string(width) + ", element " + std::to_string(i));
    }
  }
}

// The two halves of a warp go different ways, each with its own mask.
__global__ void halves(int* out) {
  const int lane = threadIdx.x;
  if (lane < 16) {
    out[lane] = __shfl_xor_sync(0x0000ffffu, lane, 1);
  } else {
    const int swapped = __shfl_xor_sync(0xffff0000u, lane, 2);
    __syncwarp(0xffff0000u);
    out[lane] = swapped;
  }
  out[lane] += 100 * (__shfl_sync(all, lane, 31) == 31);
}

void half_warps() {
  Memory<int> out(32);
  start(halves, 1, 32, 0, out);
  for (int i = 0; i < 32; ++i)
    expect(out[i] == 100 + (i < 16 ? i ^ 1 : i ^ 2), "lane " + std::to_string(i));
}

// 40 threads: the second warp has 8.
__global__ void vote(int* out) {
  const int t = threadIdx.x;
  const unsigned mask = t < 32 ? all : 0xffu;
  out[t] = static_cast<int>(__ballot_sync(mask, t % 3 == 0));
  out[40 + t] = __any_sync(mask, t == 35) + 2 * __all_sync(mask, t < 32);
  out[80 + t] = __syncthreads_count(t < 7) + 100 * __syncthreads_or(t == 39) +
                1000 * __syncthreads_and(t < 39);
}

void votes() {
  Memory<int> out(120);
  start(vote, 1, 40, 0, out);
  for (int t = 0; t < 40; ++t) {
    expect(static_cast<unsigned>(out[t]) == (t < 32 ? 0x49249249u : 0x92u), "ballot");
    expect(out[40 + t] == (t < 32 ? 2 : 1), "any and all");
    expect(out[80 + t] == 107, "votes of a block");
  }
}

__global__ void transpose(const float* x, float* y, int rows, int columns) {
  SHARED(float, tile, [8][9]);
  const int row = blockIdx.y * 8 + threadIdx.y, column = blockIdx.x * 8 + threadIdx.x;
  if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = x[row * columns + column];
  __syncthreads();
  const int to_row = blockIdx.x * 8 + threadIdx.y, to_column = blockIdx.y * 8 + threadIdx.x;
  if (to_row < columns && to_column < rows)
    y[to_row * rows + to_column] = tile[threadIdx.x][threadIdx.y];
}

void transposes() {
  constexpr int rows = 19, columns = 13;
  Memory<float> x(rows * columns), y(rows * columns);
  for (int i = 0; i < rows * columns; ++i) x[i] = static_cast<float>(i);
  start(transpose, dim3((columns + 7) / 8, (rows + 7) / 8), dim3(8, 8), 0, x, y, rows, columns);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) expect(y[c * rows + r] == x[r * columns + c], "element");
  }
}

__global__ void coordinates(int* seen, dim3 grid) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  grid.x += blockIdx.x;  // a parameter is each thread's own
  if (grid.x - blockIdx.x == gridDim.x) atomicAdd(&seen[block * 6 + thread], 1);
}

void every_thread_once() {
  Memory<int> seen(24 * 6);
  start(coordinates, dim3(2, 3, 4), dim3(3, 2, 1), 0, seen, dim3(2, 3, 4));
  for (int count : seen) expect(count == 1, "a thread ran " + std::to_string(count) + " times");
}

// Shared memory

template <class T>
__device__ T doubled(T value) {
  SHARED(T, slot, [32]);  // an array for each T
  slot[threadIdx.x] = value;
  __syncthreads();
  return slot[31 - threadIdx.x] * 2;
}

__global__ void shared_kinds(double* out) {
  DYNAMIC_SHARED(double, many);
  SHARED(int, one);
  const int t = threadIdx.x;
  if (t == 0) one = 5;
  many[t] = t;
  many[8000 + t] = 10 * t;
  const float small = doubled(static_cast<float>(t));
  const double large = doubled(100.0 * t);
  out[blockIdx.x * 32 + t] = small + large + many[31 - t] + many[8031 - t] + one;
}

void shared_arrays() {
  Memory<double> out(64);
  start(shared_kinds, 2, 32, 8032 * sizeof(double), out);
  for (int t = 0; t < 64; ++t)
    expect(out[t] == (31 - t % 32) * 213 + 5, "thread " + std::to_string(t));
}

// Copies x through two buffers, the next tile under way while this one is used; what is beyond n
// becomes zeros.
template <int bytes>
__global__ void copy_through(const float* x, float* y, int n) {
  constexpr int each = bytes / 4, tile = 32 * each;
  SHARED(float4, buffer, [2][tile / 4]);
  float (*const stage)[tile] = reinterpret_cast<float (*)[tile]>(buffer);
  const int tiles = (n + tile - 1) / tile, own = threadIdx.x * each;
  const auto fetch = [&](int i) {
    const int left = n - (i * tile + own);
    if (i < tiles)
      cp_async<bytes>(&stage[i % 2][own], x + i * tile + own,
                      left <= 0     ? 0
                      : left < each ? left * 4
                                    : bytes);
    cp_async_commit();
  };
  fetch(0);
  for (int i = 0; i < tiles; ++i) {
    fetch(i + 1);
    cp_async_wait<1>();
    __syncthreads();
    for (int j = 0; j < each; ++j)
      y[i * tile + j * 32 + threadIdx.x] = stage[i % 2][tile - 1 - (j * 32 + threadIdx.x)];
    __syncthreads();
  }
}

template <int bytes>
void copies() {
  constexpr int tile = 32 * bytes / 4, tiles = 5, n = tile * tiles - 3;
  Memory<float> x(tile * tiles), y(tile * tiles);
  for (int i = 0; i < tile * tiles; ++i) x[i] = static_cast<float>(i + 1);
  start(copy_through<bytes>, 1, 32, 0, x, y, n);
  for (int i = 0; i < tile * tiles; ++i) {
    const int from = i / tile * tile + tile - 1 - i % tile;
    expect(y[i] == (from < n ? x[from] : 0), "element " + std::to_string(i));
  }
}

// Tensor cores

// One 8 x 8 matrix holds 0 to 63, the next 100 to 163 and so on; out[i] gets the pair that lane i %
// 32 finds in register i / 32.
template <int matrices, bool transposed>
__global__ void fetch_matrices(uint32_t* out) {
  SHARED(uint4, rows, [8 * matrices]);
  const int lane = threadIdx.x;
  uint16_t* values = reinterpret_cast<uint16_t*>(rows);
  for (int i = lane; i < 64 * matrices; i += 32)
    values[i] = static_cast<uint16_t>(i / 64 * 100 + i % 64);
  __syncwarp();
  uint32_t registers[matrices];
  ldmatrix<matrices, transposed>(registers, &rows[lane % (8 * matrices)]);
  for (int i = 0; i < matrices; ++i) out[i * 32 + lane] = registers[i];
}

template <int matrices, bool transposed>
void matrices_of() {
  Memory<uint32_t> out(32 * matrices);
  start(fetch_matrices<matrices, transposed>, 1, 32, 0, out);
  for (uint32_t i = 0; i < 32 * matrices; ++i) {
    const uint32_t g = i % 32 / 4, t = i % 4, base = i / 32 * 100;
    const uint32_t first = transposed ? 2 * t * 8 + g : g * 8 + 2 * t,
                   second = transposed ? first + 8 : first + 1;
    expect(out[i] == (base + first) + (base + second) * 65536,
           "register of lane " + std::to_string(i));
  }
}

// One product with the fragments filled element by element, after the tables of the PTX manual.
template <class T>
__global__ void product(const float* a, const float* b, float* c) {  // (16, 16), (16, 8), (16, 8)
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const auto pair = [](float low, float high) {
    return T(low).bits + (static_cast<uint32_t>(T(high).bits) << 16);
  };
  uint32_t a_fragment[4], b_fragment[2];
  for (int i = 0; i < 4;
       ++i) {  // a0,a1 (g, 2t..); a2,a3 (g + 8, 2t..); a4,a5 (g, 2t + 8..); a6,a7 (g + 8, 2t + 8..)
    const float* from = a + (g + (i % 2) * 8) * 16 + 2 * t + (i / 2) * 8;
    a_fragment[i] = pair(from[0], from[1]);
  }
  for (int i = 0; i < 2; ++i) {  // b0,b1 (2t.., g); b2,b3 (2t + 8.., g)
    const float* from = b + (2 * t + i * 8) * 8 + g;
    b_fragment[i] = pair(from[0], from[8]);
  }
  float accumulators[4];
  for (int i = 0; i < 4; ++i) accumulators[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_sync<T>(accumulators, a_fragment, b_fragment);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = accumulators[i];
}

__global__ void product_tf32(const float* a, const float* b,
                             float* c) {  // (16, 8), (8, 8), (16, 8)
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const uint32_t a_fragment[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]),
                                  to_tf32(a[g * 8 + t + 4]), to_tf32(a[(g + 8) * 8 + t + 4])};
  const uint32_t b_fragment[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
  float accumulators[4];
  for (int i = 0; i < 4; ++i) accumulators[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_sync<tf32>(accumulators, a_fragment, b_fragment);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = accumulators[i];
}

// Integers small enough for every type to hold them and their products exactly.
void fill(const Memory<float>& memory, int seed) {
  for (float& value : memory) value = static_cast<float>((seed = seed * 75 % 65537) % 17 - 8);
}

template <int K>
void products(void (*kernel)(const float*, const float*, float*)) {
  Memory<float> a(16 * K), b(K * 8), c(16 * 8), before(16 * 8);
  fill(a, 1);
  fill(b, 2);
  fill(c, 3);
  fill(before, 3);
  start(kernel, 1, 32, 0, a, b, c);
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float sum = before[m * 8 + n];
      for (int k = 0; k < K; ++k) sum += a[m * K + k] * b[k * 8 + n];
      expect(c[m * 8 + n] == sum, "element (" + std::to_string(m) + ", " + std::to_string(n) + ")");
    }
  }
}

// c = a b for any sizes: a block of two warps makes a 32 x 8 tile, both operands staged in shared
// memory by cp_async, b's rows along the columns, so that its fragments need the transposed load.
template <class T>
__global__ void gemm(const T* a, const T* b, float* c, int M, int N,
                     int K) {  // (M, K), (K, N), (M, N); K, N multiples of 8
  SHARED(uint4, a_rows, [2][32][2]);
  SHARED(uint4, b_rows, [2][16]);
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, first = blockIdx.x * 32,
            column = blockIdx.y * 8;
  const auto fetch = [&](int step) {
    const int row = t / 2, k = step * 16 + t % 2 * 8;
    if (step * 16 < K) {
      const bool inside = first + row < M && k < K;
      cp_async<16>(&a_rows[step % 2][row][t % 2], inside ? a + (first + row) * K + k : a,
                   inside ? 16 : 0);
      const bool there = step * 16 + t < K;
      if (t < 16)
        cp_async<16>(&b_rows[step % 2][t], there ? b + (step * 16 + t) * N + column : b,
                     there ? 16 : 0);
    }
    cp_async_commit();
  };
  float sums[4] = {};
  fetch(0);
  for (int step = 0; step * 16 < K; ++step) {
    fetch(step + 1);
    cp_async_wait<1>();
    __syncthreads();
    uint32_t a_fragment[4], b_fragment[2];
    ldmatrix<4>(a_fragment, &a_rows[step % 2][warp * 16 + lane % 16][lane / 16]);
    ldmatrix<2, true>(b_fragment, &b_rows[step % 2][lane % 16]);
    mma_sync<T>(sums, a_fragment, b_fragment);
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    const int m = first + warp * 16 + lane / 4 + i / 2 * 8, n = column + lane % 4 * 2 + i % 2;
    if (m < M) c[m * N + n] = sums[i];
  }
}

template <class T>
void gemms() {
  constexpr int M = 45, N = 16, K = 40;
  Memory<float> wide_a(M * K), wide_b(K * N), c(M * N);
  Memory<T> a(M * K), b(K * N);
  fill(wide_a, 4);
  fill(wide_b, 5);
  for (int i = 0; i < M * K; ++i) a[i] = T(wide_a[i]);
  for (int i = 0; i < K * N; ++i) b[i] = T(wide_b[i]);
  start(gemm<T>, dim3(2, 2), 64, 0, a, b, c, M, N, K);
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += wide_a[m * K + k] * wide_b[k * N + n];
      expect(c[m * N + n] == sum, "element (" + std::to_string(m) + ", " + std::to_string(n) + ")");
    }
  }
}

__global__ void round_tf32(const float* x, uint32_t* bits) {
  bits[threadIdx.x] = to_tf32(x[threadIdx.x]);
}

void tf32_rounding() {
  Memory<float> x(4);
  Memory<uint32_t> bits(4);
  const uint32_t in[4] = {0x3f800fffu, 0x3f801000u, 0xbf803000u,
                          0x3fffffffu};  // below half, ties away, and into the next power
  std::memcpy(x.begin(), in, sizeof in);
  start(round_tf32, 1, 4, 0, x, bits);
  const uint32_t out[4] = {0x3f800000u, 0x3f802000u, 0xbf804000u, 0x40000000u};
  for (int i = 0; i < 4; ++i) expect((bits[i] & ~0x1fffu) == out[i], "value " + std::to_string(i));
}

// Across blocks

// Every block adds up all blocks' sums, `rounds` times.
__global__ void grid_sum(const float* x, float* partial, float* totals, int rounds) {
  SHARED(float, sums, [64]);
  const int t = threadIdx.x;
  for (int round = 0; round < rounds; ++round) {
    sums[t] = x[blockIdx.x * 64 + t] + static_cast<float>(round);
    __syncthreads();
    if (t == 0) {
      float sum = 0;
      for (int i = 0; i < 64; ++i) sum += sums[i];
      partial[blockIdx.x] = sum;
    }
    grid_barrier();
    if (t == 0) {
      float total = 0;
      for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
      totals[round * gridDim.x + blockIdx.x] = total;
    }
    grid_barrier();
  }
}

void grid_sums() {
  constexpr int blocks = 4, rounds = 3;
  Memory<float> x(blocks * 64), partial(blocks), totals(blocks * rounds);
  float sum = 0;
  for (int i = 0; i < blocks * 64; ++i) sum += x[i] = static_cast<float>(i % 10);
  expect(resident_blocks(grid_sum, 64, 0) >= blocks, "the device is too small");
  start_cooperative(grid_sum, blocks, 64, 0, x, partial, totals, rounds);
  for (int i = 0; i < blocks * rounds; ++i)
    expect(totals[i] == sum + i / blocks * 64 * blocks, "total");
}

// Block b waits for block b - 1 and passes its sum on.
__global__ void relay(const float* x, float* sums, unsigned* ready) {
  if (threadIdx.x == 0 && blockIdx.x > 0) {
    while (load_acquire(&ready[blockIdx.x - 1]) == 0) {
    }
  }
  __syncthreads();
  if (threadIdx.x == 33)
    sums[blockIdx.x] = x[blockIdx.x] + (blockIdx.x > 0 ? sums[blockIdx.x - 1] : 0);
  __syncthreads();
  if (threadIdx.x == 0) store_release(&ready[blockIdx.x], 1u);
}

void relays() {
  Memory<float> x(4, 2), sums(4);
  Memory<unsigned> ready(4);
  start_cooperative(relay, 4, 64, 0, x, sums, ready);
  for (int i = 0; i < 4; ++i) expect(sums[i] == 2 * i + 2, "sum " + std::to_string(i));
}

// The last block to finish adds up what the others left.
__global__ void last_adds(float* partial, unsigned long long* finished, float* total) {
  SHARED(bool, last);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = static_cast<float>(blockIdx.x);
    __threadfence();
    last = atomicAdd(finished, 1ull) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last || threadIdx.x > 0) return;
  for (unsigned b = 0; b < gridDim.x; ++b) *total += partial[b];
}

void last_blocks() {
  Memory<float> partial(5), total(1);
  Memory<unsigned long long> finished(1);
  start(last_adds, 5, 32, 0, partial, finished, total);
  expect(total[0] == 10, "total");
}

}  // namespace

const std::vector<Case> right_cases = {
    {"block_sum", block_sums},
    {"warp_sum", warp_sums},
    {"half_warps", half_warps},
    {"votes", votes},
    {"transpose", transposes},
    {"every_thread_once", every_thread_once},
    {"shared_arrays", shared_arrays},
    {"copy_4", copies<4>},
    {"copy_8", copies<8>},
    {"copy_16", copies<16>},
    {"ldmatrix_1", matrices_of<1, false>},
    {"ldmatrix_2", matrices_of<2, false>},
    {"ldmatrix_4", matrices_of<4, false>},
    {"ldmatrix_1_transposed", matrices_of<1, true>},
    {"ldmatrix_2_transposed", matrices_of<2, true>},
    {"ldmatrix_4_transposed", matrices_of<4, true>},
    {"mma_float16", [] { products<16>(product<float16>); }},
    {"mma_bfloat16", [] { products<16>(product<bfloat16>); }},
    {"mma_tf32", [] { products<8>(product_tf32); }},
    {"gemm_float16", gemms<float16>},
    {"gemm_bfloat16", gemms<bfloat16>},
    {"tf32_rounding", tf32_rounding},
    {"grid_sum", grid_sums},
    {"relay", relays},
    {"last_block", last_blocks},
};
