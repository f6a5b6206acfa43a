// Which of the kernels computes a convolution. The choice is made here alone, before the launch,
// from dtype and sizes.
//
//   depthwise      one channel per group and more than one group: nothing to multiply by matrices
//   few channels   forward with up to four channels per group: tensor cores would multiply padding
//   gemm           float16 and bfloat16, and float32 where the caller allows tf32
//   direct         everything else: float64, and float32 to the last bit
//
// A bias's gradient is that of a dense map or direct.
#include "conv_kernels.h"
#include "element.h"

namespace pydl::cuda {
namespace {

enum class Path { direct, gemm, depthwise };

// Coordinates inside the tensor-core kernels are 32-bit, offsets are not: an axis so long that a
// coordinate could overflow is left to the direct kernels.
bool short_axes(const Tensor& x, const Tensor& weight, const Tensor& y, const ConvWindow& window) {
  constexpr int64_t longest = int64_t{1} << 28;
  bool fits = x.size[0] < longest && x.size[1] < longest && y.size[1] < longest;
  for (int axis = 0; axis < 3; ++axis) {
    fits = fits && x.size[axis + 2] < longest && y.size[axis + 2] < longest &&
           window.padding[axis] < longest && window.stride[axis] < longest &&
           window.dilation[axis] < longest &&
           weight.size[axis + 2] < longest / window.dilation[axis];
  }
  return fits && weight.size[2] * weight.size[3] * weight.size[4] < longest;
}

Path path_of(const Tensor& x, const Tensor& weight, const Tensor& y, const ConvWindow& window) {
  if (!short_axes(x, weight, y, window)) return Path::direct;
  if (weight.size[1] == 1 && window.groups > 1) return Path::depthwise;
  const bool tensor_cores = x.dtype == DType::float16 || x.dtype == DType::bfloat16 ||
                            (x.dtype == DType::float32 && window.tf32);
  return tensor_cores ? Path::gemm : Path::direct;
}

// A gradient may be taken of fewer outputs than x has room for: a transposed convolution's
// output_padding makes its map that large.
void check_conv(const Tensor& x, const Tensor& weight, const Tensor& y, const ConvWindow& window,
                bool all_outputs = false) {
  check(x.dtype == weight.dtype && x.dtype == y.dtype, "convolution expects tensors of one dtype");
  const int64_t groups = window.groups, filters = weight.size[0];
  check(groups >= 1 && filters % groups == 0, "convolution expects the groups to divide ", filters,
        " filters, got ", groups);
  check(x.size[1] == weight.size[1] * groups, "convolution with ", groups,
        " groups and filters of ", weight.size[1], " channels expects ", weight.size[1] * groups,
        " channels, got ", x.size[1]);
  check(y.size[0] == x.size[0] && y.size[1] == filters, "convolution of ", x.size[0], " maps with ",
        filters, " filters gives ", x.size[0], " x ", filters, " maps, got ", y.size[0], " x ",
        y.size[1]);
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t stride = window.stride[axis], padding = window.padding[axis],
                  dilation = window.dilation[axis];
    check(stride >= 1 && dilation >= 1 && padding >= 0,
          "convolution expects stride and dilation of at least 1 and no negative padding, got ",
          stride, ", ", dilation, " and ", padding);
    const int64_t size = x.size[axis + 2], kernel = weight.size[axis + 2],
                  outputs = y.size[axis + 2];
    const int64_t room = size + 2 * padding - (kernel - 1) * dilation - 1;
    const int64_t most = room < 0 ? 0 : room / stride + 1;
    check(outputs >= 1 && outputs <= most && (outputs == most || !all_outputs), "convolution of ",
          size, " elements with kernel ", kernel, ", stride ", stride, ", padding ", padding,
          " and dilation ", dilation, " does not give ", outputs);
  }
}

}  // namespace

