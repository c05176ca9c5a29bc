// The fine bin of a value: a monotone grid, plus one for each cut at or below the value.
// Costs one subtraction and one multiplication, or one shift, and a comparison for each cut.
// Deterministic: IEEE-exact steps in a fixed order, so every processor and CUDA give the same bin.
#pragma once

#include "portable.hpp"

namespace tidegauge {

// Slots that every histogram begins with; ordered bins follow them.
constexpr i32 kMissing = 0;   // null
constexpr i32 kNan = 1;       // not a number
constexpr i32 kSentinel = 2;  // a value declared to mean "missing"
constexpr i32 kInvalid = 3;   // a value of a type the column cannot hold
constexpr i32 kAbsent = 4;    // the batch came without the column
constexpr i32 kSpecials = 5;

constexpr i32 kMaxCuts = 16;

enum class GridKind : i32 { kCuts, kLinear, kLog, kSymlog };

struct Grid {
  GridKind kind = GridKind::kCuts;
  f64 origin = 0;   // linear: where cell 1 begins; symlog: the centre
  f64 scale = 1;    // linear: cells per unit; symlog: half-width of the linear middle
  i32 shift = 0;    // log, symlog: bits of the float's upper half that are dropped
  i32 base = 0;     // log, symlog: upper half, shifted, of the first cell
  i32 n_cells = 0;  // inner cells; one more on each side takes everything beyond
  i32 n_cuts = 0;
  f64 cuts[kMaxCuts] = {};  // ascending; each splits its cell in two at exactly this value
};

TIDE_FN i32 upper_half(f64 x) { return static_cast<i32>(static_cast<u32>(to_bits(x) >> 32)); }

TIDE_FN f64 linear_position(f64 x, f64 origin, f64 scale, f64 last) {
  f64 position = (x - origin) * scale + 1.0;
  position = position > 0.0 ? position : 0.0;  // a NaN ends here too
  return position < last ? position : last;
}

TIDE_FN i32 clamp_cell(i32 cell, i32 last) {
  cell = cell > 0 ? cell : 0;
  return cell < last ? cell : last;
}

// Cell of x: 0 below the grid, 1..n_cells, n_cells + 1 above it. NaN gets any.
TIDE_FN i32 linear_cell(f64 x, const Grid& grid) {
  return static_cast<i32>(linear_position(x, grid.origin, grid.scale, static_cast<f64>(grid.n_cells + 1)));
}

TIDE_FN i32 log_cell(f64 x, const Grid& grid) {
  return clamp_cell((upper_half(x) >> grid.shift) - grid.base + 1, grid.n_cells + 1);
}

TIDE_FN i32 symlog_cell(f64 x, const Grid& grid) {
  const f64 distance = x - grid.origin;
  const f64 magnitude = (distance < 0.0 ? -distance : distance) + grid.scale;
  const i32 half = grid.n_cells / 2;
  const i32 step = clamp_cell((upper_half(magnitude) >> grid.shift) - grid.base, half);
  return distance < 0.0 ? half - step : half + 1 + step;
}

// Number of edges[n] at or below x. Values of `first` and `last` bound where the answer can be.
TIDE_FN i32 edges_at_or_below(f64 x, const f64* edges, i32 first, i32 last) {
  while (first < last) {
    const i32 middle = first + (last - first) / 2;
    if (edges[middle] <= x) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return first;
}

}  // namespace tidegauge
