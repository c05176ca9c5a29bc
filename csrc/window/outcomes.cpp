#include "window/outcomes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "errors.hpp"
#include "histogram/encode.hpp"

namespace tidegauge {
namespace {

constexpr f64 kSmallest =
    2.220446049250313e-16;  // scores are kept this far from 0 and 1 in logarithms, labels from 0 in ratios
constexpr std::size_t kLongestRun = 1 << 20;  // rows, so that limbs never overflow between two flushes
constexpr std::size_t kWorthGuide = 512;      // rows

struct Row {
  f64 label;
  i32 decision;
  std::span<const f64> values;
  i64 sign;
  i64 units;   // signed weight, in whole rows or in units
  f64 factor;  // the same as a double
};

Row row_at(const Outcomes& outcomes, std::size_t i) {
  const std::size_t n_values = outcomes.values.size() / outcomes.rows.size();
  const Outcome& row = outcomes.rows[i];
  const i64 units =
      outcomes.has_weights ? row.sign * static_cast<i64>(std::llrint(row.weight * kWeightUnits)) : row.sign;
  const auto values = std::span(outcomes.values).subspan(i * n_values, n_values);
  return {row.label, row.decision, values, row.sign, units, static_cast<f64>(units)};
}

// Tenth of [0, 1] that a score lies in, by comparison with k / 10 as the score bins have it.
i32 tenth_of(f64 score) {
  i32 tenth = std::clamp(static_cast<i32>(score * kTenths), 0, kTenths - 1);
  while (tenth > 0 && score < static_cast<f64>(tenth) / kTenths) --tenth;
  while (tenth < kTenths - 1 && score >= static_cast<f64>(tenth + 1) / kTenths) ++tenth;
  return tenth;
}

f64 log_loss_of(f64 probability) { return -std::log(std::clamp(probability, kSmallest, 1.0 - kSmallest)); }

// Bins of scores in [0, 1]; a guide bounds the search where there are rows enough to pay for it.
class ScoreBins {
 public:
  ScoreBins(std::span<const f64> edges, std::size_t n_rows) : edges_(edges) {
    if (n_rows < kWorthGuide || edges.empty()) return;
    guide_.resize(kGuideCells + 2);
    i32 below = 0;
    for (std::size_t cell = 0; cell < guide_.size(); ++cell) {
      const f64 lower = static_cast<f64>(cell) / kGuideCells;  // exact: a power of two
      while (below < static_cast<i32>(edges.size()) && edges[static_cast<std::size_t>(below)] <= lower) ++below;
      guide_[cell] = below;
    }
  }
  [[nodiscard]] i32 size() const noexcept { return static_cast<i32>(edges_.size()) + 1; }
  [[nodiscard]] i32 bin_of(f64 score) const noexcept {
    if (guide_.empty() || !(score >= 0.0 && score <= 1.0))
      return edges_at_or_below(score, edges_.data(), 0, static_cast<i32>(edges_.size()));
    const auto cell = static_cast<std::size_t>(score * kGuideCells);
    return edges_at_or_below(score, edges_.data(), guide_[cell], guide_[cell + 1]);
  }

 private:
  static constexpr std::size_t kGuideCells = 4096;
  std::span<const f64> edges_;
  std::vector<i32> guide_;  // edges at or below the lower end of each cell
};

// What the rows of one run, of the same pane and group, add; worked out once, then added to the cell of each set.
class RunSums {
 public:
  RunSums(const CellLayout& layout) : slots_(layout.n_slots.size()), sums_(static_cast<std::size_t>(layout.n_sums)) {}

