// Every family of operators that this library offers and every function that it runs on a CPU,
// listed once. What names them all is made from these two lists: the bindings' declarations and
// calls (bindings/families.h, bindings/module.cpp) and, for each instruction set, the declarations
// and the table of its kernels (cpu/calls/dispatch.h, cpu/calls/isa.cpp).
//
// A call goes bindings/lrn.cpp -> cpu/calls/lrn.cpp, which checks the arguments -> cpu/lrn.cpp as
// compiled for the instruction set in use; or bindings/lrn.cpp -> cuda/lrn.cu.
#pragma once

#include "batch_norm.h"
#include "bias_act.h"
#include "conv.h"
#include "cross_entropy.h"
#include "dropout.h"
#include "local.h"
#include "lrn.h"
#include "nms.h"
#include "pool.h"
#include "pool_adaptive.h"
#include "pool_lp.h"
#include "rnn.h"
#include "roi.h"
#include "softmax.h"
#include "spatial_norm.h"
#include "unpool.h"

// clang-format off

// Families, in the order in which they are bound: ROW(name, on a CPU, in CUDA).
#define PYDL_FAMILIES(ROW)        \
  ROW(conv,          true, true)  \
  ROW(bias_act,      true, true)  \
  ROW(batch_norm,    true, true)  \
  ROW(local,         true, true)  \
  ROW(pool,          true, true)  \
  ROW(pool_lp,       true, true)  \
  ROW(pool_adaptive, true, true)  \
  ROW(unpool,        true, true)  \
  ROW(roi,           true, true)  \
  ROW(nms,           true, true)  \
  ROW(lrn,           true, true)  \
  ROW(spatial_norm,  true, true)  \
  ROW(softmax,       true, false) \
  ROW(cross_entropy, true, false) \
  ROW(dropout,       true, false) \
  ROW(rnn,           true, true)

// Functions on a CPU: ROW(name, its arguments, how its kernels are called). A MapKernel takes maps
// in either layout and is told which; a PlainKernel knows one layout or none (cpu/calls/dispatch.h).
#define PYDL_CPU_KERNELS(ROW)                                    \
  ROW(conv_forward,           ConvForward,          MapKernel)   \
  ROW(conv_grad_input,        ConvGradInput,        MapKernel)   \
  ROW(conv_grad_weight,       ConvGradWeight,       MapKernel)   \
  ROW(conv_grad_bias,         ConvGradBias,         MapKernel)   \
  ROW(bias_act_forward,       BiasActForward,       MapKernel)   \
  ROW(bias_act_backward,      BiasActBackward,      PlainKernel) \
  ROW(batch_norm_stats,       BatchNormStats,       MapKernel)   \
  ROW(batch_norm_forward,     BatchNormForward,     MapKernel)   \
  ROW(batch_norm_grad_sums,   BatchNormGradSums,    MapKernel)   \
  ROW(batch_norm_grad_input,  BatchNormGradInput,   MapKernel)   \
  ROW(local_forward,          LocalForward,         PlainKernel) \
  ROW(local_grad_input,       LocalGradInput,       PlainKernel) \
  ROW(local_grad_weight,      LocalGradWeight,      PlainKernel) \
  ROW(max_pool_forward,       MaxPoolForward,       MapKernel)   \
  ROW(max_pool_backward,      MaxPoolBackward,      MapKernel)   \
  ROW(avg_pool_forward,       AvgPoolForward,       MapKernel)   \
  ROW(avg_pool_backward,      AvgPoolBackward,      MapKernel)   \
  ROW(lp_pool_forward,        LpPoolForward,        MapKernel)   \
  ROW(lp_pool_backward,       LpPoolBackward,       MapKernel)   \
  ROW(adaptive_pool_forward,  AdaptivePoolForward,  MapKernel)   \
  ROW(adaptive_pool_backward, AdaptivePoolBackward, MapKernel)   \
  ROW(max_unpool_forward,     MaxUnpoolForward,     MapKernel)   \
  ROW(max_unpool_backward,    MaxUnpoolBackward,    MapKernel)   \
  ROW(roi_align_forward,      RoiAlignForward,      MapKernel)   \
  ROW(roi_align_backward,     RoiAlignBackward,     MapKernel)   \
  ROW(roi_pool_forward,       RoiPoolForward,       MapKernel)   \
  ROW(roi_pool_backward,      RoiPoolBackward,      MapKernel)   \
  ROW(nms,                    Nms,                  PlainKernel) \
  ROW(lrn_forward,            LrnForward,           MapKernel)   \
  ROW(lrn_backward,           LrnBackward,          MapKernel)   \
  ROW(spatial_norm_forward,   SpatialNormForward,   MapKernel)   \
  ROW(spatial_norm_backward,  SpatialNormBackward,  MapKernel)   \
  ROW(softmax_forward,        SoftmaxForward,       PlainKernel) \
  ROW(softmax_backward,       SoftmaxBackward,      PlainKernel) \
  ROW(cross_entropy_forward,  CrossEntropyForward,  PlainKernel) \
  ROW(cross_entropy_backward, CrossEntropyBackward, PlainKernel) \
  ROW(dropout,                Dropout,              PlainKernel) \
  ROW(rnn_forward,            RnnForward,           PlainKernel) \
  ROW(rnn_backward,           RnnBackward,          PlainKernel) \
  ROW(rnn_cell_forward,       RnnCellForward,       PlainKernel) \
  ROW(rnn_cell_backward,      RnnCellBackward,      PlainKernel)

// clang-format on
