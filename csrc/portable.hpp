// Fixed-width names and the function marker shared by g++, nvcc and NVRTC.
// No cost: declarations only.
// Freestanding: no system header, so NVRTC reads it as it stands.
#pragma once

#if defined(__CUDACC__)
#define TIDE_FN __host__ __device__ inline
#else
#define TIDE_FN inline
#endif

namespace tidegauge {

using i32 = int;
using i64 = long long;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using f64 = double;

}  // namespace tidegauge
