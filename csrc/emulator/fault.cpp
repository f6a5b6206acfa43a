#include "fault.h"

#include <algorithm>
#include <utility>

#include "state.h"

namespace pydl::emulator {

std::string text(const Where& where) {
  const std::string path = where.file_name();
  return path.substr(path.find_last_of('/') + 1) + ':' + std::to_string(where.line());
}

std::string text(uint3 index) {
  return '(' + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ')';
}

std::string text(const Thread& thread) {
  return "thread " + text(launch->thread_indices[thread.number]) + " of block " +
         text(thread.block->index);
}

std::string waiting(const Thread& thread) {
  return text(thread) + " waits at " + thread.waits_for + " (" + text(thread.where) + ')';
}

std::string hexadecimal(unsigned mask) {
  std::ostringstream out;
  out << "0x" << std::hex << mask;
  return out.str();
}

bool same(const Where& a, const Where& b) {
  const char *file = a.file_name(), *other = b.file_name();
  return a.line() == b.line() && a.column() == b.column() &&
         (file == other || std::strcmp(file, other) == 0);
}

void deadlock() {
  std::vector<std::pair<const Thread*, size_t>> places;
  for (const auto& block : launch->blocks) {
    for (const Thread& thread : block->threads) {
      if (!thread.waits_for) continue;
      const auto here = [&](const auto& place) { return same(place.first->where, thread.where); };
      const auto known = std::find_if(places.begin(), places.end(), here);
      if (known == places.end())
        places.emplace_back(&thread, 1);
      else
        ++known->second;
    }
  }
  std::ostringstream message;
  for (const auto& [thread, count] : places) {
    message << (message.tellp() ? "; " : "deadlock: ") << waiting(*thread);
    if (thread->mask) message << " with mask " << hexadecimal(thread->mask);
    if (count > 1) message << ", as " << count - 1 << " more do";
  }
  throw Fault(message.str());
}

}  // namespace pydl::emulator
