// Run-time choice of instruction set.
//
// Every file of kernels in this folder is compiled once for each instruction set, with PYDL_ISA
// naming the namespace that its functions land in; isa.cpp, compiled once and for any processor,
// checks the arguments and forwards a call to the namespace that suits the processor. Inline
// functions shared by all (std, ../tensor.h, ../half.h) exist once in the end, and the linker keeps
// the first: list the baseline's objects before the others.
#pragma once

#include <string>

namespace pydl::cpu {

// The instruction set in use: "baseline", "avx2" or "avx512".
std::string isa();

// Uses another one. Throws std::invalid_argument where this build or this processor does not have
// it.
void use_isa(const std::string& name);

}  // namespace pydl::cpu