void conv_forward(const ConvForward& args, int64_t stream) {
  const auto& [x, weight, bias, y, window, residual, epilogue] = args;
  check_conv(x, weight, y, window, /*all_outputs=*/true);
  check(bias.data == nullptr || (bias.dtype == y.dtype && bias.size[1] == y.size[1]),
        "convolution expects a bias of the output's dtype with ", y.size[1], " values");
  check(residual.data == nullptr || (residual.dtype == y.dtype && same_size(residual, y)),
        "convolution expects a residual of the output's size and dtype");
  if (y.numel() == 0) return;
  const Path path = path_of(x, weight, y, window);
  if (path != Path::depthwise && few_channels_serve(args))
    return conv_forward_few_channels(args, stream);
  switch (path) {
    case Path::depthwise:
      return conv_forward_depthwise(args, stream);
    case Path::gemm:
      return conv_forward_gemm(args, stream);
    case Path::direct:
      return conv_forward_direct(args, stream);
  }
}

void conv_grad_input(const ConvGradInput& args, int64_t stream) {
  const auto& [grad_y, weight, grad_x, window] = args;
  check_conv(grad_x, weight, grad_y, window);
  if (grad_x.numel() == 0) return;
  switch (path_of(grad_x, weight, grad_y, window)) {
    case Path::depthwise:
      return conv_grad_input_depthwise(args, stream);
    case Path::gemm:
      return conv_grad_input_gemm(args, stream);
    case Path::direct:
      return conv_grad_input_direct(args, stream);
  }
}

int64_t conv_grad_weight_parts(const ConvGradWeight& args) {
  check_conv(args.x, args.grad_weight, args.grad_y, args.window);
  if (args.grad_weight.numel() == 0) return 0;
  switch (path_of(args.x, args.grad_weight, args.grad_y, args.window)) {
    case Path::depthwise:
      return conv_grad_weight_depthwise_parts(args);
    case Path::gemm:
      return conv_grad_weight_gemm_parts(args);
    case Path::direct:
      return 0;
  }
  return 0;
}

void conv_grad_weight(const ConvGradWeight& args, int64_t stream) {
  const int64_t wanted = conv_grad_weight_parts(args);
  const DType sums = args.x.dtype == DType::float64 ? DType::float64 : DType::float32;
  check(wanted == 0 || (args.parts.data != nullptr && args.parts.dtype == sums &&
                        args.parts.numel() == wanted && args.parts.stride[1] == 1),
        "convolution expects room for ", wanted, " partial sums");
  if (args.grad_weight.numel() == 0) return;
  switch (path_of(args.x, args.grad_weight, args.grad_y, args.window)) {
    case Path::depthwise:
      return conv_grad_weight_depthwise(args, stream);
    case Path::gemm:
      return conv_grad_weight_gemm(args, stream);
    case Path::direct:
      return conv_grad_weight_direct(args, stream);
  }
}

void conv_grad_bias(const ConvGradBias& args, int64_t stream) {
  const auto& [grad_y, bias, parts] = args;
  check(bias.dtype == grad_y.dtype && bias.numel() == grad_y.size[1] &&
            bias.size[1] == grad_y.size[1] && (bias.stride[1] == 1 || bias.size[1] <= 1),
        "convolution expects a contiguous bias gradient of the output's dtype with ",
        grad_y.size[1], " values, got ", bias.numel());
  const int64_t runs = conv_grad_bias_runs(grad_y);
  const DType sums = grad_y.dtype == DType::float64 ? DType::float64 : DType::float32;
  check(runs == 0 ||
            (parts.data != nullptr && parts.dtype == sums && parts.numel() == bias.numel() * runs &&
             parts.size[1] == runs && parts.size[4] == bias.numel()),
        "convolution expects room for ", runs, " x ", bias.numel(), " partial sums");
  if (bias.numel() == 0) return;
  if (runs > 0)
    launch_dense_bias(args, stream);
  else
    conv_grad_bias_direct(args, stream);
}

}  // namespace pydl::cuda
