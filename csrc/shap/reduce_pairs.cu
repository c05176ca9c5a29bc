// reduce_pairs of shap/kernel_shap.cpp on a device: the model's answers for a tile into differences of pairs.
// Answers {3, 5} with a coalition, {1, 1} without it and weights {0.5, 0.5} give 1.5.
#include "shap/pairs.hpp"

namespace tidegauge {

// outputs as of kernel_shap.hpp, starts[n_groups + 1], weights[starts[n_groups]], link as of Link;
// differences[n_rows][n_outputs][n_pairs], those of the pairs [first_pair, last_pair).
extern "C" __global__ void reduce_pairs(const VALUE* __restrict__ outputs, const i64* __restrict__ starts,
                                        const f64* __restrict__ weights, i64 n_rows, i64 n_outputs, i64 n_pairs,
                                        i64 n_groups, i64 first_pair, i64 last_pair, i64 link, f64* differences) {
  const i64 n_tile = last_pair - first_pair, base = meeting_of(first_pair, starts, n_groups).before;
  const i64 per_row = meeting_of(last_pair, starts, n_groups).before - base;
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x; i < n_rows * n_outputs * n_tile; i += step) {
    const i64 row = i / n_tile / n_outputs, output = i / n_tile % n_outputs, k = first_pair + i % n_tile;
    const Meeting met = meeting_of(k, starts, n_groups);
    const VALUE* answers = outputs + (row * per_row + met.before - base) * n_outputs + output;
    differences[(row * n_outputs + output) * n_pairs + k] =
        pair_difference(answers, n_outputs, weights + met.first, met.n_rows, static_cast<Link>(link));
  }
}

}  // namespace tidegauge
