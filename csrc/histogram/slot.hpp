// The slot of a value and the number that a stored value stands for: the definition that every engine counts by.
// Costs the grid's few steps and one comparison a cut and a sentinel; a guide and a short search for exact edges.
// Deterministic: IEEE-exact steps in a fixed order, so every processor and CUDA give the same slot.
#pragma once

#include "histogram/bins.hpp"

namespace tidegauge {

constexpr u64 kQuietNan = 0x7ff8ULL << 48;
constexpr f64 kLargest = 1.7976931348623157e308;

struct Half {  // IEEE binary16
  u16 bits;
};

template <typename T>
TIDE_FN f64 to_double(T value) {
  return static_cast<f64>(value);
}

template <typename T>
TIDE_FN f32 to_float(T value) {
  return static_cast<f32>(value);
}

TIDE_FN f32 to_float(Half half) {
  union {
    u32 bits;
    f32 value;
  } both;
  const u32 magnitude = half.bits & 0x7fffU;
  const u32 sign = (half.bits & 0x8000U) << 16;
  both.bits = magnitude << 13;
  both.value *= 0x1p112F;  // subnormals too
  both.bits = sign | (magnitude < 0x7c00U ? both.bits : 0x7f800000U | magnitude << 13);
  return both.value;
}

TIDE_FN f64 to_double(Half half) { return static_cast<f64>(to_float(half)); }

template <typename T>
TIDE_FN i64 integer_of(T value) {
  return static_cast<i64>(value);
}

TIDE_FN i64 integer_of(Half half) { return half.bits; }

// Microseconds since 1970 of ticks that last `multiply` / `divide` of one, rounded down; NaN beyond 64 bits.
TIDE_FN f64 microseconds_of(i64 ticks, i64 multiply, i64 divide) {
  constexpr i64 kLast = 0x7fffffffffffffffLL;
  if (multiply > 1 && (ticks > kLast / multiply || ticks < (-kLast - 1) / multiply)) return from_bits(kQuietNan);
  const i64 scaled = ticks * multiply;
  return static_cast<f64>(scaled / divide - (scaled % divide < 0 ? 1 : 0));
}

TIDE_FN i32 cell_of(f64 x, const Grid& grid) {
  switch (grid.kind) {
    case GridKind::kLinear: return linear_cell(x, grid);
    case GridKind::kLog: return log_cell(x, grid);
    case GridKind::kSymlog: return symlog_cell(x, grid);
    default: return 0;
  }
}

// Where among exact edges the values of one cell of a guide lie.
struct GuideCell {
  f64 edge = 0;   // first edge within the cell
  i32 below = 0;  // slot of values below it
  i32 more = 0;   // edges within the cell after the first
};

// Slot among exact edges of a value that lies in this cell of the guide.
TIDE_FN i32 guided_slot(f64 x, const GuideCell& cell, const f64* edges) {
  if (cell.more == 0) return cell.below + (x >= cell.edge ? 1 : 0);
  const i32 first = cell.below - kSpecials;
  return kSpecials + edges_at_or_below(x, edges, first, first + 1 + cell.more);
}

// The bins of a numeric column; its lists lie where the values do.
struct BinsView {
  Grid grid;                         // of the bins; the guide where there are edges
  const f64* edges = nullptr;        // null when the grid serves
  const GuideCell* guide = nullptr;  // by slot of the guide
  const f64* sentinels = nullptr;
  i64 n_sentinels = 0;
};

// Slots of n values; nulls are the caller's. A few values go together, so that each cut is read once for all of them.
template <i32 n>
TIDE_FN void slots_of(const BinsView& bins, const f64 (&values)[n], i32 (&slots)[n]) {
  for (i32 i = 0; i < n; ++i) slots[i] = kSpecials + cell_of(values[i], bins.grid);
  for (i32 cut = 0; cut < bins.grid.n_cuts; ++cut) {
    for (i32 i = 0; i < n; ++i) slots[i] += values[i] >= bins.grid.cuts[cut] ? 1 : 0;
  }
  for (i32 i = 0; i < n; ++i) slots[i] = values[i] == values[i] ? slots[i] : kNan;
  if (bins.edges != nullptr) {
    for (i32 i = 0; i < n; ++i) slots[i] = guided_slot(values[i], bins.guide[slots[i]], bins.edges);
  }
  for (i64 sentinel = 0; sentinel < bins.n_sentinels; ++sentinel) {
    for (i32 i = 0; i < n; ++i) slots[i] = values[i] == bins.sentinels[sentinel] ? kSentinel : slots[i];
  }
}

// Doubles in order, as unsigned integers in order; both zeros are one.
TIDE_FN u64 to_key(f64 x) {
  const u64 bits = to_bits(x + 0.0);
  return bits >> 63 ? ~bits : bits | 1ULL << 63;
}

}  // namespace tidegauge
