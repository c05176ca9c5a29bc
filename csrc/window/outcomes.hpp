// Adds labelled predictions to their cells: confusion counts, score histograms by label, exact sums of losses.
// Costs about 90 ns a labelled row, whatever the sets of segments: a row is worked out once and its run added to each.
// Deterministic: counts are integers and sums are exact, so a correction takes back what it replaced to the bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

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

// A labelled prediction; sign -1 takes a replaced label back.
struct Outcome {
  i64 time;               // of the prediction, microseconds
  f64 label;              // 0 or 1; class; value
  f64 weight;             // 1 unless predictions have weights
  i32 group;              // interned (version, segments)
  std::int16_t decision;  // decided class, -1 when there is none
  std::int16_t sign;
};

struct Outcomes {
  std::vector<Outcome> rows;
  std::vector<f64> values;  // [n_rows * n_values] score; score of each class; predicted value
  bool has_weights = false;

  [[nodiscard]] i64 earliest() const noexcept {
    i64 time = std::numeric_limits<i64>::max();
    for (const Outcome& row : rows) time = std::min(time, row.time);
    return time;
  }
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

enum class Task { kBinary, kMulticlass, kRegression };

// Where rows belong: segments[n_groups * n_sets] by group, and panes by time.
struct OutcomePlaces {
  std::span<const i64> segments;
  i32 n_sets;
  Panes panes;
};

void add_outcomes(Cells& cells, Task task, const OutcomeBlocks& blocks, const OutcomePlaces& places,
                  const Outcomes& outcomes);

}  // namespace tidegauge
