// Turns a score into the share of rows with that score that are positive, by isotonic regression on labelled rows.
// Costs one pass over sorted rows to fit, and for a look-up what a bin of a score does, about 10 ns.
// Deterministic: pooled means and straight lines between knots, in a fixed order of operations.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "outcomes/scored_row.hpp"

namespace tidegauge {

// Ascending knots of a function that is straight between them and constant beyond.
struct Knots {
  std::vector<f64> scores, chances;
};

// Pools adjacent violators: the monotone step function nearest to labels[n] at ascending scores[n], by squared error
// times weights[n]. A step has a knot at either end; equal scores are one.
[[nodiscard]] Knots fit_isotonic(std::span<const f64> scores, std::span<const f64> labels,
                                 std::span<const f64> weights);

class Calibrator {
 public:
  Calibrator(std::span<const f64> scores, std::span<const f64> chances, std::size_t n_rows)
      : scores_(scores), chances_(chances), bins_(scores, n_rows) {}
  [[nodiscard]] f64 chance_of(f64 score) const noexcept {
    const auto after = static_cast<std::size_t>(bins_.bin_of(score));
    if (after == 0) return chances_.front();
    if (after == scores_.size()) return chances_.back();
    const f64 low = chances_[after - 1], high = chances_[after];
    const f64 slope = (high - low) / (scores_[after] - scores_[after - 1]);
    return std::min(slope * (score - scores_[after - 1]) + low, high);
  }

 private:
  std::span<const f64> scores_, chances_;  // [n_knots]
  ScoreBins bins_;                         // their edges are the knots
};

}  // namespace tidegauge
