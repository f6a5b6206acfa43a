#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void nms(const Nms& args, int64_t threads) {
  check_nms(args);
  if (args.keep.numel() > 0) kernels().nms(args, threads);
}

}  // namespace pydl::cpu
