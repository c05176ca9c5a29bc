#include "outcomes/run_sums.hpp"

#include <bit>
#include <unordered_map>
#include <utility>

#include "errors.hpp"

namespace tidegauge {

void RunSums::add_to(Cells& cells, i32 index) const {
  Cell& cell = cells[index];
  for (const i32 block : touched_blocks_) {
    const auto at = static_cast<std::size_t>(block);
    cell.blocks[at].add(slots_[at], cells.n_slots(block));
  }
  for (std::size_t block = 0; block < totals_.size(); ++block) {
    const Totals& totals = totals_[block];
    for (const i32 slot : totals.touched)
      cells.count(index, static_cast<i32>(block), slot, totals.amounts[static_cast<std::size_t>(slot)]);
  }
  if (touched_sums_.empty()) return;
  if (cell.sums.empty()) cell.sums.resize(sums_.size());
  for (const i32 name : touched_sums_) {
    const Sum& sum = sums_[static_cast<std::size_t>(name)];
    add_limbs(sum.limbs, sum.first, sum.last, cell.sums[static_cast<std::size_t>(name)]);
  }
}

void RunSums::Totals::clear() {
  for (const i32 slot : touched) {
    amounts[static_cast<std::size_t>(slot)] = 0;
    is_touched[static_cast<std::size_t>(slot)] = 0;
  }
  touched.clear();
}

void RunSums::clear() {
  for (Totals& totals : totals_) totals.clear();
  for (const i32 block : touched_blocks_) slots_[static_cast<std::size_t>(block)].clear();
  for (const i32 name : touched_sums_) sums_[static_cast<std::size_t>(name)] = {};
  touched_blocks_.clear();
  touched_sums_.clear();
}

Runs find_runs(std::span<const Outcome> rows, const OutcomePlaces& places) {
  struct Memo {
    CellKey key;
    u32 run = ~0U;
  };
  constexpr std::size_t kMemos = 1024;
  const std::size_t n = rows.size();
  const auto n_groups = static_cast<i32>(places.segments.size() / static_cast<std::size_t>(places.n_sets));
  Runs runs;
  std::vector<Memo> memos(std::min(kMemos, std::bit_ceil(n)));
  std::unordered_map<CellKey, u32, CellKeyHash> known;
  std::vector<u32> run_of(n);
  Pane pane;
  for (std::size_t i = 0; i < n; ++i) {
    if (rows[i].group < 0 || rows[i].group >= n_groups) throw DataError("a row belongs to no known group");
    if (rows[i].time < pane.start || rows[i].time >= pane.end) pane = places.panes.at(rows[i].time);
    const CellKey key{pane.start, rows[i].group};
    Memo& memo = memos[CellKeyHash{}(key) & (memos.size() - 1)];
    if (memo.run == ~0U || memo.key != key) {
      const auto [found, is_new] = known.try_emplace(key, static_cast<u32>(runs.keys.size()));
      if (is_new) {
        runs.keys.push_back(key);
        runs.ends.push_back(0);
      }
      memo = {key, found->second};
    }
    run_of[i] = memo.run;
    ++runs.ends[memo.run];
  }
  std::size_t start = 0;
  for (std::size_t& end : runs.ends) start += std::exchange(end, start);
  runs.order.resize(n);
  for (std::size_t i = 0; i < n; ++i) runs.order[runs.ends[run_of[i]]++] = static_cast<u32>(i);
  return runs;
}

}  // namespace tidegauge
