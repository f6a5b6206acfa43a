// Run-time choice of instruction set.
//
// Every file in the folder above this one is compiled once for each instruction set, with PYDL_ISA
// naming the namespace that its functions land in. The files in this folder are compiled once, for
// any processor: a family's file checks the arguments and forwards a call to the namespace that
// suits the processor. Inline functions shared by all (std, ../../tensor.h, ../../half.h) exist
// once in the end, and the linker keeps the first: list the baseline's objects before the others.
//
// The kernels include their own family's contract and not families.h, so that a new family compiles
// nothing but itself.
#pragma once

#include <string>

namespace pydl::cpu {

// The instruction set in use: "baseline", "avx2" or "avx512".
std::string isa();

// Uses another one. Throws std::invalid_argument where this build or this processor does not have
// it.
void use_isa(const std::string& name);

}  // namespace pydl::cpu
