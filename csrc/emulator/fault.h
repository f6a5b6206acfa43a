// Faults in words: which thread, at which line, what is wrong, who else is concerned.
#pragma once

#include <sstream>
#include <string>

#include "emulator.h"

namespace pydl::emulator {

struct Thread;

std::string text(const Where& where);       // conv.cu:12
std::string text(uint3 index);              // (1, 0, 0)
std::string text(const Thread& thread);     // thread (1, 0, 0) of block (0, 0, 0)
std::string waiting(const Thread& thread);  // thread (1, 0, 0) of block (0, 0, 0) waits at
                                            // __syncthreads (conv.cu:12)
std::string hexadecimal(unsigned mask);     // 0xffff
bool same(const Where& a, const Where& b);  // whether both are one place in the source

template <class... Parts>
[[noreturn]] void fault(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Fault(message.str());
}

// Nobody can continue: says where they wait, each place once.
[[noreturn]] void deadlock();

}  // namespace pydl::emulator
