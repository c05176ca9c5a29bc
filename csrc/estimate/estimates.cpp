#include "estimate/estimates.hpp"

#include <algorithm>
#include <cmath>

#include "estimate/calibrator.hpp"
#include "outcomes/run_sums.hpp"

namespace tidegauge {
namespace {

// Adds rows to the blocks of one stage.
class Adder {
 public:
  Adder(const EstimateBlocks& blocks, const Outcomes& rows, Stage stage)
      : blocks_(blocks),
        stage_(stage),
        unit_(rows.has_weights ? kChanceUnits / kWeightUnits : kChanceUnits),
        bins_(blocks.score_edges, rows.rows.size()) {
    for (std::size_t k = 0; k < blocks.scores.size(); ++k)
      calibrators_.emplace_back(blocks.scores[k], blocks.chances[k], rows.rows.size());
    chances_.resize(calibrators_.size());
  }

  void operator()(const Row& row, RunSums& sums) {
    if (!is_scored(row) || (row.decision < 0 && blocks_.task != Task::kRegression)) return;
    switch (blocks_.task) {
      case Task::kBinary: return add_binary(row, sums);
      case Task::kMulticlass: return add_multiclass(row, sums);
      case Task::kRegression: return add_regression(row, sums);
    }
  }

 private:
  void add_binary(const Row& row, RunSums& sums) const {
    const f64 score = row.values[0];
    const f64 chance = calibrators_[0].chance_of(row.values[static_cast<std::size_t>(blocks_.source)]);
    const i32 slot = row.decision * bins_.size() + bins_.bin_of(score);
    if (stage_ == Stage::kPredicted) sums.count(blocks_.first, slot, row.units);
    add_chance(sums, stage_ == Stage::kPredicted ? 1 : 2, slot, chance, row);
    const f64 log_loss = chance * log_loss_of(score) + (1 - chance) * log_loss_of(1 - score);
    const f64 brier = chance * (1 - score) * (1 - score) + (1 - chance) * score * score;
    add_losses(sums, 3, log_loss, brier, row);
  }

  void add_multiclass(const Row& row, RunSums& sums) {
    const auto n = calibrators_.size();
    const i32 n_classes = blocks_.n_classes;
    f64 total = 0;
    for (std::size_t k = 0; k < n; ++k) total += chances_[k] = calibrators_[k].chance_of(row.values[k]);
    f64 log_loss = 0, brier = 1;
    for (i32 k = 0; k < n_classes; ++k) {
      const f64 score = row.values[static_cast<std::size_t>(k)];
      f64& chance = chances_[static_cast<std::size_t>(k)];
      chance = total > 0 ? chance / total : 1.0 / n_classes;
      log_loss += chance * log_loss_of(score);
      brier += score * score - 2 * chance * score;
      add_chance(sums, stage_ == Stage::kPredicted ? 0 : 1, k * n_classes + row.decision, chance, row);
      if (stage_ == Stage::kLabelled) continue;
      const i32 bin = bins_.bin_of(score);
      sums.count(blocks_.first + 3 + 2 * k, bin, row.units);
      add_chance(sums, 4 + 2 * k, bin, chance, row);
    }
    add_losses(sums, 2, log_loss, brier, row);
  }

  void add_regression(const Row& row, RunSums& sums) const {
    const f64 absolute = row.values[1], squared = row.values[2];
    const auto add = [&](ExpectedSum name, f64 value) {
      sums.add(blocks_.first + static_cast<i32>(name), value * row.factor);
    };
    if (stage_ == Stage::kPredicted) {
      add(ExpectedSum::kRows, 1);
      add(ExpectedSum::kAbsolute, absolute);
      add(ExpectedSum::kSquared, squared);
      return;
    }
    const f64 error = row.values[0] - row.label;
    const f64 off_absolute = std::abs(error) - absolute, off_squared = error * error - squared;
    add(ExpectedSum::kLabelledRows, 1);
    add(ExpectedSum::kLabelledAbsolute, absolute);
    add(ExpectedSum::kLabelledSquared, squared);
    add(ExpectedSum::kKnownAbsolute, std::abs(error));
    add(ExpectedSum::kKnownSquared, error * error);
    add(ExpectedSum::kOffAbsolute, off_absolute * off_absolute);
    add(ExpectedSum::kOffSquared, off_squared * off_squared);
  }

  void add_chance(RunSums& sums, i32 block, i32 slot, f64 value, const Row& row) const {
    sums.count(blocks_.first + block, slot, static_cast<i64>(std::llrint(value * row.factor * unit_)));
  }

  void add_losses(RunSums& sums, i32 block, f64 log_loss, f64 brier, const Row& row) const {
    const bool labelled = stage_ == Stage::kLabelled;
    const LossSlot first = labelled ? LossSlot::kLabelledLogLoss : LossSlot::kLogLoss;
    const LossSlot second = labelled ? LossSlot::kLabelledBrier : LossSlot::kBrier;
    add_chance(sums, block, static_cast<i32>(first), log_loss, row);
    add_chance(sums, block, static_cast<i32>(second), brier, row);
  }

  const EstimateBlocks& blocks_;
  Stage stage_;
  f64 unit_;  // of a chance, for each unit of a row's weight
  ScoreBins bins_;
  std::vector<Calibrator> calibrators_;
  std::vector<f64> chances_;
};

}  // namespace

void add_estimates(Cells& cells, const EstimateBlocks& blocks, const OutcomePlaces& places, const Outcomes& rows,
                   Stage stage) {
  const std::size_t n_values = rows.rows.empty() ? 0 : rows.values.size() / rows.rows.size();
  Adder add(blocks, rows, stage);
  add_runs(cells, rows.rows, places, blocks.traffic, Traffic::kRows, [&](RunSums& sums, u32 i) {
    add(row_of(rows.rows[i], rows.has_weights, std::span(rows.values).subspan(i * n_values, n_values)), sums);
    return false;  // traffic is counted with the columns
  });
}

}  // namespace tidegauge
