// What every instruction set provides, for isa.cpp, which includes this once for each, with
// PYDL_ISA set to its name, and has checked the arguments. The kernels' own files include their
// family's contract alone, so that a new family compiles nothing but itself.
#include "../batch_norm.h"
#include "../bias_act.h"
#include "../conv.h"
#include "../cross_entropy.h"
#include "../dropout.h"
#include "../local.h"
#include "../lrn.h"
#include "../pool.h"
#include "../pool_adaptive.h"
#include "../pool_lp.h"
#include "../rnn.h"
#include "../softmax.h"
#include "../spatial_norm.h"
#include "../unpool.h"

namespace pydl::cpu::PYDL_ISA {

void conv_forward(const ConvForward& args, bool channels_last, int64_t threads);
void conv_grad_input(const ConvGradInput& args, bool channels_last, int64_t threads);
void conv_grad_weight(const ConvGradWeight& args, bool channels_last, int64_t threads);
void conv_grad_bias(const ConvGradBias& args, bool channels_last, int64_t threads);
void bias_act_forward(const BiasActForward& args, bool channels_last, int64_t threads);
void bias_act_backward(const BiasActBackward& args, int64_t threads);
void batch_norm_stats(const BatchNormStats& args, bool channels_last, int64_t threads);
void batch_norm_forward(const BatchNormForward& args, bool channels_last, int64_t threads);
void batch_norm_grad_sums(const BatchNormGradSums& args, bool channels_last, int64_t threads);
void batch_norm_grad_input(const BatchNormGradInput& args, bool channels_last, int64_t threads);
void local_forward(const LocalForward& args, int64_t threads);
void local_grad_input(const LocalGradInput& args, int64_t threads);
void local_grad_weight(const LocalGradWeight& args, int64_t threads);
void lrn_forward(const LrnForward& args, bool channels_last, int64_t threads);
void lrn_backward(const LrnBackward& args, bool channels_last, int64_t threads);
void spatial_norm_forward(const SpatialNormForward& args, bool channels_last, int64_t threads);
void spatial_norm_backward(const SpatialNormBackward& args, bool channels_last, int64_t threads);
void max_pool_forward(const MaxPoolForward& args, bool channels_last, int64_t threads);
void max_pool_backward(const MaxPoolBackward& args, bool channels_last, int64_t threads);
void avg_pool_forward(const AvgPoolForward& args, bool channels_last, int64_t threads);
void avg_pool_backward(const AvgPoolBackward& args, bool channels_last, int64_t threads);
void softmax_forward(const SoftmaxForward& args, int64_t threads);
void softmax_backward(const SoftmaxBackward& args, int64_t threads);
void cross_entropy_forward(const CrossEntropyForward& args, int64_t threads);
void cross_entropy_backward(const CrossEntropyBackward& args, int64_t threads);
void dropout(const Dropout& args, int64_t threads);
void rnn_forward(const RnnForward& args, int64_t threads);
void rnn_backward(const RnnBackward& args, int64_t threads);
void rnn_cell_forward(const RnnCellForward& args, int64_t threads);
void rnn_cell_backward(const RnnCellBackward& args, int64_t threads);
void adaptive_pool_forward(const AdaptivePoolForward& args, bool channels_last, int64_t threads);
void adaptive_pool_backward(const AdaptivePoolBackward& args, bool channels_last, int64_t threads);
void lp_pool_forward(const LpPoolForward& args, bool channels_last, int64_t threads);
void lp_pool_backward(const LpPoolBackward& args, bool channels_last, int64_t threads);
void max_unpool_forward(const MaxUnpoolForward& args, bool channels_last, int64_t threads);
void max_unpool_backward(const MaxUnpoolBackward& args, bool channels_last, int64_t threads);

}  // namespace pydl::cpu::PYDL_ISA
