#include "embedding/project.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2,prefer-vector-width=256")
#endif

namespace tidegauge::avx2 {
constexpr int kLanes = 8;
#include "embedding/project_loop.hpp"
}  // namespace tidegauge::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
