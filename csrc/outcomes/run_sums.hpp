// What the rows of one run, of the same pane and group, add; worked out once, then added to the cell of each set.
// Costs a few nanoseconds a count and a sum, and one visit to a cell for each run and set.
// Deterministic: integers and exact sums, so the order of rows and runs leaves no trace.
#pragma once

#include "outcomes/outcomes.hpp"

namespace tidegauge {

class RunSums {
 public:
  explicit RunSums(const CellLayout& layout)
      : slots_(layout.n_slots.size()), totals_(layout.n_slots.size()), sums_(static_cast<std::size_t>(layout.n_sums)) {}

  void count(i32 block, i32 slot, i64 amount) {
    if (amount == 1) {
      auto& slots = slots_[static_cast<std::size_t>(block)];
      if (slots.empty()) touched_blocks_.push_back(block);
      slots.push_back(static_cast<std::uint16_t>(slot));
    } else if (amount != 0) {
      totals_[static_cast<std::size_t>(block)].add(slot, amount);
    }
  }
  template <typename Name>
  void add(Name name, f64 value) {
    Sum& sum = sums_[static_cast<std::size_t>(name)];
    if (sum.first > sum.last) touched_sums_.push_back(static_cast<i32>(name));
    const i32 limb = add_exactly(value, sum.limbs);
    sum.first = std::min(sum.first, limb);
    sum.last = std::max(sum.last, limb + 2);
  }
  void add_to(Cells& cells, i32 index) const;
  void clear();

 private:
  struct Sum {
    std::array<i64, kLimbs> limbs{};
    i32 first = kLimbs, last = -1;  // limbs that may differ from 0
  };
  // Amounts by slot, and the slots that have any.
  struct Totals {
    std::vector<i64> amounts;
    std::vector<char> is_touched;
    std::vector<i32> touched;

    void add(i32 slot, i64 amount) {
      const auto place = static_cast<std::size_t>(slot);
      if (place >= amounts.size()) {
        amounts.resize(place + 1);
        is_touched.resize(place + 1);
      }
      if (!is_touched[place]) touched.push_back(slot);
      is_touched[place] = 1;
      amounts[place] += amount;
    }
    void clear();
  };
  std::vector<std::vector<std::uint16_t>> slots_;  // of each block, one entry adds 1
  std::vector<Totals> totals_;                     // of each block, other amounts
  std::vector<Sum> sums_;
  std::vector<i32> touched_blocks_, touched_sums_;
};

// Rows of one pane and group stand together: order[n], and where each run ends.
struct Runs {
  std::vector<u32> order;
  std::vector<std::size_t> ends;
  std::vector<CellKey> keys;  // (pane, group)
};
[[nodiscard]] Runs find_runs(std::span<const Outcome> rows, const OutcomePlaces& places);

// Calls add_row(sums, i) for every row, run by run, and adds what comes together to the cells of each run;
// `slot` of the traffic block counts the rows for which it says true, by their signs.
template <typename AddRow>
void add_runs(Cells& cells, std::span<const Outcome> rows, const OutcomePlaces& places, i32 traffic_block, Traffic slot,
              AddRow&& add_row) {
  constexpr std::size_t kLongestRun = 1 << 20;  // rows, so that limbs never overflow between two flushes
  if (rows.empty()) return;
  const Runs runs = find_runs(rows, places);
  const auto n_sets = static_cast<std::size_t>(places.n_sets);
  RunSums sums(cells.layout());
  std::size_t at = 0;
  for (std::size_t run = 0; run < runs.keys.size(); ++run) {
    const auto [pane, group] = runs.keys[run];
    while (at < runs.ends[run]) {
      i64 n = 0;
      const std::size_t stop = std::min(runs.ends[run], at + kLongestRun);
      for (; at < stop; ++at) {
        const u32 i = runs.order[at];
        if (add_row(sums, i)) n += rows[i].sign;
      }
      for (const i64 segment : places.segments.subspan(static_cast<std::size_t>(group) * n_sets, n_sets)) {
        const i32 cell = cells.locate({pane, segment});
        cells.count(cell, traffic_block, static_cast<i32>(slot), n);
        sums.add_to(cells, cell);
      }
      sums.clear();
    }
  }
}

}  // namespace tidegauge
