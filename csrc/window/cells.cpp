#include "window/cells.hpp"

#include <algorithm>

#include "errors.hpp"
#include "recent.hpp"

namespace tidegauge {
namespace {

// Of each allocation, and of an entry of the index: its node and its bucket.
constexpr i64 kAllocation = 16;
constexpr i64 kIndexEntry = 56;

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
    const bool timeless = out.panes.widths[0] == 0;
    Recent<CellKey> recent;
    Pane pane;
    for (std::size_t row = 0; row < n; ++row) {
      if (!timeless && !(times[row] >= pane.start && times[row] < pane.end)) pane = out.panes.at(times[row]);
      const auto entry = static_cast<std::size_t>(groups[row]) * static_cast<std::size_t>(out.n_sets) + set;
      if (groups[row] < 0 || entry >= segments.size()) throw DataError("a row belongs to no known group");
      const CellKey key{pane.start, segments[entry]};
      cells[row] =
          recent.get(key, static_cast<u64>(key.pane) ^ static_cast<u64>(key.segment), [&] { return locate(key); });
    }
  }
}

void Cells::roll(const Panes& panes) {
  for (auto& cell : cells_) {
    const CellKey old = cell->key;
    const CellKey key{panes.at(old.pane).start, old.segment};
    if (panes.keeps(old.pane) && key == old) continue;
    const auto entry = index_.extract(old);
    if (!panes.keeps(old.pane)) {
      cell.reset();
    } else if (const auto wider = index_.find(key); wider != index_.end()) {
      merge((*this)[wider->second], *cell);
      cell.reset();
    } else {
      cell->key = key;
      index_.emplace(key, entry.mapped());
    }
  }
  std::erase(cells_, nullptr);
  for (i32 place = 0; place < size(); ++place) index_.find((*this)[place].key)->second = place;
}

void Cells::merge(Cell& cell, const Cell& other) {
  for (std::size_t block = 0; block < cell.blocks.size(); ++block) {
    cell.blocks[block].merge(other.blocks[block], layout_.n_slots[block]);
    cell.extremes[block].merge(other.extremes[block]);
  }
  if (other.sums.empty()) return;
  cell.sums.resize(other.sums.size());
  for (std::size_t sum = 0; sum < cell.sums.size(); ++sum) merge_sum(cell.sums[sum], other.sums[sum]);
}

void Cells::widen(i32 block, i32 n_slots) {
  check_width(n_slots);
  i32& width = layout_.n_slots[static_cast<std::size_t>(block)];
  width = std::max(width, n_slots);
}

i64 Cells::n_bytes() const noexcept {
  i64 bytes = static_cast<i64>(cells_.capacity() * sizeof(cells_[0]) + run_of_cell_.capacity() * sizeof(i32));
  for (const auto& cell : cells_) {
    bytes += static_cast<i64>(sizeof(Cell) + cell->blocks.size() * (sizeof(CountBlock) + sizeof(Extremes)));
    bytes += static_cast<i64>(cell->sums.capacity() * sizeof(cell->sums[0]));
    bytes += kIndexEntry + 4 * kAllocation;
    for (const auto& block : cell->blocks) {
      if (block.n_bytes() > 0) bytes += block.n_bytes() + kAllocation;
    }
  }
  return bytes;
}

}  // namespace tidegauge
