// Run-time choice of instruction set.
//
// Every file in the folder above this one is compiled once for each instruction set, with PYDL_ISA
// naming the namespace that its functions land in. The files in this folder are compiled once, for
// any processor: a family's file checks the arguments and forwards a call to the namespace that
// suits the processor. Inline functions shared by all (std, ../../tensor.h, ../../half.h) exist
// once in the end, and the linker keeps the first: list the baseline's objects before the others.
// Which sets there are, CMake says (PYDL_ISAS).
//
// The kernels include their own family's contract and not families.h, so that a new family compiles
// nothing but itself.
#pragma once

#include <string>
#include <vector>

namespace pydl::cpu {

// The instruction set in use: "baseline", "avx2" or "avx512"; empty where the processor has none of
// those that were built, and no kernel may be called.
std::string isa();

// Those that were built, the best first.
std::vector<std::string> built_isas();

// Uses another one. Throws std::invalid_argument where this build or this processor does not have
// it.
void use_isa(const std::string& name);

}  // namespace pydl::cpu
