// The kernels that conv.cu chooses from. Arguments have been checked and results are not empty.
#pragma once

#include "../conv.h"

namespace pydl::cuda {

// Straight from the definition: every dtype, size and layout.
void conv_forward_direct(const ConvForward& args, int64_t stream);
void conv_grad_input_direct(const ConvGradInput& args, int64_t stream);
void conv_grad_weight_direct(const ConvGradWeight& args, int64_t stream);
void conv_grad_bias_direct(const ConvGradBias& args, int64_t stream);

// grad_bias where conv_grad_bias_runs says that it is served: where grad_y lies without gaps.
void launch_dense_bias(const ConvGradBias& args, int64_t stream);

// Implicit products on tensor cores: float16, bfloat16, and float32 rounded to tf32.
void conv_forward_gemm(const ConvForward& args, int64_t stream);
void conv_grad_input_gemm(const ConvGradInput& args, int64_t stream);
void conv_grad_weight_gemm(const ConvGradWeight& args, int64_t stream);
int64_t conv_grad_weight_gemm_parts(const ConvGradWeight& args);

// Up to four channels per group, forward: every dtype and layout, windows that shared memory holds.
bool few_channels_serve(const ConvForward& args);
void conv_forward_few_channels(const ConvForward& args, int64_t stream);

// One channel per group: every dtype and layout.
void conv_forward_depthwise(const ConvForward& args, int64_t stream);
void conv_grad_input_depthwise(const ConvGradInput& args, int64_t stream);
void conv_grad_weight_depthwise(const ConvGradWeight& args, int64_t stream);
int64_t conv_grad_weight_depthwise_parts(const ConvGradWeight& args);
// The same by windows of 3 x 3 where the maps lie alike: they say whether they serve.
bool launch_dense_depthwise(const ConvForward& args, int64_t stream);
bool launch_dense_depthwise(const ConvGradInput& args, int64_t stream);
bool dense_depthwise_serves(const ConvGradWeight& args);
int64_t dense_depthwise_parts(const ConvGradWeight& args);
void launch_dense_depthwise(const ConvGradWeight& args, int64_t stream);

}  // namespace pydl::cuda
