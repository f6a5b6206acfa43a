// What the lanes of a warp do together: each function is called by the last lane to arrive, with
// the arguments of all.
#include "../half.h"
#include "emulator.h"

namespace pydl::emulator {
namespace {

constexpr unsigned all_lanes = 0xffffffffu;

struct Shuffle {
  uint64_t bits;
  int source;
  uint64_t result;
};

struct Ballot {
  int predicate;
  unsigned result;
};

struct Product {
  float* c;
  const uint32_t *a, *b;
};

struct MatrixLoad {
  uint32_t* registers;
  const void* row;
};

template <class Argument, class Function>
void for_each_lane(void* const (&arguments)[32], unsigned mask, Function&& function) {
  for (int lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) function(lane, *static_cast<Argument*>(arguments[lane]));
  }
}

// A lane's 16-bit operands, two per register, and tf32 ones, of which tensor cores ignore the last
// 13 bits.
template <Operand operand>
float element(const uint32_t* registers, int i) {
  if constexpr (operand == Operand::tf32) return pydl::detail::float_of(registers[i] & ~0x1fffu);
  const auto bits = static_cast<uint16_t>(registers[i / 2] >> (i % 2 * 16));
  return operand == Operand::float16 ? pydl::detail::half_to_float(bits)
                                     : pydl::detail::bfloat_to_float(bits);
}

template <Operand operand>
void product(void* const (&arguments)[32], unsigned) {
  constexpr int each = operand == Operand::tf32 ? 1 : 2;  // values per register
  constexpr int K = 8 * each;
  float a[16][K], b[K][8], c[16][8];
  for_each_lane<Product>(arguments, all_lanes, [&](int lane, const Product& lanes) {
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < each; ++e) {
      for (int half = 0; half < 2; ++half) {  // of K
        const int k = t * each + e + half * 4 * each;
        a[g][k] = element<operand>(lanes.a, (2 * half) * each + e);
        a[g + 8][k] = element<operand>(lanes.a, (2 * half + 1) * each + e);
        b[k][g] = element<operand>(lanes.b, half * each + e);
      }
    }
    for (int i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * t + i % 2] = lanes.c[i];
  });
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < K; ++k) {
      for (int n = 0; n < 8; ++n) c[m][n] += a[m][k] * b[k][n];
    }
  }
  for_each_lane<Product>(arguments, all_lanes, [&](int lane, const Product& lanes) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) lanes.c[i] = c[g + i / 2 * 8][2 * t + i % 2];
  });
}

template <int matrices, bool transposed>
void load(void* const (&arguments)[32], unsigned) {
  for_each_lane<MatrixLoad>(arguments, all_lanes, [&](int lane, const MatrixLoad& own) {
    for (int matrix = 0; matrix < matrices; ++matrix) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int along = lane % 4 * 2 + i, across = lane / 4;
        const int row = transposed ? along : across, column = transposed ? across : along;
        const void* start = static_cast<const MatrixLoad*>(arguments[matrix * 8 + row])->row;
        std::memcpy(&pair[i], static_cast<const uint16_t*>(start) + column, sizeof pair[i]);
      }
      own.registers[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  });
}

}  // namespace

uint64_t shuffle(const char* name, unsigned mask, uint64_t bits, int source, Where where) {
  Shuffle argument{bits, source, 0};
  const Work work = [](void* const(&arguments)[32], unsigned mask) {
    for_each_lane<Shuffle>(arguments, mask, [&](int, Shuffle& own) {
      // What a lane that takes no part would have sent is undefined: make it a NaN.
      const bool there = mask >> own.source & 1;
      own.result = there ? static_cast<const Shuffle*>(arguments[own.source])->bits : ~uint64_t{0};
    });
  };
  collective(name, mask, &argument, work, where);
  return argument.result;
}

unsigned ballot(const char* name, unsigned mask, int predicate, Where where) {
  Ballot argument{predicate, 0};
  const Work work = [](void* const(&arguments)[32], unsigned mask) {
    unsigned votes = 0;
    for_each_lane<Ballot>(arguments, mask, [&](int lane, Ballot& own) {
      votes |= (own.predicate != 0 ? 1u : 0u) << lane;
    });
    for_each_lane<Ballot>(arguments, mask, [&](int, Ballot& own) { own.result = votes; });
  };
  collective(name, mask, &argument, work, where);
  return argument.result;
}

void multiply(Operand operand, float* c, const uint32_t* a, const uint32_t* b, Where where) {
  Product argument{c, a, b};
  const Work work = operand == Operand::float16    ? product<Operand::float16>
                    : operand == Operand::bfloat16 ? product<Operand::bfloat16>
                                                   : product<Operand::tf32>;
  collective("mma_sync", all_lanes, &argument, work, where);
}

void load_matrices(int matrices, bool transposed, uint32_t* registers, const void* row,
                   Where where) {
  if (lane() < 8 * matrices) check_shared("ldmatrix", row, 16, where);
  MatrixLoad argument{registers, row};
  const Work work = matrices == 1   ? (transposed ? load<1, true> : load<1, false>)
                    : matrices == 2 ? (transposed ? load<2, true> : load<2, false>)
                                    : (transposed ? load<4, true> : load<4, false>);
  collective("ldmatrix", all_lanes, &argument, work, where);
}

}  // namespace pydl::emulator
