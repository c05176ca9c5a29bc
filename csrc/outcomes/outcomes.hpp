// Labelled predictions, and pairs of them that two versions made under one id, on their way into their cells.
// Costs about 90 ns a row, whatever the sets of segments: a row is worked out once and its run added to each.
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
// kPaired: pairs of a challenger and the champion.
enum class Traffic : i32 { kRows, kDuplicates, kNewColumns, kLabelled, kUnscored, kPooled, kPaired, kSlots };

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
// Of challenger - champion. Classes: log loss and Brier score; a regression: absolute and squared error.
enum class PairSum : i32 { kLoss, kLossSquared, kOther, kOtherSquared };
// Slots of pairs: right are neither, the challenger, the champion, both. Of a regression right is who comes no less
// close than the other.
constexpr i32 kPairSlots = 4;
constexpr i32 kTenths = 10;
constexpr std::uint8_t kNoDelay = 255;  // nobody knows how long the label took

// A labelled prediction; sign -1 takes a replaced label back.
struct Outcome {
  i64 time;               // of the prediction, microseconds
  i64 known;              // watermark when this was learnt
  f64 label;              // 0 or 1; class; value
  f64 weight;             // 1 unless predictions have weights
  i32 group;              // interned (version, segments)
  std::int16_t decision;  // decided class, -1 when there is none
  std::int8_t sign;
  std::uint8_t delay;  // bin of label_delay.hpp, or kNoDelay
};

struct Outcomes {
  std::vector<Outcome> rows;
  std::vector<f64> values;              // [n_rows * n_values] score; score of each class; predicted value
  std::vector<Outcome> pairs;           // predictions of challengers whose champion has a label too
  std::vector<std::int16_t> champions;  // [n_pairs] what the champion decided
  std::vector<f64> pair_values;         // [n_pairs * 2 * n_values] of the challenger, of the champion
  std::vector<Outcome> arrivals;        // predictions as they came, where that is to be remembered
  bool has_weights = false;

  [[nodiscard]] i64 earliest() const noexcept {
    i64 time = std::numeric_limits<i64>::max();
    for (const auto* each : {&rows, &pairs, &arrivals}) {
      for (const Outcome& row : *each) time = std::min(time, row.time);
    }
    return time;
  }
  [[nodiscard]] i64 latest_known() const noexcept;
  [[nodiscard]] i64 n_bytes() const noexcept;
  void extend(const Outcomes& other);
  // What was learnt after a moment, taken back or, with sign 1, added once more.
  [[nodiscard]] Outcomes after(i64 moment, i32 sign) const;
};

// Blocks that a task's outcomes fill, in the order of the enumerations in layout.py.
struct OutcomeBlocks {
  i32 traffic;   // slots of Traffic
  i32 delays;    // bins of label_delay.hpp
  i32 pairs;     // slots of pairs
  i32 first;     // binary: joint; multiclass: confusion, rank, tenths, one a class; regression: label
  i32 pair_sum;  // place of PairSum among the sums
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

// Rows and pairs; arrivals have been counted with their columns.
void add_outcomes(Cells& cells, Task task, const OutcomeBlocks& blocks, const OutcomePlaces& places,
                  const Outcomes& outcomes);
void add_arrivals(Cells& cells, i32 traffic_block, const OutcomePlaces& places, const Outcomes& outcomes);

}  // namespace tidegauge
