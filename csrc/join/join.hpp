// Joins predictions with labels that come late, early, twice, corrected or never; every event is accounted for.
// Costs about 100 ns a row; 31 to 32 bytes a waiting prediction of a binary task with integer ids.
// Deterministic: rows are taken in order; a label is late by its own time, or by the watermark where it has none.
#pragma once

#include <span>
#include <vector>

#include "join/key_index.hpp"
#include "join/label_delay.hpp"
#include "join/rows.hpp"
#include "outcomes/outcomes.hpp"

namespace tidegauge {

enum class Arrivals { kLeftOut, kGiven };  // whether outcomes name the predictions that came, too

struct JoinOptions {
  i64 lateness = -1;          // microseconds a prediction waits for its label; -1: for ever
  i32 n_values = 1;           // scores kept with a prediction
  i64 capacity = 50'000'000;  // predictions remembered at once; more count as expired on arrival
  i64 always_kept = 1 << 20;  // rows that are not forgotten for their age alone ..
  i64 most_slices = 4096;     // .. unless they lie in more slices of time than that
  bool wide_ids = false;      // keys are hashes of text, not integers
  bool is_binary = false;     // labels and decisions are 0 and 1
  bool has_weights = false;
  i32 champion = -1;  // version that others are paired with; -1: none
  Arrivals arrivals = Arrivals::kLeftOut;
};

// Predictions as they come, n rows.
struct PredictionRows {
  std::span<const Key> keys;
  std::span<const i64> times;   // microseconds
  std::span<const i32> groups;  // interned (version, segments)
  std::span<const i32> decisions;
  std::span<const f64> values;          // [n * n_values]
  std::span<const f64> weights;         // empty when every row weighs 1
  std::span<const i32> group_versions;  // [n_groups]
};

// Labels as they come, n rows; a NaN is a label still unknown.
struct LabelRows {
  std::span<const Key> keys;
  std::span<const f64> labels;
  std::span<const i64> times;  // microseconds, kNever where the label carries no time
};

// Counts of events; names as in values.Account.
struct Account {
  i64 predictions = 0, pending = 0, matched = 0, expired = 0, forgotten = 0, duplicate_predictions = 0;
  i64 labels = 0, matched_labels = 0, early = 0, late = 0, duplicate = 0, corrected = 0, orphan = 0, missing = 0,
      forgotten_labels = 0;
};

constexpr i64 Account::* kAccountFields[] = {
    &Account::predictions, &Account::pending,        &Account::matched,
    &Account::expired,     &Account::forgotten,      &Account::duplicate_predictions,
    &Account::labels,      &Account::matched_labels, &Account::early,
    &Account::late,        &Account::duplicate,      &Account::corrected,
    &Account::orphan,      &Account::missing,        &Account::forgotten_labels};

class Join {
 public:
  explicit Join(JoinOptions options);

  // accepted[n]: 0 where the same version has already predicted the same id.
  [[nodiscard]] Outcomes log(const PredictionRows& rows, std::span<std::uint8_t> accepted);
  [[nodiscard]] Outcomes label(const LabelRows& rows);
  // Takes predictions, what their labels have added, and labels that wait out again.
  [[nodiscard]] Outcomes forget(std::span<const Key> keys);
  // Takes over what another join remembers, whose group g is groups[g] here; counters are added.
  [[nodiscard]] Outcomes merge(const Join& other, std::span<const i32> groups, std::span<const i32> group_versions);

  void advance(i64 time);
  [[nodiscard]] i64 watermark() const noexcept { return watermark_; }
  [[nodiscard]] const JoinOptions& options() const noexcept { return options_; }
  [[nodiscard]] Account account() const;
  [[nodiscard]] i64 n_bytes() const noexcept { return rows_.n_bytes() + index_.n_bytes(); }

  // The state as plain columns, to store and to restore; the order of arrival leaves no trace.
  struct State {
    std::vector<Key> keys, early_keys;
    std::vector<i64> times, early_times;
    std::vector<i32> groups, decisions;
    std::vector<f64> values, weights, labels, early_labels;
    std::vector<std::uint8_t> label_delays;
    Account counters;
    i64 watermark = kNever;
  };
  [[nodiscard]] State state(std::span<const i32> ranks) const;  // group g becomes ranks[g]
  void restore(const State& state, std::span<const i32> group_versions);

 private:
  struct Found {  // one row of an id
    u32 row;
    std::byte* at;
  };
  template <typename Visit>
  void for_each_row(const Key& key, Visit&& visit) const;  // visit(Found)
  [[nodiscard]] bool is_past(i64 now, i64 time) const noexcept;
  [[nodiscard]] bool is_early(const Found& found) const noexcept { return rows_.state_of(found.at).is_early(); }
  [[nodiscard]] i64 time_of(const Found& found) const noexcept {
    return rows_.time_of(found.at, rows_.generation(found.row));
  }
  [[nodiscard]] i32 version_of(const Found& found) const noexcept {
    return versions_[static_cast<std::size_t>(rows_.state_of(found.at).group())];
  }
  [[nodiscard]] Outcomes new_outcomes() const;
  void forget_aged();
  void forget_oldest();
  [[nodiscard]] bool has_room(const i64& n_held);
  Found insert(const Key& key, const RowContent& content, u64 flags);
  void remove(const Key& key, const Found& found);
  void set_versions(std::span<const i32> group_versions);
  [[nodiscard]] std::uint8_t log_row(const PredictionRows& rows, std::size_t row, Outcomes& out);
  void label_row(const Key& key, f64 label, i64 time, Outcomes& out);
  void match(const Found& found, f64 label, std::uint8_t delay, Outcomes& out);
  [[nodiscard]] std::uint8_t delay_of(i64 arrival, i64 time) const noexcept;
  [[nodiscard]] Outcome outcome_of(const Found& found, f64 label, std::int8_t sign) const noexcept;
  void add_values(const Found& found, std::vector<f64>& values) const;
  void emit(Outcomes& out, const Found& found, f64 label, std::int8_t sign) const;
  void emit_pairs(const Key& key, std::int8_t sign, Outcomes& out) const;
  void take_back_pairs(const Key& key, std::span<const i32> groups, Outcomes& out) const;
  template <typename Change>
  void change(const Key& key, Outcomes& out, Change&& change);
  void forget_id(const Key& key, Outcomes& out);
  [[nodiscard]] bool merge_duplicate(const Key& key, const Join& other, const Found& theirs, i32 group, Outcomes& out);
  [[nodiscard]] bool labels_before(const Found& first, const Found& second) const noexcept;
  void share_label(const Key& key, Outcomes& out);

  JoinOptions options_;
  Rows rows_;
  KeyIndex index_;
  i64 forget_age_;                       // twice the lateness, and the slice itself
  i64 forgettable_before_ = kNever;      // starts of slices
  std::vector<i32> versions_;            // of groups
  Account counters_;                     // expired and orphan hold forgotten ones only, pending and early none
  i64 n_predictions_ = 0, n_early_ = 0;  // remembered
  i64 watermark_ = kNever;
  std::vector<Found> found_;  // of an id
};

}  // namespace tidegauge
