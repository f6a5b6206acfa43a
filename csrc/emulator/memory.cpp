// Shared memory and the asynchronous copies into it.
//
// All shared arrays of a block lie in one arena, each at the same place in every block of a launch,
// in the order in which threads first reached their declarations, with zones between them that
// AddressSanitizer forbids.
#include "state.h"

namespace pydl::emulator {
namespace {

constexpr size_t arena_bytes = 384 * 1024, red_zone = 256;

std::vector<Arena> arenas;  // not in use

// All ones are a NaN of every type. Volatile, or the compiler would call memset and ThreadSanitizer
// take it for the kernel's.
void make_nan(char* start, size_t bytes) {
  volatile char* const end = start + bytes;
  volatile uint64_t* word = reinterpret_cast<uint64_t*>(start);
  for (; reinterpret_cast<volatile char*>(word + 1) <= end; ++word) *word = ~uint64_t{0};
  for (auto* byte = reinterpret_cast<volatile char*>(word); byte != end; ++byte)
    *byte = static_cast<char>(0xff);
}

// The array, made ready for use if this is the block's first use of it.
void* array_in(Block& block, size_t number) {
  for (; block.arrays <= number; ++block.arrays) {
    const Launch::Array& array = launch->arrays[block.arrays];
    allow(block.arena.get() + array.offset, array.bytes);
    make_nan(block.arena.get() + array.offset, array.bytes);
  }
  return block.arena.get() + launch->arrays[number].offset;
}

}  // namespace

size_t add_array(size_t bytes, size_t alignment) {
  // Never aligned better than asked for: whoever takes an array of floats for one of float4s must
  // not get away with it.
  const size_t twice = 2 * alignment;
  const size_t offset = (launch->arena_used + red_zone + twice - 1) / twice * twice + alignment;
  launch->arena_used = offset + bytes;
  if (launch->arena_used > arena_bytes)
    fault("the kernel has too many shared arrays for the emulator");
  launch->arrays.push_back({offset, bytes});
  return launch->arrays.size() - 1;
}

void begin_memory(Block& block) {
  block.arrays = 0;
  if (!block.arena) {
    if (arenas.empty())
      arenas.emplace_back(
          static_cast<char*>(::operator new(arena_bytes, AlignedDelete::alignment)));
    block.arena = std::move(arenas.back());
    arenas.pop_back();
  }
  forbid(block.arena.get(), arena_bytes);
}

void end_memory(Block& block) {
  if (block.arena) arenas.push_back(std::move(block.arena));
}

void* shared(SharedArray& declaration, size_t bytes, size_t alignment, Where where) {
  if (declaration.launch != launch->serial) {
    launch->static_bytes += bytes;
    const size_t all = launch->static_bytes + launch->configuration.shared_bytes;
    if (launch->static_bytes > max_static_bytes || all > max_shared_bytes) {
      fault("with the shared array at ", text(where), " the kernel has ", launch->static_bytes,
            " bytes of static and ", all, " of all shared memory: a block has at most ",
            max_static_bytes, " and ", max_shared_bytes);
    }
    declaration = {launch->serial, add_array(bytes, alignment)};
  }
  return array_in(*current->block, declaration.number);
}

void* dynamic_shared() { return array_in(*current->block, 0); }

void check_shared(const char* name, const void* address, size_t bytes, Where where) {
  const auto refuse = [&](const auto&... why) {
    fault(text(*current), " calls ", name, " (", text(where), ") with an address that is ", why...);
  };
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) refuse("not aligned to ", bytes, " bytes");
  const auto* from = static_cast<const char*>(address);
  const Block& block = *current->block;
  for (size_t i = 0; i < block.arrays; ++i) {
    const char* array = block.arena.get() + launch->arrays[i].offset;
    if (from >= array && from + bytes <= array + launch->arrays[i].bytes) return;
  }
  refuse("in no shared array");
}

void copy_async(void* to, const void* from, size_t bytes, size_t source_bytes, Where where) {
  check_shared("cp_async", to, bytes, where);
  if (source_bytes > bytes || reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    fault(text(*current), " calls cp_async (", text(where), ") to read ", source_bytes, " of ",
          bytes, " bytes from ", from, ", which must be aligned to ", bytes);
  }
  if (under_tsan()) {
    __tsan_read_range(const_cast<void*>(from), source_bytes);
    __tsan_write_range(to, bytes);
  }
  std::memset(to, 0xff, bytes);
  current->copies.push_back({static_cast<char*>(to), static_cast<const char*>(from), bytes,
                             source_bytes, current->group, where});
}

void commit_copies() { ++current->group; }

void wait_for_copies(uint64_t groups_left) {
  std::vector<Copy>& copies = current->copies;
  if (!copies.empty()) let_others_run();  // who may still read what the copies write over
  auto copy = copies.begin();
  for (; copy != copies.end() && copy->group + groups_left < current->group; ++copy) {
    if (under_tsan()) __tsan_write_range(copy->to, copy->bytes);
    std::memcpy(copy->to, copy->from, copy->source_bytes);
    std::memset(copy->to + copy->source_bytes, 0, copy->bytes - copy->source_bytes);
  }
  copies.erase(copies.begin(), copy);
}

}  // namespace pydl::emulator
