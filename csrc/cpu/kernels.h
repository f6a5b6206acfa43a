// What every instruction set provides. Include with PYDL_ISA set to its name; isa.cpp has checked
// the arguments.
#include "../bias_act.h"
#include "../conv.h"
#include "../local.h"
#include "../lrn.h"
#include "../pool.h"
#include "../pool_adaptive.h"
#include "../pool_lp.h"
#include "../unpool.h"

namespace pydl::cpu::PYDL_ISA {

void conv_forward(const ConvForward& args, bool channels_last, int64_t threads);
void conv_grad_input(const ConvGradInput& args, bool channels_last, int64_t threads);
void conv_grad_weight(const ConvGradWeight& args, bool channels_last, int64_t threads);
void conv_grad_bias(const ConvGradBias& args, bool channels_last, int64_t threads);
void bias_act_forward(const BiasActForward& args, bool channels_last, int64_t threads);
void bias_act_backward(const BiasActBackward& args, int64_t threads);
void local_forward(const LocalForward& args, int64_t threads);
void local_grad_input(const LocalGradInput& args, int64_t threads);
void local_grad_weight(const LocalGradWeight& args, int64_t threads);
void lrn_forward(const LrnForward& args, bool channels_last, int64_t threads);
void lrn_backward(const LrnBackward& args, bool channels_last, int64_t threads);
void max_pool_forward(const MaxPoolForward& args, bool channels_last, int64_t threads);
void max_pool_backward(const MaxPoolBackward& args, bool channels_last, int64_t threads);
void avg_pool_forward(const AvgPoolForward& args, bool channels_last, int64_t threads);
void avg_pool_backward(const AvgPoolBackward& args, bool channels_last, int64_t threads);
void adaptive_pool_forward(const AdaptivePoolForward& args, bool channels_last, int64_t threads);
void adaptive_pool_backward(const AdaptivePoolBackward& args, bool channels_last, int64_t threads);
void lp_pool_forward(const LpPoolForward& args, bool channels_last, int64_t threads);
void lp_pool_backward(const LpPoolBackward& args, bool channels_last, int64_t threads);
void max_unpool_forward(const MaxUnpoolForward& args, bool channels_last, int64_t threads);
void max_unpool_backward(const MaxUnpoolBackward& args, bool channels_last, int64_t threads);

}  // namespace pydl::cpu::PYDL_ISA
