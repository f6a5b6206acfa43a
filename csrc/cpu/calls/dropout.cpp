#include "checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void dropout(const Dropout& args, int64_t threads) {
  check_alike("dropout", args.x, args.y);
  const int64_t size = args.x.numel();
  check(args.x.size[1] == size && (size <= 1 || (args.x.stride[1] == 1 && args.y.stride[1] == 1)),
        "dropout on a CPU needs elements in one line");
  check(args.p >= 0 && args.p <= 1, "dropout needs a probability, got ", args.p);
  if (size > 0) kernels().dropout(args, threads);
}

}  // namespace pydl::cpu
