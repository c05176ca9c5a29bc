#include "window/fill.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "parallel.hpp"

namespace tidegauge {
namespace {

struct Run {
  i32 cell;
  u16 begin, end;  // into the block's order
};

// For one set of segments: which rows of each block go to which cell.
struct SetPlan {
  std::vector<u16> order;  // [n_rows] row within its block, grouped by cell; unused where whole, empty where all are
  std::vector<Run> runs;
  std::vector<std::size_t> first_run{0};  // [n_blocks + 1]
  std::vector<i64> stretch;  // [n_blocks] rows in the stretch of blocks that go to one cell as a whole; 0 where mixed

  [[nodiscard]] std::span<const Run> runs_of(std::size_t block) const {
    return std::span(runs).subspan(first_run[block], first_run[block + 1] - first_run[block]);
  }
  [[nodiscard]] std::span<const u16> order_of(std::size_t block) const {
    return std::span(order).subspan(block * static_cast<std::size_t>(kBlock));
  }
};

void plan_whole_block(SetPlan& plan, i32 cell, std::size_t n) {
  plan.runs.push_back({cell, 0, static_cast<u16>(n)});
  plan.first_run.push_back(plan.runs.size());
  plan.stretch.push_back(static_cast<i64>(n));
}

// Sorts the rows of a block by cell, in the order in which cells are met. order[n]
void plan_mixed_block(SetPlan& plan, std::span<const i32> cells, std::span<u16> order, std::vector<i32>& run_of_cell) {
  std::array<u16, kBlock> run_of;
  const std::size_t first = plan.runs.size();
  for (std::size_t row = 0; row < cells.size(); ++row) {
    if (cells[row] < 0) continue;
    i32& run = run_of_cell[static_cast<std::size_t>(cells[row])];
    if (run < 0) {
      run = static_cast<i32>(plan.runs.size() - first);
      plan.runs.push_back({cells[row], 0, 0});
    }
    run_of[row] = static_cast<u16>(run);
    ++plan.runs[first + run_of[row]].end;
  }
  u16 position = 0;
  for (Run& run : std::span(plan.runs).subspan(first)) {
    run_of_cell[static_cast<std::size_t>(run.cell)] = -1;
    const u16 n = run.end;
    run.begin = run.end = position;
    position = static_cast<u16>(position + n);
  }
  for (std::size_t row = 0; row < cells.size(); ++row) {
    if (cells[row] >= 0) order[plan.runs[first + run_of[row]].end++] = static_cast<u16>(row);
  }
  plan.first_run.push_back(plan.runs.size());
  plan.stretch.push_back(0);
}

// Turns the rows of each whole block into those of all such blocks around it.
void measure_stretches(SetPlan& plan) {
  const auto go_on = [&](std::size_t block) {
    return plan.stretch[block - 1] > 0 && plan.stretch[block] > 0 &&
           plan.runs_of(block - 1)[0].cell == plan.runs_of(block)[0].cell;
  };
  const std::size_t n = plan.stretch.size();
  for (std::size_t block = 1; block < n; ++block) {
    if (go_on(block)) plan.stretch[block] += plan.stretch[block - 1];
  }
  for (std::size_t block = n; block-- > 1;) {
    if (go_on(block)) plan.stretch[block - 1] = plan.stretch[block];
  }
}

// cells[n_rows], or one for all of them.
SetPlan make_plan(std::span<const i32> cells, std::size_t n_rows, std::vector<i32>& run_of_cell) {
  SetPlan plan;
  for (std::size_t start = 0; start < n_rows; start += kBlock) {
    const std::size_t n = std::min<std::size_t>(kBlock, n_rows - start);
    const auto block = cells.size() == 1 ? cells : cells.subspan(start, n);
    i32 different = 0;
    for (const i32 cell : block) different |= cell ^ block[0];
    if (different == 0 && block[0] >= 0) {
      plan_whole_block(plan, block[0], n);
    } else {
      plan.order.resize(n_rows);
      plan_mixed_block(plan, block, std::span(plan.order).subspan(start, n), run_of_cell);
    }
  }
  measure_stretches(plan);
  return plan;
}

// Counts of whole blocks on their way to one cell.
class PartialCounts {
 public:
  explicit PartialCounts(i32 n_slots) : n_slots_(static_cast<std::size_t>(n_slots)) {}

  // Where to count n rows of a target; another target first gets what it is due.
  [[nodiscard]] Tally aim_at(CountBlock& target, i64 n) {
    if (&target != target_ || n_rows_ > 1'000'000'000) {
      flush();
      target_ = &target;
      counts_.resize(4 * n_slots_);  // allocated by the first block that comes
    }
    n_rows_ += n;
    return {counts_.data(), static_cast<i64>(n_slots_)};
  }

  void flush() {
    if (target_ == nullptr) return;
    std::vector<i64> total(n_slots_);
    for (std::size_t slot = 0; slot < n_slots_; ++slot) {
      total[slot] =
          counts_[slot] + counts_[n_slots_ + slot] + counts_[2 * n_slots_ + slot] + counts_[3 * n_slots_ + slot];
    }
    target_->add_counts(total);
    std::fill(counts_.begin(), counts_.end(), 0U);
    target_ = nullptr;
    n_rows_ = 0;
  }

