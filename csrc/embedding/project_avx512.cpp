#include "embedding/project.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

namespace tidegauge::avx512 {
constexpr int kLanes = 16;
#include "embedding/project_loop.hpp"
}  // namespace tidegauge::avx512

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
