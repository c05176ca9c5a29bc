// What is kept of waiting predictions and labels: rows of a few bytes in chunks, each of one slice of event time.
// Costs 23 bytes a prediction of a binary task with integer ids; a slice is forgotten by dropping its chunks.
// Deterministic: a row lies in the slice of its time, whatever the order of arrival.
#pragma once

#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "join/block_pool.hpp"
#include "join/key.hpp"

namespace tidegauge {

constexpr i64 kNever = std::numeric_limits<i64>::min();
constexpr i32 kChunkBits = 11;
constexpr u32 kChunkRows = 1U << kChunkBits;
constexpr u32 kMaxChunks = 1U << (32 - kChunkBits);
constexpr u32 kChunkSizes[] = {16, 256, kChunkRows};  // of a slice's first chunk, its second, and all others
constexpr i64 kMaxSlice = 1LL << 32;                  // microseconds, so that 32 bits say where in it a row lies
constexpr i32 kMaxGroups = 1 << 25;

struct RowOptions {
  i64 slice = kMaxSlice;  // microseconds
  i32 n_values = 1;
  bool wide_ids = false;   // 128 bits instead of a sign and 64
  bool is_binary = false;  // label and decision take two bits each
  bool has_weights = false;
};

// Rows of one slice of event time.
struct Generation {
  i64 start = 0;                                      // kNever: labels that came before any time was known
  i64 n_predictions = 0, n_pending = 0, n_early = 0;  // those taken out do not count
  std::vector<u32> chunks;
};

// Everything about a row but its key; kept in 64 bits.
struct RowState {
  u64 bits = 0;

  static constexpr u64 kOffset = 0xffffffffULL;
  static constexpr u64 kTwoBits = 3;  // of label and decision: 0 where there is none
  static constexpr i32 kGroupAt = 32, kLabelAt = 57, kDecisionAt = 59;
  static constexpr u64 kNegative = 1ULL << 61;  // an integer id below zero
  static constexpr u64 kEarly = 1ULL << 62;     // a label that waits for its prediction
  static constexpr u64 kGone = 1ULL << 63;      // taken out

  [[nodiscard]] static u64 code_of(f64 label) noexcept {
    return (label != label ? 0ULL : label != 0 ? 2ULL : 1ULL) << kLabelAt;
  }
  [[nodiscard]] bool is_early() const noexcept { return (bits & kEarly) != 0; }
  [[nodiscard]] bool is_gone() const noexcept { return (bits & kGone) != 0; }
  [[nodiscard]] i32 group() const noexcept { return static_cast<i32>(bits >> kGroupAt & (kMaxGroups - 1)); }
};

// A prediction, or a label that waits (decision -1, no values).
struct RowContent {
  i64 time;
  i32 group;
  i32 decision;
  f64 label;  // NaN while pending
  f64 weight;
  std::span<const f64> values;
  std::uint8_t delay;  // bin of the label's delay
};

class Rows {
 public:
  explicit Rows(RowOptions options);

  // Appends a row; its number is how the index knows it.
  [[nodiscard]] u32 add(const Key& key, const RowContent& content, u64 flags);
  // Memory of a row, null once its slice is forgotten.
  [[nodiscard]] std::byte* find(u32 row) const noexcept {
    std::byte* rows = chunks_[row >> kChunkBits].rows;
    return rows == nullptr ? nullptr : rows + (row & (kChunkRows - 1)) * stride_;
  }
  [[nodiscard]] Generation& generation(u32 row) const noexcept { return *chunks_[row >> kChunkBits].generation; }

  // The low 16 bits of a key's low half stand in the index, and the rest here.
  [[nodiscard]] static u64 low_rest(const std::byte* at) noexcept {
    u64 rest = 0;
    std::memcpy(&rest, at, 6);
    return rest;
  }
  [[nodiscard]] bool holds(const std::byte* at, const Key& key) const noexcept {
    if (low_rest(at) != key.low >> 16) return false;
    const RowState state = state_of(at);
    if (state.is_gone()) return false;
    if (!options_.wide_ids) return ((state.bits & RowState::kNegative) != 0) == (key.high != 0);
    return load<u64>(at + kHighAt) == key.high;
  }
  [[nodiscard]] Key key_of(const std::byte* at, u64 low_bits) const noexcept {
    const u64 low = low_rest(at) << 16 | low_bits;
    if (options_.wide_ids) return {load<u64>(at + kHighAt), low};
    return {(state_of(at).bits & RowState::kNegative) != 0 ? 1ULL : 0ULL, low};
  }

