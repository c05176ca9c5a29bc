#include "outcomes/outcomes.hpp"

#include <algorithm>
#include <cmath>

#include "histogram/encode.hpp"
#include "outcomes/run_sums.hpp"
#include "outcomes/scored_row.hpp"

namespace tidegauge {
namespace {

Row row_at(const Outcomes& outcomes, std::size_t i) {
  const std::size_t n_values = outcomes.values.size() / outcomes.rows.size();
  return row_of(outcomes.rows[i], outcomes.has_weights, std::span(outcomes.values).subspan(i * n_values, n_values));
}

// A challenger's prediction and what the champion made of the same id; the challenger's label is the truth of both.
struct Pair {
  Row challenger, champion;
};

Pair pair_at(const Outcomes& outcomes, std::size_t i) {
  const std::size_t n_values = outcomes.pair_values.size() / (2 * outcomes.pairs.size());
  const auto values = std::span(outcomes.pair_values).subspan(2 * i * n_values, 2 * n_values);
  Pair pair;
  pair.challenger = row_of(outcomes.pairs[i], outcomes.has_weights, values.first(n_values));
  pair.champion = pair.challenger;
  pair.champion.decision = outcomes.champions[i];
  pair.champion.values = values.last(n_values);
  return pair;
}

// Tenth of [0, 1] that a score lies in, by comparison with k / 10 as the score bins have it.
i32 tenth_of(f64 score) {
  i32 tenth = std::clamp(static_cast<i32>(score * kTenths), 0, kTenths - 1);
  while (tenth > 0 && score < static_cast<f64>(tenth) / kTenths) --tenth;
  while (tenth < kTenths - 1 && score >= static_cast<f64>(tenth + 1) / kTenths) ++tenth;
  return tenth;
}

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
  const bool scored = has_scores && is_scored(row);
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

// How well a prediction did; losses as PairSum has them.
struct Verdict {
  bool counts = true;
  bool is_right = false;
  f64 loss = 0, other = 0;
};

Verdict judge(Task task, const OutcomeBlocks& blocks, const Row& row) {
  if (task == Task::kRegression) {
    const f64 error = row.values[0] - row.label;
    return {error == error, false, std::abs(error), error * error};
  }
  const bool has_scores = !blocks.score_edges.empty();
  const i32 label = static_cast<i32>(row.label);
  Verdict verdict{row.decision >= 0 && (!has_scores || is_scored(row)), row.decision == label};
  if (!has_scores || !verdict.counts) return verdict;
  if (task == Task::kBinary) {
    const f64 probability = label != 0 ? row.values[0] : 1.0 - row.values[0];
    verdict.loss = log_loss_of(probability);
    verdict.other = (1.0 - probability) * (1.0 - probability);
    return verdict;
  }
  verdict.loss = log_loss_of(row.values[static_cast<std::size_t>(label)]);
  for (i32 k = 0; k < blocks.n_classes; ++k) {
    const f64 miss = row.values[static_cast<std::size_t>(k)] - (k == label ? 1.0 : 0.0);
    verdict.other += miss * miss;
  }
  return verdict;
}

bool add_pair(RunSums& sums, Task task, const OutcomeBlocks& blocks, const Pair& pair) {
  Verdict challenger = judge(task, blocks, pair.challenger);
  Verdict champion = judge(task, blocks, pair.champion);
  if (!challenger.counts || !champion.counts) return false;
  if (task == Task::kRegression) {
    challenger.is_right = challenger.loss <= champion.loss;
    champion.is_right = champion.loss <= challenger.loss;
  }
  sums.count(blocks.pairs, (champion.is_right ? 2 : 0) + (challenger.is_right ? 1 : 0), pair.challenger.units);
  if (task != Task::kRegression && blocks.score_edges.empty()) return true;
  const f64 loss = challenger.loss - champion.loss, other = challenger.other - champion.other;
  const auto add = [&](PairSum name, f64 value) {
    sums.add(blocks.pair_sum + static_cast<i32>(name), value * pair.challenger.factor);
  };
  add(PairSum::kLoss, loss);
  add(PairSum::kLossSquared, loss * loss);
  add(PairSum::kOther, other);
  add(PairSum::kOtherSquared, other * other);
  return true;
}

template <typename T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

i64 Outcomes::latest_known() const noexcept {
  i64 known = std::numeric_limits<i64>::min();
  for (const auto* each : {&rows, &pairs, &arrivals}) {
    for (const Outcome& row : *each) known = std::max(known, row.known);
  }
  return known;
}

i64 Outcomes::n_bytes() const noexcept {
  const std::size_t n_rows = rows.size() + pairs.size() + arrivals.size();
  return static_cast<i64>(sizeof(Outcomes) + n_rows * sizeof(Outcome) + champions.size() * sizeof(std::int16_t) +
                          (values.size() + pair_values.size()) * sizeof(f64));
}

void Outcomes::extend(const Outcomes& other) {
  append(rows, other.rows);
  append(values, other.values);
  append(pairs, other.pairs);
  append(champions, other.champions);
  append(pair_values, other.pair_values);
  append(arrivals, other.arrivals);
}

Outcomes Outcomes::after(i64 moment, i32 sign) const {
  Outcomes out;
  out.has_weights = has_weights;
  // Rows with their values, n_values each.
  const auto take = [&](const std::vector<Outcome>& from, std::vector<Outcome>& to, const std::vector<f64>& numbers,
                        std::vector<f64>& numbers_to) {
    const auto n_values = static_cast<std::ptrdiff_t>(from.empty() ? 0 : numbers.size() / from.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (from[i].known <= moment) continue;
      to.push_back(from[i]);
      to.back().sign = static_cast<std::int8_t>(from[i].sign * sign);
      const auto first = numbers.begin() + static_cast<std::ptrdiff_t>(i) * n_values;
      numbers_to.insert(numbers_to.end(), first, first + n_values);
    }
  };
  take(rows, out.rows, values, out.values);
  take(pairs, out.pairs, pair_values, out.pair_values);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].known > moment) out.champions.push_back(champions[i]);
  }
  std::vector<f64> none;
  take(arrivals, out.arrivals, none, none);
  return out;
}

void add_outcomes(Cells& cells, Task task, const OutcomeBlocks& blocks, const OutcomePlaces& places,
                  const Outcomes& outcomes) {
  const ScoreBins bins(blocks.score_edges, outcomes.rows.size());
  add_runs(cells, outcomes.rows, places, blocks.traffic, Traffic::kLabelled, [&](RunSums& sums, u32 i) {
    const Row row = row_at(outcomes, i);
    if (row.delay != kNoDelay) sums.count(blocks.delays, row.delay, row.sign);
    switch (task) {
      case Task::kBinary: add_binary(sums, blocks, bins, row); break;
      case Task::kMulticlass: add_multiclass(sums, blocks, bins, row); break;
      case Task::kRegression: add_regression(sums, blocks, row); break;
    }
    return true;
  });
  add_runs(cells, outcomes.pairs, places, blocks.traffic, Traffic::kPaired,
           [&](RunSums& sums, u32 i) { return add_pair(sums, task, blocks, pair_at(outcomes, i)); });
}

void add_arrivals(Cells& cells, i32 traffic_block, const OutcomePlaces& places, const Outcomes& outcomes) {
  add_runs(cells, outcomes.arrivals, places, traffic_block, Traffic::kRows, [](RunSums&, u32) { return true; });
}

}  // namespace tidegauge
