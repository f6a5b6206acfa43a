// The kernels that the emulator is tested with. They are ordinary CUDA: built with nvcc, right.cu
// runs on a GPU too, which holds the emulated twins of PTX instructions to the real ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../../csrc/cuda/device.h"

struct Case {
  const char* name;
  std::function<void()>
      run;  // returns if the result is right, throws Wrong if not, and what launch() throws
};

extern const std::vector<Case> right_cases, faulty_cases;

struct Wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void expect(bool condition, const std::string& otherwise) {
  if (!condition) throw Wrong(otherwise);
}

// Memory that host and device both reach; on the host side only after finish().
template <class T>
class Memory {
 public:
  explicit Memory(size_t size, T value = T()) : size_(size) {
#if defined(__CUDACC__)
    if (cudaMallocManaged(&data_, size * sizeof(T)) != cudaSuccess) throw std::bad_alloc();
#else
    data_ = new T[size];
#endif
    for (size_t i = 0; i < size; ++i) data_[i] = value;
  }
  Memory(const Memory&) = delete;
  ~Memory() {
#if defined(__CUDACC__)
    cudaFree(data_);
#else
    delete[] data_;
#endif
  }

  operator T*() const { return data_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }

 private:
  T* data_;
  size_t size_;
};

// Launches on the default stream and waits.
template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), const pydl::Grid& grid, dim3 block, size_t shared_bytes,
           Arguments&&... arguments) {
  pydl::launch(kernel, grid, block, shared_bytes, 0, static_cast<Parameters>(arguments)...);
#if defined(__CUDACC__)
  if (const cudaError_t error = cudaDeviceSynchronize())
    throw std::runtime_error(cudaGetErrorString(error));
#endif
}
template <class... Parameters, class... Arguments>
void start_cooperative(void (*kernel)(Parameters...), const pydl::Grid& grid, dim3 block,
                       size_t shared_bytes, Arguments&&... arguments) {
  pydl::launch_cooperative(kernel, grid, block, shared_bytes, 0,
                           static_cast<Parameters>(arguments)...);
#if defined(__CUDACC__)
  if (const cudaError_t error = cudaDeviceSynchronize())
    throw std::runtime_error(cudaGetErrorString(error));
#endif
}
