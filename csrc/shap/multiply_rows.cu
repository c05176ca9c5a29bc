// multiply_rows of shap/kernel_shap.cpp on a device, each row with the matrix of its own design.
// Row {1, 2} of design 1 and matrices {{1}, {1}}, {{3}, {4}} give 11.
#include "shap/pairs.hpp"

namespace tidegauge {

// values[n_rows][n_outputs][depth], matrices[n_designs][depth][width], designs[n_rows];
// products[n_rows][n_outputs][width].
extern "C" __global__ void multiply_rows(const f64* __restrict__ values, const f64* __restrict__ matrices,
                                         const i32* __restrict__ designs, i64 n_rows, i64 n_outputs, i64 depth,
                                         i64 width, f64* products) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x; i < n_rows * n_outputs * width; i += step) {
    const i64 row = i / width, design = designs[row / n_outputs];
    products[i] = multiply_row(values + row * depth, matrices + design * depth * width + i % width, depth, width);
  }
}

}  // namespace tidegauge
