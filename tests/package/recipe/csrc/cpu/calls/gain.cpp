#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void gain_forward(const GainForward& args, int64_t threads) {
  check_alike("gain", args.x, args.y);
  channels_last("gain", {&args.x, &args.y});
  if (args.x.numel() > 0) kernels().gain_forward(args, threads);
}

}  // namespace pydl::cpu