 private:
  std::size_t n_slots_;
  std::vector<u32> counts_;
  CountBlock* target_ = nullptr;
  i64 n_rows_ = 0;
};

// One column's way into the cells.
class ColumnFiller {
 public:
  ColumnFiller(Cells& cells, i32 block, BlockEncoder& encoder, std::size_t n_sets)
      : cells_(cells),
        index_(static_cast<std::size_t>(block)),
        n_slots_(cells.n_slots(block)),
        encoder_(encoder),
        counts_(n_sets, PartialCounts(n_slots_)) {}

  // Rows [start, start + n) of the batch, which are block `number` of the plans.
  void add(i64 start, i64 n, std::size_t number, std::span<const SetPlan> plans) {
    // The first set, mostly one cell for all, is counted while the block is encoded.
    const auto dense = [&](const SetPlan& plan) { return plan.stretch[number] > n_slots_ / 2; };
    Tally first{};
    if (dense(plans[0])) first = counts_[0].aim_at(count_block(plans[0].runs_of(number)[0]), n);
    const Output output = first && plans.size() == 1 ? Output::kCounts : Output::kSlots;
    const Block block = encoder_.encode_block(start, n, first, output);
    for (std::size_t set = 0; set < plans.size(); ++set) {
      const SetPlan& plan = plans[set];
      const auto runs = plan.runs_of(number);
      if (dense(plan)) {
        if (set > 0) tally_slots(block.slots.data(), n, counts_[set].aim_at(count_block(runs[0]), n));
        widen(block, runs[0].cell, {});
      } else if (plan.stretch[number] > 0) {
        count_block(runs[0]).add(block.slots, n_slots_);
        widen(block, runs[0].cell, {});
      } else {
        add_runs(block, runs, plan.order_of(number));
      }
    }
  }

  void flush() {
    for (PartialCounts& counts : counts_) counts.flush();
  }

 private:
  [[nodiscard]] CountBlock& count_block(const Run& run) { return cells_[run.cell].blocks[index_]; }

  void add_runs(const Block& block, std::span<const Run> runs, std::span<const u16> order) {
    std::array<u16, kBlock> sorted;
    for (const Run& run : runs) {
      const auto members = order.subspan(run.begin, static_cast<std::size_t>(run.end - run.begin));
      for (std::size_t i = 0; i < members.size(); ++i) sorted[i] = block.slots[members[i]];
      count_block(run).add(std::span<const u16>(sorted).first(members.size()), n_slots_);
      widen(block, run.cell, members);
    }
  }

  // Extremes of a cell by some rows of a block, or all where none are named. Mostly they lie within already.
  void widen(const Block& block, i32 cell, std::span<const u16> members) {
    Extremes& extremes = cells_[cell].extremes[index_];
    const Range& range = block.range;
    if (!block.has_numbers || (range.low >= extremes.minimum && range.high <= extremes.maximum)) return;
    if (block.exact && members.empty()) {
      extremes.merge({range.low + 0.0, range.high + 0.0});  // both zeros are one
      return;
    }
    const auto numbers = encoder_.numbers();
    if (members.empty()) {
      const Range counted = counted_range(numbers, block.slots);
      extremes.merge({counted.low + 0.0, counted.high + 0.0});
      return;
    }
    for (const u16 row : members) {
      if (block.slots[row] >= kSpecials && std::isfinite(numbers[row])) extremes.add(numbers[row]);
    }
  }

  Cells& cells_;
  std::size_t index_;
  i32 n_slots_;
  BlockEncoder& encoder_;
  std::vector<PartialCounts> counts_;  // [n_sets]
};

}  // namespace

Filler::Filler(const Batch& batch, std::vector<FillColumn> columns)
    : batch_(batch), columns_(std::move(columns)), memories_(columns_.size()) {}

void Filler::add(Cells& cells, const FillRows& rows, i32 n_threads) {
  const i64 n_cells = static_cast<i64>(rows.cells.size()) / rows.n_sets;
  const bool inside = rows.start >= 0 && rows.n_rows >= 0 && rows.start + rows.n_rows <= batch_.n_rows();
  if (!inside || (n_cells != 1 && n_cells != rows.n_rows)) throw std::out_of_range("rows outside the batch");
  if (rows.n_rows == 0) return;
  std::vector<SetPlan> plans;
  for (i32 set = 0; set < rows.n_sets; ++set) {
    const auto of_set = rows.cells.subspan(static_cast<std::size_t>(set * n_cells), static_cast<std::size_t>(n_cells));
    plans.push_back(make_plan(of_set, static_cast<std::size_t>(rows.n_rows), cells.run_of_cell()));
  }
  if (rows.traffic_block >= 0) {
    for (const SetPlan& plan : plans) {
      for (const Run& run : plan.runs) cells.count(run.cell, rows.traffic_block, 0, run.end - run.begin);
    }
  }
  const bool worth_threads = rows.n_rows * static_cast<i64>(columns_.size()) > 400'000;
  parallel_for(static_cast<i64>(columns_.size()), worth_threads ? n_threads : 1, [&](i64 index) {
    const auto column = static_cast<std::size_t>(index);
    BlockEncoder encoder(batch_, columns_[column], memories_[column], rows.n_rows);
    ColumnFiller filler(cells, columns_[column].block, encoder, plans.size());
    for (i64 start = 0; start < rows.n_rows; start += kBlock) {
      filler.add(rows.start + start, std::min(kBlock, rows.n_rows - start), static_cast<std::size_t>(start / kBlock),
                 plans);
    }
    filler.flush();
  });
}

}  // namespace tidegauge
