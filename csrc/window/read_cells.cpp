#include "window/read_cells.hpp"

#include <algorithm>
#include <numeric>

#include "errors.hpp"

namespace tidegauge {

void read_counts(const Cells& cells, i32 block, const CellRows& chosen, std::span<const i32> map, i64 width,
                 std::span<i64> out) {
  const auto n_slots = static_cast<std::size_t>(cells.n_slots(block));
  if (map.empty() ? n_slots > static_cast<std::size_t>(width) : map.size() < n_slots) {
    throw SchemaError("a column has more slots than its reader knows of");
  }
  std::fill(out.begin(), out.end(), 0);
  const auto n_out = static_cast<std::size_t>(width);
  for (std::size_t i = 0; i < chosen.cells.size(); ++i) {
    const auto row = out.subspan(static_cast<std::size_t>(chosen.rows[i]) * n_out, n_out);
    cells[chosen.cells[i]].blocks[static_cast<std::size_t>(block)].add_to(row, map);
  }
}

void read_sums(const Cells& cells, const CellRows& chosen, std::span<f64> out) {
  const auto n_sums = static_cast<std::size_t>(cells.layout().n_sums);
  std::vector<std::array<i64, kLimbs>> limbs(out.size());
  for (std::size_t i = 0; i < chosen.cells.size(); ++i) {
    const auto& sums = cells[chosen.cells[i]].sums;
    const std::size_t first = static_cast<std::size_t>(chosen.rows[i]) * n_sums;
    for (std::size_t sum = 0; sum < sums.size(); ++sum) {
      if (is_untouched(sums[sum])) continue;  // of pairs, where there are none
      std::array<i64, kLimbs> normal = sums[sum];
      normalize(normal);  // digits add up without a carry, however many cells there are
      for (std::size_t limb = 0; limb < kLimbs; ++limb) limbs[first + sum][limb] += normal[limb];
    }
  }
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = is_untouched(limbs[i]) ? 0.0 : round_sum(limbs[i]);
}

void read_extremes(const Cells& cells, i32 block, const CellRows& chosen, std::span<f64> out) {
  std::vector<Extremes> rows(out.size() / 2);
  for (std::size_t i = 0; i < chosen.cells.size(); ++i) {
    rows[static_cast<std::size_t>(chosen.rows[i])].merge(
        cells[chosen.cells[i]].extremes[static_cast<std::size_t>(block)]);
  }
  for (std::size_t row = 0; row < rows.size(); ++row) {
    out[2 * row] = rows[row].minimum;
    out[2 * row + 1] = rows[row].maximum;
  }
}

Entries entries_of(const Cells& cells, i32 block) {
  Entries entries;
  std::vector<i64> scratch(static_cast<std::size_t>(cells.n_slots(block)));
  for (i32 cell = 0; cell < cells.size(); ++cell) {
    cells[cell].blocks[static_cast<std::size_t>(block)].for_each(scratch, [&](i32 slot, i64 count) {
      entries.cells.push_back(cell);
      entries.slots.push_back(slot);
      entries.counts.push_back(count);
    });
  }
  return entries;
}

void add_entries(Cells& cells, i32 block, std::span<const i32> where, std::span<const i32> slots,
                 std::span<const i64> counts) {
  const i32 width = cells.n_slots(block);
  for (std::size_t i = 0; i < where.size(); ++i) {
    const bool inside = where[i] >= 0 && where[i] < cells.size() && slots[i] >= 0 && slots[i] < width;
    if (!inside) throw DataError("a stored count lies outside the layout");
  }
  for (std::size_t i = 0; i < where.size(); ++i) cells.count(where[i], block, slots[i], counts[i]);
}

void add_counts(Cells& cells, i32 block, std::span<const i32> where, std::span<const i64> counts) {
  const i32 n_slots = cells.n_slots(block);
  const auto width = static_cast<std::size_t>(n_slots);
  if (counts.size() != where.size() * width) throw DataError("counts do not fit the layout");
  for (std::size_t i = 0; i < where.size(); ++i) {
    const auto row = counts.subspan(i * width, width);
    CountBlock& target = cells[where[i]].blocks[static_cast<std::size_t>(block)];
    if (std::accumulate(row.begin(), row.end(), i64{0}) >= n_slots / 2) {
      target.add_counts(row);
      continue;
    }
    for (i32 slot = 0; slot < n_slots; ++slot) {  // few rows: their slots may fit beside the ones that are there
      if (const i64 count = row[static_cast<std::size_t>(slot)]; count != 0) target.add(slot, count, n_slots);
    }
  }
}

void add_extremes(Cells& cells, i32 block, std::span<const i32> where, std::span<const f64> extremes) {
  if (extremes.size() != 2 * where.size()) throw DataError("stored extremes do not fit the layout");
  for (std::size_t i = 0; i < where.size(); ++i) {
    cells[where[i]].extremes[static_cast<std::size_t>(block)].merge({extremes[2 * i], extremes[2 * i + 1]});
  }
}

void read_keys(const Cells& cells, std::span<i64> keys) {
  for (i32 cell = 0; cell < cells.size(); ++cell) {
    keys[2 * static_cast<std::size_t>(cell)] = cells[cell].key.pane;
    keys[2 * static_cast<std::size_t>(cell) + 1] = cells[cell].key.segment;
  }
}

void read_limbs(const Cells& cells, std::span<i64> limbs) {
  const auto width = static_cast<std::size_t>(cells.layout().n_sums) * kLimbs;
  std::fill(limbs.begin(), limbs.end(), 0);
  for (i32 cell = 0; cell < cells.size(); ++cell) {
    const auto& sums = cells[cell].sums;
    for (std::size_t sum = 0; sum < sums.size(); ++sum) {
      std::array<i64, kLimbs> normal = sums[sum];
      normalize(normal);
      std::copy(normal.begin(), normal.end(),
                limbs.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(cell) * width + sum * kLimbs));
    }
  }
}

void add_limbs(Cells& cells, std::span<const i32> where, std::span<const i64> limbs) {
  const auto n_sums = static_cast<std::size_t>(cells.layout().n_sums);
  const std::size_t width = n_sums * kLimbs;
  if (limbs.size() != where.size() * width) throw DataError("stored sums do not fit the layout");
  for (std::size_t i = 0; i < where.size(); ++i) {
    const auto row = limbs.subspan(i * width, width);
    if (is_untouched(row)) continue;
    auto& sums = cells[where[i]].sums;
    sums.resize(n_sums);
    for (std::size_t sum = 0; sum < n_sums; ++sum) merge_sum(sums[sum], row.subspan(sum * kLimbs).first<kLimbs>());
  }
}

}  // namespace tidegauge
