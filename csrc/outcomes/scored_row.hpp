// A labelled prediction as its sums are worked out, and the bin of its score.
// Costs 5 ns for a bin with the guide, 20 ns without.
// Deterministic: a bin follows from comparisons with edges alone.
#pragma once

#include <algorithm>
#include <cmath>

#include "histogram/bins.hpp"
#include "outcomes/outcomes.hpp"

namespace tidegauge {

constexpr f64 kSmallest =
    2.220446049250313e-16;  // scores are kept this far from 0 and 1 in logarithms, labels from 0 in ratios
constexpr std::size_t kWorthGuide = 512;  // rows

struct Row {
  f64 label;
  i32 decision;
  std::span<const f64> values;
  i64 sign;
  std::uint8_t delay;
  i64 units;   // signed weight, in whole rows or in units
  f64 factor;  // the same as a double
};

inline Row row_of(const Outcome& row, bool has_weights, std::span<const f64> values) {
  const i64 units = has_weights ? row.sign * static_cast<i64>(std::llrint(row.weight * kWeightUnits)) : row.sign;
  return {row.label, row.decision, values, row.sign, row.delay, units, static_cast<f64>(units)};
}

[[nodiscard]] inline bool is_scored(const Row& row) {
  return std::none_of(row.values.begin(), row.values.end(), [](f64 score) { return score != score; });
}

inline f64 log_loss_of(f64 probability) { return -std::log(std::clamp(probability, kSmallest, 1.0 - kSmallest)); }

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

}  // namespace tidegauge
