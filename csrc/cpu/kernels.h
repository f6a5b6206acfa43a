// What every instruction set provides. Include with PYDL_ISA set to its name; isa.cpp has checked
// the arguments.
#include "../lrn.h"
#include "../pool.h"

namespace pydl::cpu::PYDL_ISA {

void lrn_forward(const LrnForward& args, bool channels_last, int64_t threads);
void lrn_backward(const LrnBackward& args, bool channels_last, int64_t threads);
void max_pool_forward(const MaxPoolForward& args, bool channels_last, int64_t threads);
void max_pool_backward(const MaxPoolBackward& args, bool channels_last, int64_t threads);
void avg_pool_forward(const AvgPoolForward& args, bool channels_last, int64_t threads);
void avg_pool_backward(const AvgPoolBackward& args, bool channels_last, int64_t threads);

}  // namespace pydl::cpu::PYDL_ISA
