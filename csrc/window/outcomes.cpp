#include "window/outcomes.hpp"

#include <algorithm>
#include <cmath>

#include "histogram/encode.hpp"

namespace tidegauge {
namespace {

constexpr f64 kSmallest =
    2.220446049250313e-16;  // scores are kept this far from 0 and 1 in logarithms, labels from 0 in ratios

struct Row {
  f64 label;
  i32 decision;
  std::span<const f64> values;
  i64 units;   // signed weight, in whole rows or in units
  f64 factor;  // the same as a double
};

Row row_at(const OutcomeRows& rows, std::size_t i) {
  const std::size_t n_values = rows.labels.empty() ? 0 : rows.values.size() / rows.labels.size();
  const i64 sign = rows.signs[i];
  const i64 units = rows.weights.empty() ? sign : sign * static_cast<i64>(std::llrint(rows.weights[i] * kWeightUnits));
  return {rows.labels[i], rows.decisions[i], rows.values.subspan(i * n_values, n_values), units,
          static_cast<f64>(units)};
}

// Tenth of [0, 1] that a score lies in, by comparison with k / 10 as the score bins have it.
i32 tenth_of(f64 score) {
  i32 tenth = std::clamp(static_cast<i32>(score * kTenths), 0, kTenths - 1);
  while (tenth > 0 && score < static_cast<f64>(tenth) / kTenths) --tenth;
  while (tenth < kTenths - 1 && score >= static_cast<f64>(tenth + 1) / kTenths) ++tenth;
  return tenth;
}

i32 bin_of_score(f64 score, std::span<const f64> edges) {
  return edges_at_or_below(score, edges.data(), 0, static_cast<i32>(edges.size()));
}

f64 log_loss_of(f64 probability) { return -std::log(std::clamp(probability, kSmallest, 1.0 - kSmallest)); }

template <typename AddRow>
void for_each_cell(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows, AddRow&& add_row) {
  const std::size_t n = rows.labels.size();
  for (std::size_t i = 0; i < n; ++i) {
    const Row row = row_at(rows, i);
    for (std::size_t set = 0; set < static_cast<std::size_t>(rows.n_sets); ++set) {
      const i32 cell = rows.cells[set * n + i];
      cells.count(cell, blocks.traffic, static_cast<i32>(Traffic::kLabelled), rows.signs[i]);
      add_row(row, cell, rows.signs[i]);
    }
  }
}

template <typename Sum>
void add_sum(Cells& cells, i32 cell, Sum sum, f64 value) {
  cells.add_sum(cells[cell], static_cast<i32>(sum), value);
}

void add_losses(Cells& cells, i32 cell, f64 log_loss, f64 brier, f64 factor) {
  add_sum(cells, cell, ScoreSum::kLogLoss, log_loss * factor);
  add_sum(cells, cell, ScoreSum::kLogLossSquared, log_loss * log_loss * factor);
  add_sum(cells, cell, ScoreSum::kBrier, brier * factor);
  add_sum(cells, cell, ScoreSum::kBrierSquared, brier * brier * factor);
}

}  // namespace

void add_binary(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows) {
  const i32 n_bins = static_cast<i32>(blocks.score_edges.size()) + 1;
  for_each_cell(cells, blocks, rows, [&](const Row& row, i32 cell, i64 sign) {
    const f64 score = row.values[0];
    const i32 label = row.label != 0 ? 1 : 0;
    const bool scored = score == score;
    const bool countable = row.decision >= 0 && (scored || n_bins == 1);  // one bin: the model gives no scores
    if (!countable) cells.count(cell, blocks.traffic, static_cast<i32>(Traffic::kUnscored), sign);
    if (countable) {
      const i32 bin = scored ? bin_of_score(score, blocks.score_edges) : 0;
      cells.count(cell, blocks.first, (2 * label + row.decision) * n_bins + bin, row.units);
    }
    if (!countable || !scored) return;
    const f64 probability = label == 1 ? score : 1.0 - score;
    add_losses(cells, cell, log_loss_of(probability), (1.0 - probability) * (1.0 - probability), row.factor);
    add_sum(cells, cell, static_cast<i32>(ScoreSum::kConfidence) + tenth_of(score), score * row.factor);
  });
}

void add_multiclass(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows) {
  const i32 n_classes = blocks.n_classes;
  const i32 n_bins = static_cast<i32>(blocks.score_edges.size()) + 1;
  for_each_cell(cells, blocks, rows, [&](const Row& row, i32 cell, i64 sign) {
    const i32 label = static_cast<i32>(row.label);
    const bool has_scores = n_bins > 1;
    const bool scored =
        has_scores && std::none_of(row.values.begin(), row.values.end(), [](f64 score) { return score != score; });
    if (row.decision < 0 || scored != has_scores) {
      cells.count(cell, blocks.traffic, static_cast<i32>(Traffic::kUnscored), sign);
      return;
    }
    cells.count(cell, blocks.first, label * n_classes + row.decision, row.units);
    if (!scored) return;
    const f64 own = row.values[static_cast<std::size_t>(label)];
    i32 rank = 0;
    i32 top = 0;
    f64 brier = 0;
    for (i32 k = 0; k < n_classes; ++k) {
      const f64 score = row.values[static_cast<std::size_t>(k)];
      const f64 target = k == label ? 1.0 : 0.0;
      brier += (score - target) * (score - target);
      rank += score > own || (score == own && k < label) ? 1 : 0;
      top = score > row.values[static_cast<std::size_t>(top)] ? k : top;
      cells.count(cell, blocks.first + 3 + k, (k == label ? n_bins : 0) + bin_of_score(score, blocks.score_edges),
                  row.units);
    }
    const f64 confidence = row.values[static_cast<std::size_t>(top)];
    const i32 tenth = tenth_of(confidence);
    cells.count(cell, blocks.first + 1, rank, row.units);
    cells.count(cell, blocks.first + 2, 2 * tenth + (top == label ? 1 : 0), row.units);
    add_losses(cells, cell, log_loss_of(own), brier, row.factor);
    add_sum(cells, cell, static_cast<i32>(ScoreSum::kConfidence) + tenth, confidence * row.factor);
  });
}

void add_regression(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows) {
  for_each_cell(cells, blocks, rows, [&](const Row& row, i32 cell, i64 sign) {
    const f64 label = row.label;
    std::uint16_t slot;
    encode<f64>(*blocks.label_bins, {&label, 1}, {&slot, 1});
    cells.count(cell, blocks.first, slot, row.units);
    const f64 predicted = row.values[0];
    if (predicted != predicted) {
      cells.count(cell, blocks.traffic, static_cast<i32>(Traffic::kUnscored), sign);
      return;
    }
    const f64 error = predicted - label;
    const f64 size = std::abs(error);
    const f64 centred = label - blocks.label_center;
    const f64 both = std::abs(label) + std::abs(predicted);
    add_sum(cells, cell, RegressionSum::kError, error * row.factor);
    add_sum(cells, cell, RegressionSum::kAbsolute, size * row.factor);
    add_sum(cells, cell, RegressionSum::kSquared, error * error * row.factor);
    add_sum(cells, cell, RegressionSum::kQuartic, error * error * (error * error) * row.factor);
    add_sum(cells, cell, RegressionSum::kLabel, centred * row.factor);
    add_sum(cells, cell, RegressionSum::kLabelSquared, centred * centred * row.factor);
    add_sum(cells, cell, RegressionSum::kAbsoluteLabel, std::abs(label) * row.factor);
    add_sum(cells, cell, RegressionSum::kPercentage, size / std::max(std::abs(label), kSmallest) * row.factor);
    add_sum(cells, cell, RegressionSum::kSymmetric, both > 0 ? 2 * size / both * row.factor : 0.0);
    if (label > -1 && predicted > -1) {
      const f64 ratio = std::log1p(label) - std::log1p(predicted);
      add_sum(cells, cell, RegressionSum::kLogSquared, ratio * ratio * row.factor);
    }
    add_sum(cells, cell, RegressionSum::kCount, row.factor);
  });
}

}  // namespace tidegauge
