#include "../../rnn_checks.h"
#include "dispatch.h"

namespace pydl::cpu {

void rnn_forward(const RnnForward& args, int64_t threads) {
  check_rnn(args);
  kernels().rnn_forward(args, threads);
}

void rnn_backward(const RnnBackward& args, int64_t threads) {
  check_rnn(args);
  kernels().rnn_backward(args, threads);
}

void rnn_cell_forward(const RnnCellForward& args, int64_t threads) {
  check_rnn_cell(args);
  kernels().rnn_cell_forward(args, threads);
}

void rnn_cell_backward(const RnnCellBackward& args, int64_t threads) {
  check_rnn_cell(args);
  kernels().rnn_cell_backward(args, threads);
}

}  // namespace pydl::cpu
