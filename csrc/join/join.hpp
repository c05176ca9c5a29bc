// Joins predictions with labels that come late, early, twice, corrected or never; every event is accounted for.
// Costs about 180 ns a prediction and 100 bytes plus the scores a waiting prediction; memory is bounded by `capacity`.
// Deterministic: rows are taken in order; a label is late by its own time, or by the watermark where it has none.
#pragma once

#include <array>
#include <limits>
#include <span>
#include <unordered_map>
#include <vector>

#include "arrow/read.hpp"

namespace tidegauge {

constexpr std::size_t kRemembered = 1 << 20;  // predictions that no sweep forgets
constexpr i64 kNever = std::numeric_limits<i64>::min();

struct JoinOptions {
  i64 lateness = -1;          // microseconds a prediction waits for its label; -1: for ever
  i32 n_values = 1;           // scores kept with a prediction
  i64 capacity = 50'000'000;  // predictions remembered at once; more count as expired on arrival
};

// Predictions as they come, n rows.
struct PredictionRows {
  std::span<const Key> keys;
  std::span<const i64> times;   // microseconds
  std::span<const i32> groups;  // interned (version, segments)
  std::span<const i32> versions;
  std::span<const i32> decisions;
  std::span<const f64> values;  // [n * n_values]
  std::span<const f64> weights;
};

// Labels as they come, n rows; a NaN is a label still unknown.
struct LabelRows {
  std::span<const Key> keys;
  std::span<const f64> labels;
  std::span<const i64> times;  // microseconds, kNever where the label carries no time
};

// Labelled predictions to add to (sign 1) or take from (sign -1) their cells.
struct Outcomes {
  std::vector<i64> times;
  std::vector<i32> groups;
  std::vector<i32> decisions;
  std::vector<f64> values;
  std::vector<f64> weights;
  std::vector<f64> labels;
  std::vector<std::int8_t> signs;
};

// Counts of events; names as in values.Account.
struct Account {
  i64 predictions = 0, pending = 0, matched = 0, expired = 0, duplicate_predictions = 0;
  i64 labels = 0, matched_labels = 0, early = 0, late = 0, duplicate = 0, corrected = 0, orphan = 0, missing = 0;
};

constexpr i64 Account::* kAccountFields[] = {&Account::predictions,
                                             &Account::pending,
                                             &Account::matched,
                                             &Account::expired,
                                             &Account::duplicate_predictions,
                                             &Account::labels,
                                             &Account::matched_labels,
                                             &Account::early,
                                             &Account::late,
                                             &Account::duplicate,
                                             &Account::corrected,
                                             &Account::orphan,
                                             &Account::missing};

class Join {
 public:
  explicit Join(JoinOptions options) : options_(options) {}

  // accepted[n]: 0 where the same version has already predicted the same id.
  [[nodiscard]] Outcomes log(const PredictionRows& rows, std::span<std::uint8_t> accepted);
  [[nodiscard]] Outcomes label(const LabelRows& rows);
  // Takes over what another join remembers; its counters are added.
  [[nodiscard]] Outcomes merge(const Join& other);

  void advance(i64 time);
  [[nodiscard]] i64 watermark() const noexcept { return watermark_; }
  [[nodiscard]] i32 n_values() const noexcept { return options_.n_values; }
  [[nodiscard]] Account account() const;

  // The state as plain columns, to store and to restore.
  struct State {
    std::vector<Key> keys, early_keys;
    std::vector<i64> times, early_times;
    std::vector<i32> groups, versions, decisions;
    std::vector<f64> values, weights, labels, early_labels;
    Account counters;
    i64 watermark = kNever;
  };
  [[nodiscard]] State state() const;
  void restore(const State& state);

 private:
  struct Entry {
    Key key;
    i64 time;
    f64 weight;
    f64 label;  // NaN while pending
    i32 group, version, decision;
    i32 next;  // the same id by another version, -1 when none
  };
  struct Early {
    i64 time;
    f64 label;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept {
      u64 x = (key.low ^ key.high * 0x9e3779b97f4a7c15ULL) * 0xd6e8feb86659fd93ULL;
      return x ^ x >> 32;
    }
  };

  [[nodiscard]] bool is_past(i64 now, i64 time, i64 multiple) const noexcept;
  [[nodiscard]] i32 head_of(const Key& key) const;
  [[nodiscard]] bool merge_duplicate(const Entry& entry, const Join& other, std::size_t index, Outcomes& out);
  void share_label(const Key& key, Outcomes& out);
  void label_rows(const LabelRows& rows, Outcomes& out);
  void emit(Outcomes& out, const Entry& entry, f64 label, std::int8_t sign) const;
  void match_waiting(Entry& entry, f64 known_label, Outcomes& out);
  void make_room();
  void sweep();

  JoinOptions options_;
  std::vector<Entry> entries_;
  std::vector<f64> values_;                        // [n_entries * n_values]
  std::unordered_map<Key, i32, KeyHash> heads_;    // newest entry of an id
  std::unordered_map<Key, Early, KeyHash> early_;  // labels whose prediction has not come
  Account counters_;  // expired and orphan hold forgotten ones only, pending and early none
  i64 watermark_ = kNever;
  i64 swept_at_ = kNever;  // watermark at the last sweep
};

}  // namespace tidegauge
