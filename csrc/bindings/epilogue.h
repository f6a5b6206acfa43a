// An epilogue arrives as the activation's name and the slope of leaky_relu.
#pragma once

#include <string>

#include "../bias_act.h"

namespace pydl {

inline Epilogue epilogue_of(const std::string& activation, double slope) {
  const Activation known = activation == "none"         ? Activation::none
                           : activation == "relu"       ? Activation::relu
                           : activation == "leaky_relu" ? Activation::leaky_relu
                                                        : Activation::silu;
  check(known != Activation::silu || activation == "silu",
        "expected an activation of none, relu, leaky_relu or silu, got ", activation);
  return {known, slope};
}

}  // namespace pydl
