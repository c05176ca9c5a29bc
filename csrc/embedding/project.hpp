// The inner loops of embedding.cpp, compiled once for each instruction set.
// Costs what embedding.hpp states.
// Deterministic: lanes never meet but in a fixed order at the end; without fused multiply-add.
#pragma once

#include "portable.hpp"

namespace tidegauge {

struct ProjectLoops {
  // Products of rows with a panel's columns. rows[n_rows * width], panel[width * 16], out[n_rows * stride]; n_rows is a
  // multiple of 12.
  void (*project)(const float* rows, i64 n_rows, i64 width, const float* panel, float* out, i64 stride);
  // Moves a row by the center; its squared norm before and after. row[width]
  void (*center)(float* row, const float* center, i64 width, float* before, float* after);
  float (*squared_distance)(const float* a, const float* b, i64 width);
  // Place of the smallest half_norms[j] - scores[j], the lowest of equals; n is a multiple of 16.
  i32 (*nearest)(const float* scores, const float* half_norms, i64 n);
};

namespace scalar {
extern const ProjectLoops kProjectLoops;
}
#if defined(__x86_64__) && defined(__GNUC__)
namespace avx2 {
extern const ProjectLoops kProjectLoops;
}
namespace avx512 {
extern const ProjectLoops kProjectLoops;
}
#endif

}  // namespace tidegauge
