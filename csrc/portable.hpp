// Fixed-width names and the function marker shared by g++, nvcc and NVRTC.
// No cost: declarations, bits of doubles, and a hash of integers.
// Freestanding: no system header, so NVRTC reads it as it stands.
#pragma once

#if defined(__CUDACC__)
#define TIDE_FN __host__ __device__ inline
#else
#define TIDE_FN inline
#endif

namespace tidegauge {

using i8 = signed char;
using i16 = short;
using i32 = int;
using i64 = long long;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using f32 = float;
using f64 = double;

// The bits of a double, and back.
TIDE_FN f64 from_bits(u64 bits) {
  union {
    u64 bits;
    f64 value;
  } both;
  both.bits = bits;
  return both.value;
}

TIDE_FN u64 to_bits(f64 value) {
  union {
    f64 value;
    u64 bits;
  } both;
  both.value = value;
  return both.bits;
}

// Scatters integers over all of 64 bits, one to one.
TIDE_FN u64 scatter(u64 x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
  return x ^ x >> 31;
}

}  // namespace tidegauge
