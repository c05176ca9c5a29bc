// Reads the matrix of sums: cells added into rows of windows, and single entries to store and to merge.
// Costs one pass over what the cells hold.
// Deterministic: integers add; exact sums are rounded once, after the last addition.
#pragma once

#include <span>
#include <vector>

#include "window/cells.hpp"

namespace tidegauge {

// Which cells add into which rows: cell cells[i] into row rows[i].
struct CellRows {
  std::span<const i32> cells;
  std::span<const i32> rows;
};

// Slot s of the block lands at map[s], or at s where map is empty. out[n_rows * width]
void read_counts(const Cells& cells, i32 block, const CellRows& chosen, std::span<const i32> map, i64 width,
                 std::span<i64> out);

// out[n_rows * n_sums]
void read_sums(const Cells& cells, const CellRows& chosen, std::span<f64> out);

// Smallest and largest finite value, +inf and -inf where there is none. out[n_rows * 2]
void read_extremes(const Cells& cells, i32 block, const CellRows& chosen, std::span<f64> out);

// All counts of a block that are not zero, by cell and slot.
struct Entries {
  std::vector<i32> cells, slots;
  std::vector<i64> counts;
};
[[nodiscard]] Entries entries_of(const Cells& cells, i32 block);
void add_entries(Cells& cells, i32 block, std::span<const i32> where, std::span<const i32> slots,
                 std::span<const i64> counts);

// Adds dense rows: counts[where.size() * n_slots].
void add_counts(Cells& cells, i32 block, std::span<const i32> where, std::span<const i64> counts);

void add_extremes(Cells& cells, i32 block, std::span<const i32> where, std::span<const f64> extremes);

// (pane, segment) of every cell. keys[n_cells * 2]
void read_keys(const Cells& cells, std::span<i64> keys);

// Exact sums as integers. limbs[n_cells * n_sums * kLimbs]
void read_limbs(const Cells& cells, std::span<i64> limbs);
void add_limbs(Cells& cells, std::span<const i32> where, std::span<const i64> limbs);

}  // namespace tidegauge
