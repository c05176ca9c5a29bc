// The encode loop, included once by each translation unit that compiles it for an instruction set.
// Costs what encode.hpp states; cells and cuts go by in passes over a block that stays in the first cache.
// Deterministic: element-wise steps and exact minima. The including unit sets the namespace and the target.

void encode_grid(const Grid& grid, const f64* __restrict__ values, i64 n, std::uint16_t* __restrict__ slots) {
  constexpr i64 kBlock = 256;
  i32 cells[kBlock];
  for (i64 start = 0; start < n; start += kBlock) {
    const i64 size = n - start < kBlock ? n - start : kBlock;
    const f64* block = values + start;
    switch (grid.kind) {
      case GridKind::kLinear: {
        const f64 origin = grid.origin, scale = grid.scale, last = static_cast<f64>(grid.n_cells + 1);
        for (i64 i = 0; i < size; ++i) cells[i] = static_cast<i32>(linear_position(block[i], origin, scale, last));
        break;
      }
      case GridKind::kLog:
        for (i64 i = 0; i < size; ++i) cells[i] = log_cell(block[i], grid);
        break;
      case GridKind::kSymlog:
        for (i64 i = 0; i < size; ++i) cells[i] = symlog_cell(block[i], grid);
        break;
      default:
        for (i64 i = 0; i < size; ++i) cells[i] = 0;
    }
    i32 k = 0;
    for (; k + 4 <= grid.n_cuts; k += 4) {
      const f64 a = grid.cuts[k], b = grid.cuts[k + 1], c = grid.cuts[k + 2], d = grid.cuts[k + 3];
      for (i64 i = 0; i < size; ++i) {
        const f64 x = block[i];
        cells[i] += (x >= a ? 1 : 0) + (x >= b ? 1 : 0) + (x >= c ? 1 : 0) + (x >= d ? 1 : 0);
      }
    }
    for (; k < grid.n_cuts; ++k) {
      const f64 cut = grid.cuts[k];
      for (i64 i = 0; i < size; ++i) cells[i] += block[i] >= cut ? 1 : 0;
    }
    for (i64 i = 0; i < size; ++i) {
      slots[start + i] = static_cast<std::uint16_t>(block[i] == block[i] ? cells[i] + kSpecials : kNan);
    }
  }
}

// Smallest and largest finite value; +inf and -inf where there is none.
void finite_range(const f64* __restrict__ values, i64 n, f64* low, f64* high) {
  constexpr i64 kLanes = 32;
  constexpr f64 kLargest = 1.7976931348623157e308;
  constexpr f64 kInfinity = __builtin_huge_val();
  f64 lows[kLanes], highs[kLanes];
  for (i64 lane = 0; lane < kLanes; ++lane) {
    lows[lane] = kInfinity;
    highs[lane] = -kInfinity;
  }
  i64 i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (i64 lane = 0; lane < kLanes; ++lane) {
      const f64 x = values[i + lane];
      const f64 above = x >= -kLargest ? x : kInfinity;  // neither NaN nor -inf is a smallest value
      const f64 below = x <= kLargest ? x : -kInfinity;
      lows[lane] = above < lows[lane] ? above : lows[lane];
      highs[lane] = below > highs[lane] ? below : highs[lane];
    }
  }
  for (; i < n; ++i) {
    const f64 x = values[i];
    if (x >= -kLargest && x < lows[0]) lows[0] = x;
    if (x <= kLargest && x > highs[0]) highs[0] = x;
  }
  *low = kInfinity;
  *high = -kInfinity;
  for (i64 lane = 0; lane < kLanes; ++lane) {
    *low = lows[lane] < *low ? lows[lane] : *low;
    *high = highs[lane] > *high ? highs[lane] : *high;
  }
  *low += 0.0;  // both zeros are one
  *high += 0.0;
}
