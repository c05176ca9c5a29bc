// Adds labelled predictions to their cells: confusion counts, score histograms by label, exact sums of losses.
// Costs about 30 ns a labelled row and set of segments.
// Deterministic: counts are integers and sums are exact, so a correction takes back what it replaced to the bit.
#pragma once

#include <span>

#include "window/cells.hpp"

namespace tidegauge {

constexpr f64 kWeightUnits = 1 << 20;  // a weight counts in units of 2^-20

// Slots of the block that counts rows as they are, without weights.
// kUnscored: labelled rows that lack the decision or scores that the task needs, and count nowhere else.
// kPooled: rows whose version or segment is part of "(other)".
enum class Traffic : i32 { kRows, kDuplicates, kNewColumns, kLabelled, kUnscored, kPooled, kSlots };

enum class ScoreSum : i32 { kLogLoss, kLogLossSquared, kBrier, kBrierSquared, kConfidence };  // binary, multiclass
enum class RegressionSum : i32 {
  kError,
  kAbsolute,
  kSquared,
  kQuartic,
  kLabel,
  kLabelSquared,
  kAbsoluteLabel,
  kPercentage,
  kLogSquared,
  kSymmetric,
  kCount
};
constexpr i32 kTenths = 10;

// One row a labelled prediction; sign -1 takes a replaced label back. n rows, n_sets * n cells
struct OutcomeRows {
  i32 n_sets;
  std::span<const i32> cells;          // [n_sets * n]
  std::span<const f64> labels;         // [n] 0 or 1; class; value
  std::span<const i32> decisions;      // [n] decided class, -1 when there is none
  std::span<const f64> values;         // [n * n_values] score; score of each class; predicted value
  std::span<const f64> weights;        // [n], or empty when every row weighs 1
  std::span<const std::int8_t> signs;  // [n]
};

// Blocks that a task's outcomes fill, in the order of the enumerations in layout.py.
struct OutcomeBlocks {
  i32 traffic;  // slots of Traffic
  i32 first;    // binary: joint; multiclass: confusion, rank, tenths, one a class; regression: label
  i32 n_classes;
  std::span<const f64> score_edges;      // ascending, n_bins - 1 inner edges
  f64 label_center;                      // regression: subtracted from labels before squaring
  const struct NumericBins* label_bins;  // regression: histogram of labels
};

void add_binary(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows);
void add_multiclass(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows);
void add_regression(Cells& cells, const OutcomeBlocks& blocks, const OutcomeRows& rows);

}  // namespace tidegauge