  void count(i32 block, i32 slot, i64 amount) {
    if (amount == 1) {
      auto& slots = slots_[static_cast<std::size_t>(block)];
      if (slots.empty()) touched_blocks_.push_back(block);
      slots.push_back(static_cast<std::uint16_t>(slot));
    } else {
      amounts_.push_back({block, slot, amount});
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
  void add_to(Cells& cells, i32 index) const {
    Cell& cell = cells[index];
    for (const i32 block : touched_blocks_) {
      const auto at = static_cast<std::size_t>(block);
      cell.blocks[at].add(slots_[at], cells.n_slots(block));
    }
    for (const auto& [block, slot, amount] : amounts_) cells.count(index, block, slot, amount);
    if (touched_sums_.empty()) return;
    if (cell.sums.empty()) cell.sums.resize(sums_.size());
    for (const i32 name : touched_sums_) {
      const Sum& sum = sums_[static_cast<std::size_t>(name)];
      add_limbs(sum.limbs, sum.first, sum.last, cell.sums[static_cast<std::size_t>(name)]);
    }
  }
  void clear() {
    for (const i32 block : touched_blocks_) slots_[static_cast<std::size_t>(block)].clear();
    for (const i32 name : touched_sums_) sums_[static_cast<std::size_t>(name)] = {};
    touched_blocks_.clear();
    touched_sums_.clear();
    amounts_.clear();
  }

 private:
  struct Sum {
    std::array<i64, kLimbs> limbs{};
    i32 first = kLimbs, last = -1;  // limbs that may differ from 0
  };
  struct Amount {
    i32 block, slot;
    i64 amount;
  };
  std::vector<std::vector<std::uint16_t>> slots_;  // of each block, one entry adds 1
  std::vector<Sum> sums_;
  std::vector<Amount> amounts_;
  std::vector<i32> touched_blocks_, touched_sums_;
};

void add_losses(RunSums& sums, f64 log_loss, f64 brier, f64 factor) {
  sums.add(ScoreSum::kLogLoss, log_loss * factor);
  sums.add(ScoreSum::kLogLossSquared, log_loss * log_loss * factor);
  sums.add(ScoreSum::kBrier, brier * factor);
  sums.add(ScoreSum::kBrierSquared, brier * brier * factor);
}

void add_binary(RunSums& sums, const OutcomeBlocks& blocks, const ScoreBins& bins, const Row& row) {
  const f64 score = row.values[0];
  const i32 label = row.label != 0 ? 1 : 0;
  const bool scored = score == score;
  const bool countable = row.decision >= 0 && (scored || bins.size() == 1);  // one bin: the model gives no scores
  if (!countable) return sums.count(blocks.traffic, static_cast<i32>(Traffic::kUnscored), row.sign);
  const i32 bin = scored ? bins.bin_of(score) : 0;
  sums.count(blocks.first, (2 * label + row.decision) * bins.size() + bin, row.units);
  if (!scored) return;
  const f64 probability = label == 1 ? score : 1.0 - score;
  add_losses(sums, log_loss_of(probability), (1.0 - probability) * (1.0 - probability), row.factor);
  sums.add(static_cast<i32>(ScoreSum::kConfidence) + tenth_of(score), score * row.factor);
}

void add_multiclass(RunSums& sums, const OutcomeBlocks& blocks, const ScoreBins& bins, const Row& row) {
  const i32 label = static_cast<i32>(row.label);
  const bool has_scores = bins.size() > 1;
  const bool scored =
      has_scores && std::none_of(row.values.begin(), row.values.end(), [](f64 score) { return score != score; });
  if (row.decision < 0 || scored != has_scores)
    return sums.count(blocks.traffic, static_cast<i32>(Traffic::kUnscored), row.sign);
  sums.count(blocks.first, label * blocks.n_classes + row.decision, row.units);
  if (!scored) return;
  const f64 own = row.values[static_cast<std::size_t>(label)];
  i32 rank = 0;
  i32 top = 0;
  f64 brier = 0;
  for (i32 k = 0; k < blocks.n_classes; ++k) {
    const f64 score = row.values[static_cast<std::size_t>(k)];
    const f64 target = k == label ? 1.0 : 0.0;
    brier += (score - target) * (score - target);
    rank += score > own || (score == own && k < label) ? 1 : 0;
    top = score > row.values[static_cast<std::size_t>(top)] ? k : top;
    sums.count(blocks.first + 3 + k, (k == label ? bins.size() : 0) + bins.bin_of(score), row.units);
  }
  const f64 confidence = row.values[static_cast<std::size_t>(top)];
  const i32 tenth = tenth_of(confidence);
  sums.count(blocks.first + 1, rank, row.units);
  sums.count(blocks.first + 2, 2 * tenth + (top == label ? 1 : 0), row.units);
  add_losses(sums, log_loss_of(own), brier, row.factor);
  sums.add(static_cast<i32>(ScoreSum::kConfidence) + tenth, confidence * row.factor);
}

void add_regression(RunSums& sums, const OutcomeBlocks& blocks, const Row& row) {
  const f64 label = row.label;
  std::uint16_t slot;
  encode<f64>(*blocks.label_bins, {&label, 1}, {&slot, 1});
  sums.count(blocks.first, slot, row.units);
  const f64 predicted = row.values[0];
  if (predicted != predicted) return sums.count(blocks.traffic, static_cast<i32>(Traffic::kUnscored), row.sign);
  const f64 error = predicted - label;
  const f64 size = std::abs(error);
  const f64 centred = label - blocks.label_center;
  const f64 both = std::abs(label) + std::abs(predicted);
  sums.add(RegressionSum::kError, error * row.factor);
  sums.add(RegressionSum::kAbsolute, size * row.factor);
  sums.add(RegressionSum::kSquared, error * error * row.factor);
  sums.add(RegressionSum::kQuartic, error * error * (error * error) * row.factor);
  sums.add(RegressionSum::kLabel, centred * row.factor);
  sums.add(RegressionSum::kLabelSquared, centred * centred * row.factor);
  sums.add(RegressionSum::kAbsoluteLabel, std::abs(label) * row.factor);
  sums.add(RegressionSum::kPercentage, size / std::max(std::abs(label), kSmallest) * row.factor);
  sums.add(RegressionSum::kSymmetric, both > 0 ? 2 * size / both * row.factor : 0.0);
  if (label > -1 && predicted > -1) {
    const f64 ratio = std::log1p(label) - std::log1p(predicted);
    sums.add(RegressionSum::kLogSquared, ratio * ratio * row.factor);
  }
  sums.add(RegressionSum::kCount, row.factor);
}

// Rows of one pane and group stand together: order[n], and where each run ends.
struct Runs {
  std::vector<u32> order;
  std::vector<std::size_t> ends;
  std::vector<CellKey> keys;  // (pane, group)
};

Runs find_runs(std::span<const Outcome> rows, const Panes& panes) {
  struct Memo {
    CellKey key;
    u32 run = ~0U;
  };
  constexpr std::size_t kMemos = 1024;
  const std::size_t n = rows.size();
  Runs runs;
  std::vector<Memo> memos(std::min(kMemos, std::bit_ceil(n)));
  std::unordered_map<CellKey, u32, CellKeyHash> known;
  std::vector<u32> run_of(n);
  Pane pane;
  for (std::size_t i = 0; i < n; ++i) {
    if (rows[i].time < pane.start || rows[i].time >= pane.end) pane = panes.at(rows[i].time);
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

}  // namespace

void add_outcomes(Cells& cells, Task task, const OutcomeBlocks& blocks, const OutcomePlaces& places,
                  const Outcomes& outcomes) {
  const Runs runs = find_runs(outcomes.rows, places.panes);
  const ScoreBins bins(blocks.score_edges, outcomes.rows.size());
  const auto n_sets = static_cast<std::size_t>(places.n_sets);
  for (const CellKey& key : runs.keys) {
    if (key.segment < 0 || (static_cast<std::size_t>(key.segment) + 1) * n_sets > places.segments.size())
      throw DataError("a row belongs to no known group");
  }
  RunSums sums(cells.layout());
  std::size_t at = 0;
  for (std::size_t run = 0; run < runs.keys.size(); ++run) {
    const auto [pane, group] = runs.keys[run];
    const auto segments = places.segments.subspan(static_cast<std::size_t>(group) * n_sets, n_sets);
    while (at < runs.ends[run]) {
      i64 n_labelled = 0;
      const std::size_t stop = std::min(runs.ends[run], at + kLongestRun);
      for (; at < stop; ++at) {
        const Row row = row_at(outcomes, runs.order[at]);
        n_labelled += row.sign;
        switch (task) {
          case Task::kBinary: add_binary(sums, blocks, bins, row); break;
          case Task::kMulticlass: add_multiclass(sums, blocks, bins, row); break;
          case Task::kRegression: add_regression(sums, blocks, row); break;
        }
      }
      for (const i64 segment : segments) {
        const i32 cell = cells.locate({pane, segment});
        cells.count(cell, blocks.traffic, static_cast<i32>(Traffic::kLabelled), n_labelled);
        sums.add_to(cells, cell);
      }
      sums.clear();
    }
  }
}

}  // namespace tidegauge
