// Adds what predictions are expected to turn out as, from their calibrated scores, to their cells: before any label.
// Costs about 60 ns a row, whatever the sets of segments, and as much again when its label arrives.
// Deterministic: a chance counts as an integer number of 2^-30 of a row, so order, splits and corrections leave no trace.
#pragma once

#include <span>
#include <vector>

#include "outcomes/outcomes.hpp"

namespace tidegauge {

constexpr f64 kChanceUnits = 1 << 30;  // sums of 2^33 rows in a bin still fit

// Slots of the block of expected losses: of all predictions, and of those with a label.
enum class LossSlot : i32 { kLogLoss, kBrier, kLabelledLogLoss, kLabelledBrier, kSlots };

// Exact sums of a regression whose losses a model of features says: absolute and squared errors, expected of all
// predictions, expected and known of those with a label, and the squared distance between the two.
enum class ExpectedSum : i32 {
  kRows,
  kAbsolute,
  kSquared,
  kLabelledRows,
  kLabelledAbsolute,
  kLabelledSquared,
  kKnownAbsolute,
  kKnownSquared,
  kOffAbsolute,
  kOffSquared
};

// Blocks of an estimate, one after another from `first`, and the knots of each class's calibrator.
// Binary: rows[2 * S] by decision and score bin; chances alike; chances of labelled rows alike; losses.
// Multiclass: chances[K * K] by true and decided class; those of labelled rows; losses; for each class rows[S], chances[S].
struct EstimateBlocks {
  Task task;
  i32 traffic;    // slots of Traffic
  i32 first;      // block, or sum of a regression
  i32 n_classes;  // multiclass
  i32 source;     // binary: which of a row's values becomes a chance
  std::span<const f64> score_edges;
  std::vector<std::span<const f64>> scores, chances;  // [1 or n_classes] of knots
};

enum class Stage { kPredicted, kLabelled };

void add_estimates(Cells& cells, const EstimateBlocks& blocks, const OutcomePlaces& places, const Outcomes& rows,
                   Stage stage);

}  // namespace tidegauge
