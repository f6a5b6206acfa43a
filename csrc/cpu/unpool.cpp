// Max unpooling (definition in ../unpool.h).
//
// A task is a run of planes (n, c), or channels last of images: y's is cleared and filled in scan
// order while it is in a cache, so that memory is written once and the last of those that name a
// place stays. Backward gathers. Both read an index of eight bytes per element, which is what
// bounds them.
#include "../unpool.h"

#include <atomic>

#include "parallel.h"

namespace pydl::cpu::PYDL_ISA {
namespace {

int64_t pixels_of(const Tensor& map) { return map.size[2] * map.size[3] * map.size[4]; }

// Throws where a thread met a position outside the plane; an exception may not leave a team.
class Outside {
 public:
  // Whether `at` is inside.
  bool holds(int64_t at, int64_t size) {
    if (static_cast<uint64_t>(at) < static_cast<uint64_t>(size)) [[likely]]
      return true;
    met_.store(at, std::memory_order_relaxed);
    any_.store(true, std::memory_order_relaxed);
    return false;
  }
  void raise(const Tensor& map) const {
    if (!any_) return;
    std::ostringstream message;
    message << "Found an invalid max index: " << met_ << " (output volumes are of size "
            << map.size[2] << 'x' << map.size[3] << 'x' << map.size[4] << ')';
    throw std::runtime_error(message.str());
  }

 private:
  std::atomic<int64_t> met_ = 0;
  std::atomic<bool> any_ = false;
};

}  // namespace

void max_unpool_forward(const MaxUnpoolForward& args, bool channels_last, int64_t threads) {
  const int64_t size = pixels_of(args.x), outputs = pixels_of(args.y);
  // What lies together: a plane, or an image of `step` channels.
  const int64_t step = channels_last ? args.x.size[1] : 1,
                tasks = args.x.size[0] * args.x.size[1] / step;
  const int64_t* index = static_cast<const int64_t*>(args.index.data);
  Outside outside;
  dispatch_floating(args.x.dtype, "max_unpool", [&]<class T>(T) {
    const T* x = static_cast<const T*>(args.x.data);
    T* y = static_cast<T*>(args.y.data);
    share_out(tasks, team_size(tasks, args.y.numel(), threads),
              [&](int64_t, int64_t first, int64_t last) {
                for (int64_t task = first; task < last; ++task) {
                  T* to = y + task * outputs * step;
                  std::fill_n(to, outputs * step, T(0.0f));
                  const int64_t from = task * size * step;
                  for (int64_t i = 0; i < size; ++i) {
                    for (int64_t c = 0; c < step; ++c) {
                      const int64_t at = index[from + i * step + c];
                      if (outside.holds(at, outputs)) to[at * step + c] = x[from + i * step + c];
                    }
                  }
                }
              });
  });
  outside.raise(args.y);
}

void max_unpool_backward(const MaxUnpoolBackward& args, bool channels_last, int64_t threads) {
  const int64_t size = pixels_of(args.grad_x), outputs = pixels_of(args.grad_y);
  const int64_t step = channels_last ? args.grad_x.size[1] : 1,
                tasks = args.grad_x.size[0] * args.grad_x.size[1] / step;
  const int64_t* index = static_cast<const int64_t*>(args.index.data);
  Outside outside;
  dispatch_floating(args.grad_x.dtype, "max_unpool", [&]<class T>(T) {
    const T* grad_y = static_cast<const T*>(args.grad_y.data);
    T* grad_x = static_cast<T*>(args.grad_x.data);
    share_out(tasks, team_size(tasks, args.grad_x.numel(), threads),
              [&](int64_t, int64_t first, int64_t last) {
                for (int64_t task = first; task < last; ++task) {
                  const T* from = grad_y + task * outputs * step;
                  const int64_t to = task * size * step;
                  for (int64_t i = 0; i < size; ++i) {
                    for (int64_t c = 0; c < step; ++c) {
                      const int64_t at = index[to + i * step + c];
                      grad_x[to + i * step + c] =
                          outside.holds(at, outputs) ? from[at * step + c] : T(0.0f);
                    }
                  }
                }
              });
  });
  outside.raise(args.grad_y);
}

}  // namespace pydl::cpu::PYDL_ISA
