#include "join/join.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "errors.hpp"

namespace tidegauge {
namespace {

constexpr f64 kNoLabel = std::numeric_limits<f64>::quiet_NaN();
constexpr std::size_t kAhead = 32;  // ids whose memory is asked for before they are looked at
constexpr i64 kSlices = 8;          // of the lateness
constexpr i64 kFarTime = 1LL << 62;

i64 slice_of(i64 lateness) noexcept {
  return lateness < 0 ? kMaxSlice : std::clamp<i64>(lateness / kSlices, 1, kMaxSlice);
}

void check_groups(std::span<const i32> groups, std::size_t n_groups) {
  i32 least = 0, most = -1;
  for (const i32 group : groups) {
    least = std::min(least, group);
    most = std::max(most, group);
  }
  if (least < 0 || most >= static_cast<i64>(n_groups)) throw DataError("a row belongs to no known group");
  if (most >= kMaxGroups)
    throw DataError("more than " + std::to_string(kMaxGroups) + " combinations of version and segment values");
}

}  // namespace

Join::Join(JoinOptions options)
    : options_(options),
      rows_({slice_of(options.lateness), options.n_values, options.wide_ids, options.is_binary, options.has_weights}),
      forget_age_(2 * std::clamp<i64>(options.lateness, 0, kFarTime / 4) + slice_of(options.lateness) - 1) {
  constexpr i64 kMost = 1'000'000'000;  // rows have numbers of 32 bits
  if (options.capacity < 1 || options.capacity > kMost)
    throw SchemaError("between 1 and 1000000000 predictions can be remembered, got " +
                      std::to_string(options.capacity));
}

template <typename Visit>
void Join::for_each_row(const Key& key, Visit&& visit) const {
  index_.for_each(key.low, [&](u32 row) {
    std::byte* at = rows_.find(row);
    if (at != nullptr && rows_.holds(at, key)) visit(Found{row, at});
    return false;
  });
}

// Whether `now` lies more than the lateness after `time`.
bool Join::is_past(i64 now, i64 time) const noexcept {
  if (options_.lateness < 0 || now == kNever || time == kNever) return false;
  i64 age;
  return __builtin_sub_overflow(now, time, &age) ? now > time : age > options_.lateness;
}

void Join::advance(i64 time) {
  if (time <= watermark_) return;
  if (watermark_ == kNever) rows_.date_the_timeless(time);  // their wait begins with the first known time
  watermark_ = time;
  // Slices that begin before this are older than twice the lateness as a whole.
  if (options_.lateness >= 0 && __builtin_sub_overflow(time, forget_age_, &forgettable_before_))
    forgettable_before_ = kNever;
}

// Forgets slices by their age, unless hardly anything would be left.
void Join::forget_aged() {
  while (rows_.oldest_start() < forgettable_before_) {
    const Generation& oldest = *rows_.generations().begin()->second;
    const i64 left = n_predictions_ + n_early_ - oldest.n_predictions - oldest.n_early;
    const auto n_slices = static_cast<i64>(rows_.generations().size());
    if (left < options_.always_kept && n_slices <= options_.most_slices) return;
    forget_oldest();
  }
}

// Whether there is room for one more; slices of enough age make it.
bool Join::has_room(const i64& n_held) {
  while (n_held >= options_.capacity && rows_.oldest_start() < forgettable_before_) forget_oldest();
  return n_held < options_.capacity;
}

void Join::forget_oldest() {
  const Generation& oldest = *rows_.generations().begin()->second;
  counters_.expired += oldest.n_pending;
  counters_.orphan += oldest.n_early;
  n_predictions_ -= oldest.n_predictions;
  n_early_ -= oldest.n_early;
  rows_.forget(oldest.start);
}

Join::Found Join::insert(const Key& key, const RowContent& content, u64 flags) {
  const u32 row = rows_.add(key, content, flags);
  ++((flags & RowState::kEarly) != 0 ? n_early_ : n_predictions_);
  index_.insert(key.low, row, rows_);
  if (rows_.has_opened_chunk()) {
    if (index_.clean_share(rows_.n_chunks(), rows_)) rows_.reuse_numbers();
    while (rows_.is_short_of_numbers()) {
      if (index_.clean_share(1, rows_)) rows_.reuse_numbers();
    }
  }
  return {row, rows_.find(row)};
}

void Join::remove(const Key& key, const Found& found) {
  Generation& generation = rows_.generation(found.row);
  if (is_early(found)) {
    --n_early_;
    --generation.n_early;
  } else {
    --n_predictions_;
    --generation.n_predictions;
    generation.n_pending -= std::isnan(rows_.label_of(found.at)) ? 1 : 0;
  }
  rows_.mark_gone(found.at);
  index_.erase(key.low, found.row);
  if (generation.n_predictions + generation.n_early == 0) rows_.forget(generation.start);
}

void Join::set_versions(std::span<const i32> group_versions) {
  if (group_versions.size() > versions_.size()) versions_.assign(group_versions.begin(), group_versions.end());
}

std::uint8_t Join::delay_of(i64 arrival, i64 time) const noexcept {
  return options_.lateness < 0 ? kNoDelay : delay_bin(arrival - time);
}

Outcomes Join::new_outcomes() const {
  Outcomes out;
  out.has_weights = options_.has_weights;
  return out;
}

Outcome Join::outcome_of(const Found& found, f64 label, std::int8_t sign) const noexcept {
  const i32 group = rows_.state_of(found.at).group();
  const auto decision = static_cast<std::int16_t>(rows_.decision_of(found.at));
  return {time_of(found), watermark_, label, rows_.weight_of(found.at),
          group,          decision,   sign,  rows_.delay_of(found.at)};
}

void Join::add_values(const Found& found, std::vector<f64>& values) const {
  for (i32 i = 0; i < options_.n_values; ++i) values.push_back(rows_.value_of(found.at, i));
}

void Join::emit(Outcomes& out, const Found& found, f64 label, std::int8_t sign) const {
  out.rows.push_back(outcome_of(found, label, sign));
  add_values(found, out.values);
}

// The labelled predictions of an id that challengers made, each beside that of the champion if it is labelled too.
void Join::emit_pairs(const Key& key, std::int8_t sign, Outcomes& out) const {
  Found champion{0, nullptr};
  for_each_row(key, [&](const Found& found) {
    if (!is_early(found) && version_of(found) == options_.champion) champion = found;
  });
  if (champion.at == nullptr || std::isnan(rows_.label_of(champion.at))) return;
  for_each_row(key, [&](const Found& found) {
    const f64 label = rows_.label_of(found.at);
    if (found.row == champion.row || std::isnan(label)) return;
    out.pairs.push_back(outcome_of(found, label, sign));
    out.champions.push_back(static_cast<std::int16_t>(rows_.decision_of(champion.at)));
    add_values(found, out.pair_values);
    add_values(champion, out.pair_values);
  });
}

// Makes a change to the predictions of an id, and what that means for their pairs: those before go, those after come.
template <typename Change>
void Join::change(const Key& key, Outcomes& out, Change&& change) {
  if (options_.champion < 0) return change();
  emit_pairs(key, -1, out);
  change();
  emit_pairs(key, 1, out);
}

// A prediction that waited has its label.
void Join::match(const Found& found, f64 label, std::uint8_t delay, Outcomes& out) {
  ++counters_.matched;
  --rows_.generation(found.row).n_pending;
  rows_.set_label(found.at, label, delay);
  emit(out, found, label, 1);
}

Outcomes Join::log(const PredictionRows& rows, std::span<std::uint8_t> accepted) {
  check_groups(rows.groups, rows.group_versions.size());
  set_versions(rows.group_versions);
  Outcomes out = new_outcomes();
  const std::size_t n = rows.keys.size();
  for (std::size_t start = 0; start < n; start += kAhead) {
    const std::size_t end = std::min(n, start + kAhead);
    for (std::size_t row = start; row < end; ++row) index_.prefetch(rows.keys[row].low);
    for (std::size_t row = start; row < end; ++row) index_.prefetch_more(rows.keys[row].low);
    for (std::size_t row = start; row < end; ++row) accepted[row] = log_row(rows, row, out);
  }
  return out;
}

std::uint8_t Join::log_row(const PredictionRows& rows, std::size_t row, Outcomes& out) {
  const Key& key = rows.keys[row];
  const i64 time = rows.times[row];
  const i32 group = rows.groups[row];
  advance(time);
  forget_aged();
  const bool fits = has_room(n_predictions_);
  bool is_new = true;
  Found early{0, nullptr}, labelled{0, nullptr};  // labelled: of another version, see labels_before
  for_each_row(key, [&](const Found& found) {
    if (is_early(found)) {
      early = found;
      return;
    }
    is_new = is_new && version_of(found) != versions_[static_cast<std::size_t>(group)];
    if (labels_before(labelled, found)) labelled = found;
  });
  if (!is_new) {
    ++counters_.duplicate_predictions;
    return 0;
  }
  ++counters_.predictions;
  if (options_.arrivals == Arrivals::kGiven)
    out.arrivals.push_back({time, watermark_, kNoLabel, 1.0, group, -1, 1, kNoDelay});
  if (!fits) {
    ++counters_.expired;
    return 1;
  }
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  const f64 weight = options_.has_weights ? rows.weights[row] : 1.0;
  const Found added = insert(
      key, {time, group, rows.decisions[row], kNoLabel, weight, rows.values.subspan(row * n_values, n_values), 0}, 0);
  if (labelled.at != nullptr) {
    change(key, out, [&] { match(added, rows_.label_of(labelled.at), rows_.delay_of(labelled.at), out); });
  } else if (early.at != nullptr) {
    const i64 arrival = time_of(early);
    const f64 label = rows_.label_of(early.at);
    remove(key, early);
    if (is_past(arrival, time)) {
      ++counters_.late;
    } else {
      ++counters_.matched_labels;
      change(key, out, [&] { match(added, label, delay_of(arrival, time), out); });
    }
  }
  return 1;
}

Outcomes Join::label(const LabelRows& rows) {
  const std::size_t n = rows.keys.size();
  Outcomes out = new_outcomes();
  out.rows.reserve(n);
  out.values.reserve(n * static_cast<std::size_t>(options_.n_values));
  for (std::size_t start = 0; start < n; start += kAhead) {
    const std::size_t end = std::min(n, start + kAhead);
    for (std::size_t row = start; row < end; ++row) index_.prefetch(rows.keys[row].low);
    for (std::size_t row = start; row < end; ++row) index_.prefetch_more(rows.keys[row].low);
    for (std::size_t row = start; row < end; ++row) {
      const std::byte* first = nullptr;
      index_.for_each(rows.keys[row].low, [&](u32 found) { return (first = rows_.find(found)) != nullptr; });
      if (first == nullptr) continue;
      __builtin_prefetch(first);
      __builtin_prefetch(first + rows_.stride() - 1);
    }
    for (std::size_t row = start; row < end; ++row) {
      advance(rows.times[row]);
      forget_aged();
      ++counters_.labels;
      label_row(rows.keys[row], rows.labels[row], rows.times[row], out);
    }
  }
  return out;
}

void Join::label_row(const Key& key, f64 label, i64 time, Outcomes& out) {
  if (std::isnan(label)) {
    ++counters_.missing;
    return;
  }
  const i64 arrival = time == kNever ? watermark_ : time;
  bool known = false, matched = false, corrected = false, late = false;
  const auto take = [&](const Found& found) {
    known = true;
    const f64 before = rows_.label_of(found.at);
    if (is_early(found)) {
      corrected = before != label;
      rows_.set_label(found.at, label, 0);
      return;
    }
    if (is_past(arrival, time_of(found))) {
      late = true;
    } else if (std::isnan(before)) {
      matched = true;
      match(found, label, delay_of(arrival, time_of(found)), out);
    } else if (before != label) {
      corrected = true;
      emit(out, found, before, -1);
      emit(out, found, label, 1);
      rows_.set_label(found.at, label, rows_.delay_of(found.at));
    }
  };
  change(key, out, [&] { for_each_row(key, take); });
  if (known) {
    ++(matched     ? counters_.matched_labels
       : corrected ? counters_.corrected
       : late      ? counters_.late
                   : counters_.duplicate);
  } else if (!has_room(n_early_)) {
    ++counters_.orphan;
  } else {
    insert(key, {arrival, 0, -1, label, 1.0, {}, 0}, RowState::kEarly);
  }
}

Outcomes Join::forget(std::span<const Key> keys) {
  Outcomes out = new_outcomes();
  for (const Key& key : keys) forget_id(key, out);
  return out;
}

void Join::forget_id(const Key& key, Outcomes& out) {
  if (options_.champion >= 0) emit_pairs(key, -1, out);
  found_.clear();
  for_each_row(key, [&](const Found& found) { found_.push_back(found); });
  for (const Found& found : found_) {
    if (is_early(found)) {
      ++counters_.forgotten_labels;
    } else {
      ++counters_.forgotten;
      if (const f64 label = rows_.label_of(found.at); !std::isnan(label)) {
        --counters_.matched;
        emit(out, found, label, -1);
      }
    }
    remove(key, found);
  }
}

Account Join::account() const {
  Account account = counters_;
  for (const auto& [start, generation] : rows_.generations()) {
    const bool is_timeless = start == kNever;
    if (is_timeless || !is_past(watermark_, start)) {
      account.pending += generation->n_pending;
      account.early += generation->n_early;
    } else if (is_past(watermark_, start + rows_.slice() - 1)) {
      account.expired += generation->n_pending;
      account.orphan += generation->n_early;
    } else {
      rows_.for_each_in(*generation, [&](const std::byte* at) {
        const bool past = is_past(watermark_, rows_.time_of(at, *generation));
        if (rows_.state_of(at).is_early()) {
          ++(past ? account.orphan : account.early);
        } else if (std::isnan(rows_.label_of(at))) {
          ++(past ? account.expired : account.pending);
        }
      });
    }
  }
  return account;
}

Join::State Join::state(std::span<const i32> ranks) const {
  struct Row {
    Key key;
    i32 rank;  // of the group
    Found found;
  };
  std::vector<Row> predictions, early;
  index_.for_each_slot([&](u64 low, u32 row) {
    std::byte* at = rows_.find(row);
    if (at == nullptr) return;
    const RowState kept = rows_.state_of(at);
    const i32 rank = kept.is_early() ? 0 : ranks[static_cast<std::size_t>(kept.group())];
    (kept.is_early() ? early : predictions).push_back({rows_.key_of(at, low), rank, {row, at}});
  });
  for (auto* rows : {&predictions, &early}) {
    std::sort(rows->begin(), rows->end(), [](const Row& a, const Row& b) {
      return std::tuple(a.key.high, a.key.low, a.rank) < std::tuple(b.key.high, b.key.low, b.rank);
    });
  }
  State state;
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  state.values.resize(predictions.size() * n_values);
  f64* values = state.values.data();
  for (const auto& [key, rank, found] : predictions) {
    state.keys.push_back(key);
    state.times.push_back(time_of(found));
    state.groups.push_back(rank);
    state.decisions.push_back(rows_.decision_of(found.at));
    if (options_.has_weights) state.weights.push_back(rows_.weight_of(found.at));
    state.labels.push_back(rows_.label_of(found.at));
    state.label_delays.push_back(rows_.delay_of(found.at));
    rows_.read_values(found.at, values);
    values += n_values;
  }
  for (const auto& [key, rank, found] : early) {
    state.early_keys.push_back(key);
    state.early_times.push_back(time_of(found));
    state.early_labels.push_back(rows_.label_of(found.at));
  }
  state.counters = counters_;
  state.watermark = watermark_;
  return state;
}

void Join::restore(const State& state, std::span<const i32> group_versions) {
  const std::size_t n = state.keys.size(), n_early = state.early_keys.size();
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  if (state.times.size() != n || state.groups.size() != n || state.decisions.size() != n || state.labels.size() != n ||
      state.label_delays.size() != n || state.values.size() != n * n_values ||
      state.weights.size() != (options_.has_weights ? n : 0) || state.early_times.size() != n_early ||
      state.early_labels.size() != n_early)
    throw DataError("the stored join is damaged: its columns differ in length");
  check_groups(state.groups, group_versions.size());
  const auto is_far = [](i64 time) { return time != kNever && (time < -kFarTime || time > kFarTime); };
  const auto is_foreign = [&](const Key& key) { return !options_.wide_ids && key.high > 1; };
  const bool is_damaged = std::any_of(state.keys.begin(), state.keys.end(), is_foreign) ||
                          std::any_of(state.early_keys.begin(), state.early_keys.end(), is_foreign) ||
                          std::any_of(state.times.begin(), state.times.end(), is_far) ||
                          std::any_of(state.early_times.begin(), state.early_times.end(), is_far) ||
                          is_far(state.watermark) ||
                          std::any_of(state.label_delays.begin(), state.label_delays.end(),
                                      [](std::uint8_t delay) { return delay >= kDelayBins && delay != kNoDelay; });
  if (is_damaged) throw DataError("the stored join is damaged: an id or a time is out of range");
  *this = Join(options_);
  set_versions(group_versions);
  for (std::size_t i = 0; i < n; ++i) {
    const auto values = std::span(state.values).subspan(i * n_values, n_values);
    const f64 weight = options_.has_weights ? state.weights[i] : 1.0;
    insert(
        state.keys[i],
        {state.times[i], state.groups[i], state.decisions[i], state.labels[i], weight, values, state.label_delays[i]},
        0);
  }
  for (std::size_t i = 0; i < n_early; ++i)
    insert(state.early_keys[i], {state.early_times[i], 0, -1, state.early_labels[i], 1.0, {}, 0}, RowState::kEarly);
  counters_ = state.counters;
  advance(state.watermark);
}

// Whether of two predictions of an id the second is the one whose label others get: it has one, and is the later.
bool Join::labels_before(const Found& first, const Found& second) const noexcept {
  const f64 label = rows_.label_of(second.at);
  if (std::isnan(label)) return false;
  return first.at == nullptr || std::pair(time_of(first), rows_.label_of(first.at)) < std::pair(time_of(second), label);
}

// Gives the label that an id has here to the versions that wait for theirs.
void Join::share_label(const Key& key, Outcomes& out) {
  Found labelled{0, nullptr};
  found_.clear();
  for_each_row(key, [&](const Found& found) {
    if (std::isnan(rows_.label_of(found.at))) found_.push_back(found);
    if (labels_before(labelled, found)) labelled = found;
  });
  if (labelled.at == nullptr) return;
  for (const Found& found : found_) match(found, rows_.label_of(labelled.at), rows_.delay_of(labelled.at), out);
}

// An id that the same version predicted on both sides stays once; what its label added twice is taken back.
bool Join::merge_duplicate(const Key& key, const Join& other, const Found& theirs, i32 group, Outcomes& out) {
  Found mine{0, nullptr};
  for_each_row(key, [&](const Found& found) {
    if (!is_early(found) && version_of(found) == versions_[static_cast<std::size_t>(group)]) mine = found;
  });
  if (mine.at == nullptr) return false;
  --counters_.predictions;
  ++counters_.duplicate_predictions;
  const f64 label = other.rows_.label_of(theirs.at);
  if (std::isnan(label)) return true;
  const auto take_back = [&] {
    other.emit(out, theirs, label, -1);
    out.rows.back().group = group;
    out.rows.back().known = watermark_;
  };
  take_back();
  if (std::isnan(rows_.label_of(mine.at))) {  // the outcome moves to the cell of the prediction that stays
    --rows_.generation(mine.row).n_pending;
    rows_.set_label(mine.at, label, other.rows_.delay_of(theirs.at));
    emit(out, mine, label, 1);
  } else {
    --counters_.matched;
    --counters_.matched_labels;
    ++counters_.duplicate;
  }
  return true;
}

// What another join of these groups has made of an id's pairs goes; they are made anew where all predictions are.
void Join::take_back_pairs(const Key& key, std::span<const i32> groups, Outcomes& out) const {
  const std::size_t n = out.pairs.size();
  emit_pairs(key, -1, out);
  for (std::size_t i = n; i < out.pairs.size(); ++i)
    out.pairs[i].group = groups[static_cast<std::size_t>(out.pairs[i].group)];
}

Outcomes Join::merge(const Join& other, std::span<const i32> groups, std::span<const i32> group_versions) {
  check_groups(groups, group_versions.size());
  set_versions(group_versions);
  Outcomes out = new_outcomes();
  advance(other.watermark_);
  for (const auto field : kAccountFields) counters_.*field += other.counters_.*field;
  struct Waiting {
    Key key;
    i64 time;
    f64 label;
  };
  std::vector<Waiting> waiting;  // taken in again once the predictions of both sides are here
  std::vector<Key> moved;
  std::vector<f64> values(static_cast<std::size_t>(options_.n_values));
  other.index_.for_each_slot([&](u64 low, u32 row) {
    const Found theirs{row, other.rows_.find(row)};
    if (theirs.at == nullptr) return;
    const Key key = other.rows_.key_of(theirs.at, low);
    const f64 label = other.rows_.label_of(theirs.at);
    const i64 time = other.time_of(theirs);
    if (other.is_early(theirs)) {
      waiting.push_back({key, time, label});
      return;
    }
    const i32 group = groups[static_cast<std::size_t>(other.rows_.state_of(theirs.at).group())];
    if (other.options_.champion >= 0 && other.version_of(theirs) == other.options_.champion)
      other.take_back_pairs(key, groups, out);
    change(key, out, [&] {
      if (merge_duplicate(key, other, theirs, group, out)) return;
      Found early{0, nullptr};
      for_each_row(key, [&](const Found& found) {
        if (is_early(found)) early = found;
      });
      if (early.at != nullptr) {
        waiting.push_back({key, time_of(early), rows_.label_of(early.at)});
        remove(key, early);
      }
      other.rows_.read_values(theirs.at, values.data());
      insert(key,
             {time, group, other.rows_.decision_of(theirs.at), label, other.rows_.weight_of(theirs.at), values,
              other.rows_.delay_of(theirs.at)},
             0);
      moved.push_back(key);
    });
  });
  for (Outcome& pair : out.pairs) pair.known = watermark_;  // those of the other side as well
  for (const Key& key : moved) change(key, out, [&] { share_label(key, out); });
  for (const auto& [key, time, label] : waiting) label_row(key, label, time, out);
  forget_aged();
  return out;
}

}  // namespace tidegauge
