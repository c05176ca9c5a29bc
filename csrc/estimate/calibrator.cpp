#include "estimate/calibrator.hpp"

namespace tidegauge {

Knots fit_isotonic(std::span<const f64> scores, std::span<const f64> labels, std::span<const f64> weights) {
  struct Step {
    f64 first, last;  // scores
    f64 total, n;
    [[nodiscard]] f64 mean() const noexcept { return total / n; }
  };
  std::vector<Step> steps;
  for (std::size_t i = 0; i < scores.size();) {
    Step step{scores[i], scores[i], 0, 0};
    for (; i < scores.size() && scores[i] == step.first; ++i) {
      step.total += labels[i] * weights[i];
      step.n += weights[i];
    }
    while (!steps.empty() && steps.back().mean() >= step.mean()) {
      const Step& below = steps.back();
      step = {below.first, step.last, below.total + step.total, below.n + step.n};
      steps.pop_back();
    }
    steps.push_back(step);
  }
  Knots knots;
  for (const Step& step : steps) {
    knots.scores.push_back(step.first);
    knots.chances.push_back(step.mean());
    if (step.last == step.first) continue;
    knots.scores.push_back(step.last);
    knots.chances.push_back(step.mean());
  }
  return knots;
}

}  // namespace tidegauge
