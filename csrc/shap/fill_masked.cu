// fill_masked of shap/kernel_shap.cpp on a device: masked rows of a tile, into the memory that the model reads.
// Row {1, 2}, background {7, 8} and the coalition 0b01 give {1, 8} and, of its complement, {7, 2}.
#include "shap/coalition.hpp"
#include "shap/pairs.hpp"

namespace tidegauge {

constexpr i64 kLanes = 32;  // a warp writes a pair, neighbours in memory by neighbouring threads

// rows[n_rows][n_columns], background[starts[n_groups]][n_columns], masks[n_designs][n_pairs][n_words],
// starts[n_groups + 1], designs[n_rows], labels[n_rows][n_columns]; input as of kernel_shap.hpp.
extern "C" __global__ void fill_masked(const WORD* __restrict__ rows, const WORD* __restrict__ background,
                                       const u64* __restrict__ masks, const i64* __restrict__ starts,
                                       const i32* __restrict__ designs, const i32* __restrict__ labels, i64 n_rows,
                                       i64 n_columns, i64 n_pairs, i64 n_words, i64 n_groups, i64 first_pair,
                                       i64 last_pair, WORD* input) {
  const i64 me = i64{blockIdx.x} * blockDim.x + threadIdx.x, n_warps = i64{gridDim.x} * blockDim.x / kLanes;
  const i64 n_tile = last_pair - first_pair, base = meeting_of(first_pair, starts, n_groups).before;
  const i64 per_row = meeting_of(last_pair, starts, n_groups).before - base;
  for (i64 task = me / kLanes; task < n_rows * n_tile; task += n_warps) {
    const i64 r = task / n_tile, k = first_pair + task % n_tile;
    const Meeting met = meeting_of(k, starts, n_groups);
    const u64* mask = masks + (designs[r] * n_pairs + k) * n_words;
    const WORD *row = rows + r * n_columns, *others = background + met.first * n_columns;
    WORD* with = input + (r * per_row + met.before - base) * n_columns;
    const i64 n_values = met.n_rows * n_columns;
    i64 c = me % kLanes % n_columns;
    for (i64 i = me % kLanes; i < n_values; i += kLanes) {
      const WORD chosen = static_cast<WORD>(0 - holds(mask, labels[r * n_columns + c]));
      with[i] = mask_value(row[c], others[i], chosen);
      with[n_values + i] = mask_value(others[i], row[c], chosen);
      c += kLanes % n_columns;  // a remainder without a division
      if (c >= n_columns) c -= n_columns;
    }
  }
}

}  // namespace tidegauge
