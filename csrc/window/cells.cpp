#include "window/cells.hpp"

#include <algorithm>

#include "errors.hpp"

namespace tidegauge {
namespace {

i64 floor_to(i64 time, i64 width) noexcept {
  if (width == 0) return 0;
  const i64 rest = time % width;
  return time - (rest < 0 ? rest + width : rest);
}

// Slots are kept in 16 bits.
void check_width(i32 n_slots) {
  if (n_slots < 1 || n_slots > 65'536)
    throw SchemaError("a column has between 1 and 65536 slots, got " + std::to_string(n_slots));
}

}  // namespace

Cells::Cells(CellLayout layout) : layout_(std::move(layout)) {
  for (const i32 n_slots : layout_.n_slots) check_width(n_slots);
}

i32 Cells::locate(CellKey key) {
  const auto [found, is_new] = index_.try_emplace(key, size());
  if (is_new) {
    cells_.push_back(std::make_unique<Cell>());
    Cell& cell = *cells_.back();
    cell.key = key;
    cell.blocks.resize(layout_.n_slots.size());
    cell.extremes.resize(layout_.n_slots.size());
  }
  return found->second;
}

void Cells::locate(std::span<const i64> times, std::span<const i32> groups, std::span<const i64> segments,
                   Located out) {
  const std::size_t n = times.size();
  for (std::size_t set = 0; set < static_cast<std::size_t>(out.n_sets); ++set) {
    i32* cells = out.cells.data() + set * n;
    i64 pane = 0;
    i64 next_pane = 0;
    i32 group = -1;
    i32 cell = -1;
    for (std::size_t row = 0; row < n; ++row) {
      const bool same_pane = out.pane_width == 0 || (times[row] >= pane && times[row] < next_pane);
      if (!same_pane || groups[row] != group) {
        pane = floor_to(times[row], out.pane_width);
        next_pane = pane + out.pane_width;
        group = groups[row];
        const auto entry = static_cast<std::size_t>(group) * static_cast<std::size_t>(out.n_sets) + set;
        if (group < 0 || entry >= segments.size()) throw DataError("a row belongs to no known group");
        cell = locate({pane, segments[entry]});
      }
      cells[row] = cell;
    }
  }
}

void Cells::widen(i32 block, i32 n_slots) {
  check_width(n_slots);
  i32& width = layout_.n_slots[static_cast<std::size_t>(block)];
  width = std::max(width, n_slots);
}

void Cells::add_sum(Cell& cell, i32 sum, f64 value) {
  if (cell.sums.empty()) cell.sums.resize(static_cast<std::size_t>(layout_.n_sums));
  add_exactly(value, std::span<i64, kLimbs>(cell.sums[static_cast<std::size_t>(sum)]));
}

i64 Cells::n_bytes() const noexcept {
  i64 bytes = 0;
  for (const auto& cell : cells_) {
    bytes += static_cast<i64>(sizeof(Cell) + cell->blocks.size() * (sizeof(CountBlock) + sizeof(Extremes)));
    bytes += static_cast<i64>(cell->sums.size() * sizeof(cell->sums[0]));
    for (const auto& block : cell->blocks) bytes += block.n_bytes();
  }
  return bytes;
}

}  // namespace tidegauge