  [[nodiscard]] RowState state_of(const std::byte* at) const noexcept { return {load<u64>(at + kStateAt)}; }
  void set_state(std::byte* at, RowState state) const noexcept { store(at + kStateAt, state.bits); }
  void mark_gone(std::byte* at) const noexcept { set_state(at, {state_of(at).bits | RowState::kGone}); }
  [[nodiscard]] i64 time_of(const std::byte* at, const Generation& generation) const noexcept {
    if (generation.start == kNever) return kNever;
    return generation.start + static_cast<i64>(state_of(at).bits & RowState::kOffset);
  }
  [[nodiscard]] std::uint8_t delay_of(const std::byte* at) const noexcept { return load<std::uint8_t>(at + delay_at_); }
  [[nodiscard]] f64 label_of(const std::byte* at) const noexcept {
    if (!options_.is_binary) return load<f64>(at + label_at_);
    const u64 code = state_of(at).bits >> RowState::kLabelAt & RowState::kTwoBits;
    return code == 0 ? std::numeric_limits<f64>::quiet_NaN() : static_cast<f64>(static_cast<i64>(code) - 1);
  }
  void set_label(std::byte* at, f64 label, std::uint8_t delay) const noexcept {
    store(at + delay_at_, delay);
    if (!options_.is_binary) return store(at + label_at_, label);
    const u64 others = state_of(at).bits & ~(RowState::kTwoBits << RowState::kLabelAt);
    set_state(at, {others | RowState::code_of(label)});
  }
  [[nodiscard]] i32 decision_of(const std::byte* at) const noexcept {
    if (!options_.is_binary) return load<i32>(at + decision_at_);
    return static_cast<i32>(state_of(at).bits >> RowState::kDecisionAt & RowState::kTwoBits) - 1;
  }
  [[nodiscard]] f64 weight_of(const std::byte* at) const noexcept {
    return options_.has_weights ? load<f64>(at + weight_at_) : 1.0;
  }
  [[nodiscard]] f64 value_of(const std::byte* at, i32 i) const noexcept { return load<f64>(at + values_at_ + 8 * i); }
  void read_values(const std::byte* at, f64* out) const noexcept {
    for (i32 i = 0; i < options_.n_values; ++i) out[i] = value_of(at, i);
  }

  [[nodiscard]] i64 oldest_start() const noexcept { return oldest_start_; }  // the largest there is when all is empty
  // Slices by time, the oldest first.
  [[nodiscard]] const std::map<i64, std::unique_ptr<Generation>>& generations() const noexcept { return generations_; }
  // Calls visit(row's memory) for each row of a slice that has not been taken out.
  template <typename Visit>
  void for_each_in(const Generation& generation, Visit&& visit) const {
    for (const u32 id : generation.chunks) {
      const Chunk& chunk = chunks_[id];
      for (u32 i = 0; i < chunk.n_rows; ++i) {
        std::byte* at = chunk.rows + i * stride_;
        if (!state_of(at).is_gone()) visit(at);
      }
    }
  }
  void forget(i64 start);  // of a slice
  // Labels that came before any time was known begin to wait now.
  void date_the_timeless(i64 time);
  // True once the index may be cleaned and numbers of forgotten rows given out again.
  [[nodiscard]] bool has_opened_chunk() noexcept { return std::exchange(has_opened_chunk_, false); }
  [[nodiscard]] bool is_short_of_numbers() const noexcept { return chunks_.size() >= kMaxChunks && free_ids_.empty(); }
  void reuse_numbers();  // the index has been through all of itself once more

  [[nodiscard]] i64 n_chunks() const noexcept { return n_chunks_; }
  [[nodiscard]] i64 n_forgotten_slices() const noexcept { return n_forgotten_slices_; }
  [[nodiscard]] std::size_t stride() const noexcept { return stride_; }
  [[nodiscard]] i64 slice() const noexcept { return options_.slice; }
  [[nodiscard]] i64 n_bytes() const noexcept;

 private:
  struct Chunk {
    std::byte* rows = nullptr;
    Generation* generation = nullptr;
    u32 n_rows = 0;
    u32 size = 0;  // place in kChunkSizes
  };
  static constexpr std::size_t kStateAt = 6, kHighAt = 14;

  template <typename T>
  [[nodiscard]] static T load(const std::byte* at) noexcept {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
  }
  template <typename T>
  static void store(std::byte* at, T value) noexcept {
    std::memcpy(at, &value, sizeof(T));
  }
  [[nodiscard]] Generation& generation_of(i64 time);
  void find_oldest() noexcept {
    oldest_start_ = generations_.empty() ? std::numeric_limits<i64>::max() : generations_.begin()->first;
  }
  void open_chunk(Generation& generation);

  RowOptions options_;
  std::size_t values_at_ = 0, weight_at_ = 0, label_at_ = 0, decision_at_ = 0, delay_at_ = 0, stride_ = 0;
  std::vector<BlockPool> pools_;  // one for each of kChunkSizes
  std::vector<Chunk> chunks_;
  std::map<i64, std::unique_ptr<Generation>> generations_;
  i64 oldest_start_ = std::numeric_limits<i64>::max();
  Generation* recent_ = nullptr;  // of the last row added
  std::vector<u32> free_ids_;     // of chunks; no slot of the index mentions them
  std::vector<u32> retired_;      // forgotten since the index began to go through itself
  std::vector<u32> retiring_;     // forgotten before that
  i64 n_chunks_ = 0;
  i64 n_forgotten_slices_ = 0;
  bool has_opened_chunk_ = false;
};

}  // namespace tidegauge
