// What the kernels of adaptive and pyramid pooling share.
#pragma once

#include "../pool_adaptive.h"
#include "device.h"

namespace pydl::cuda {

// Pool, and say so, where the maps lie alike and are small (pool_adaptive_dense.h).
bool launch_dense_adaptive(const AdaptivePoolForward& args, int64_t stream);
bool launch_dense_adaptive(const AdaptivePoolBackward& args, int64_t stream);

}  // namespace pydl::cuda
