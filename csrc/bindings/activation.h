// An activation arrives as its name.
#pragma once

#include <string>

#include "../bias_act.h"

namespace pydl {

inline Epilogue epilogue_of(const std::string& activation, double slope) {
  if (activation == "none") return {Activation::none, slope};
  if (activation == "relu") return {Activation::relu, slope};
  if (activation == "leaky_relu") return {Activation::leaky_relu, slope};
  check(activation == "silu", "expected an activation of none, relu, leaky_relu or silu, got ",
        activation);
  return {Activation::silu, slope};
}

}  // namespace pydl
