#include "join/join.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace tidegauge {

// Whether `now` lies more than `multiple` times the lateness after `time`.
bool Join::is_past(i64 now, i64 time, i64 multiple) const noexcept {
  if (options_.lateness < 0 || now == kNever || time == kNever) return false;
  __extension__ using i128 = __int128;
  return static_cast<i128>(now) - time > static_cast<i128>(multiple) * options_.lateness;
}

void Join::advance(i64 time) {
  if (watermark_ == kNever && time != kNever) {
    for (auto& [key, early] : early_) early.time = time;  // their wait begins with the first known time
  }
  watermark_ = std::max(watermark_, time);
}

void Join::emit(Outcomes& out, const Entry& entry, f64 label, std::int8_t sign) const {
  const auto index = static_cast<std::size_t>(&entry - entries_.data());
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  out.times.push_back(entry.time);
  out.groups.push_back(entry.group);
  out.decisions.push_back(entry.decision);
  out.values.insert(out.values.end(), values_.begin() + static_cast<std::ptrdiff_t>(index * n_values),
                    values_.begin() + static_cast<std::ptrdiff_t>((index + 1) * n_values));
  out.weights.push_back(entry.weight);
  out.labels.push_back(label);
  out.signs.push_back(sign);
}

// Newest entry of an id, -1 when none is remembered.
i32 Join::head_of(const Key& key) const {
  const auto found = heads_.find(key);
  return found == heads_.end() ? -1 : found->second;
}

void Join::match_waiting(Entry& entry, f64 known_label, Outcomes& out) {
  if (!std::isnan(known_label)) {  // another version of the same id has it
    entry.label = known_label;
    ++counters_.matched;
    emit(out, entry, known_label, 1);
    return;
  }
  const auto waiting = early_.find(entry.key);
  if (waiting == early_.end()) return;
  const Early early = waiting->second;
  early_.erase(waiting);
  if (is_past(early.time, entry.time, 1)) {
    ++counters_.late;
    return;
  }
  entry.label = early.label;
  ++counters_.matched;
  ++counters_.matched_labels;
  emit(out, entry, early.label, 1);
}

Outcomes Join::log(const PredictionRows& rows, std::span<std::uint8_t> accepted) {
  Outcomes out;
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  for (std::size_t row = 0; row < rows.keys.size(); ++row) {
    advance(rows.times[row]);
    const Key& key = rows.keys[row];
    const i32 head = head_of(key);
    bool is_new = true;
    f64 known_label = std::numeric_limits<f64>::quiet_NaN();
    for (i32 i = head; i >= 0; i = entries_[static_cast<std::size_t>(i)].next) {
      const Entry& entry = entries_[static_cast<std::size_t>(i)];
      is_new = is_new && entry.version != rows.versions[row];
      if (std::isnan(known_label)) known_label = entry.label;
    }
    accepted[row] = is_new ? 1 : 0;
    if (!is_new) {
      ++counters_.duplicate_predictions;
      continue;
    }
    ++counters_.predictions;
    make_room();
    if (static_cast<i64>(entries_.size()) >= options_.capacity) {
      ++counters_.expired;
      continue;
    }
    entries_.push_back({key, rows.times[row], rows.weights.empty() ? 1.0 : rows.weights[row],
                        std::numeric_limits<f64>::quiet_NaN(), rows.groups[row], rows.versions[row],
                        rows.decisions[row], head_of(key)});
    const auto values = rows.values.subspan(row * n_values, n_values);
    values_.insert(values_.end(), values.begin(), values.end());
    heads_[key] = static_cast<i32>(entries_.size() - 1);
    match_waiting(entries_.back(), known_label, out);
  }
  return out;
}

Outcomes Join::label(const LabelRows& rows) {
  Outcomes out;
  label_rows(rows, out);
  return out;
}

void Join::label_rows(const LabelRows& rows, Outcomes& out) {
  for (std::size_t row = 0; row < rows.keys.size(); ++row) {
    ++counters_.labels;
    const i64 time = rows.times.empty() ? kNever : rows.times[row];
    advance(time);
    const f64 label = rows.labels[row];
    if (std::isnan(label)) {
      ++counters_.missing;
      continue;
    }
    const i64 arrival = time == kNever ? watermark_ : time;
    const i32 head = head_of(rows.keys[row]);
    if (head < 0) {
      make_room();
      const auto [waiting, is_new] = early_.try_emplace(rows.keys[row], Early{arrival, label});
      if (is_new) {
        if (static_cast<i64>(early_.size()) > options_.capacity) {
          early_.erase(waiting);
          ++counters_.orphan;
        }
      } else if (waiting->second.label == label) {
        ++counters_.duplicate;
      } else {
        ++counters_.corrected;
        waiting->second.label = label;
      }
      continue;
    }
    bool matched = false, corrected = false, late = false;
    for (i32 i = head; i >= 0; i = entries_[static_cast<std::size_t>(i)].next) {
      Entry& entry = entries_[static_cast<std::size_t>(i)];
      if (is_past(arrival, entry.time, 1)) {
        late = true;
      } else if (std::isnan(entry.label)) {
        matched = true;
        ++counters_.matched;
        emit(out, entry, label, 1);
        entry.label = label;
      } else if (entry.label != label) {
        corrected = true;
        emit(out, entry, entry.label, -1);
        emit(out, entry, label, 1);
        entry.label = label;
      }
    }
    ++(matched     ? counters_.matched_labels
       : corrected ? counters_.corrected
       : late      ? counters_.late
                   : counters_.duplicate);
  }
}

// Sweeps once there is more than is always remembered, or than there is room for; and not again before an eighth
// of the lateness has gone by, so that its cost is spread.
void Join::make_room() {
  const std::size_t held = entries_.size() + early_.size();
  if (held < std::min(kRemembered, static_cast<std::size_t>(options_.capacity)) || options_.lateness < 0) return;
  if (swept_at_ != kNever && watermark_ - swept_at_ <= options_.lateness / 8) return;
  swept_at_ = watermark_;
  sweep();
}

// Forgets what is older than twice the lateness.
void Join::sweep() {
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (is_past(watermark_, entries_[i].time, 2)) {
      counters_.expired += std::isnan(entries_[i].label) ? 1 : 0;
      continue;
    }
    entries_[kept] = entries_[i];
    std::copy_n(values_.begin() + static_cast<std::ptrdiff_t>(i * n_values), n_values,
                values_.begin() + static_cast<std::ptrdiff_t>(kept * n_values));
    ++kept;
  }
  entries_.resize(kept);
  values_.resize(kept * n_values);
  heads_.clear();
  for (std::size_t i = 0; i < kept; ++i) {
    const auto [head, is_new] = heads_.try_emplace(entries_[i].key, -1);
    entries_[i].next = head->second;
    head->second = static_cast<i32>(i);
  }
  for (auto waiting = early_.begin(); waiting != early_.end();) {
    if (is_past(watermark_, waiting->second.time, 2)) {
      ++counters_.orphan;
      waiting = early_.erase(waiting);
    } else {
      ++waiting;
    }
  }
}

Account Join::account() const {
  Account account = counters_;
  for (const Entry& entry : entries_) {
    if (std::isnan(entry.label)) ++(is_past(watermark_, entry.time, 1) ? account.expired : account.pending);
  }
  for (const auto& [key, early] : early_) ++(is_past(watermark_, early.time, 1) ? account.orphan : account.early);
  return account;
}

Join::State Join::state() const {
  State state;
  std::vector<std::size_t> order(entries_.size());  // by id and version: the order of arrival leaves no trace
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto rank = [&](std::size_t i) {
    return std::tuple(entries_[i].key.high, entries_[i].key.low, entries_[i].version);
  };
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return rank(a) < rank(b); });
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  for (const std::size_t i : order) {
    const Entry& entry = entries_[i];
    state.keys.push_back(entry.key);
    state.times.push_back(entry.time);
    state.groups.push_back(entry.group);
    state.versions.push_back(entry.version);
    state.decisions.push_back(entry.decision);
    state.weights.push_back(entry.weight);
    state.labels.push_back(entry.label);
    const auto begin = values_.begin() + static_cast<std::ptrdiff_t>(i * n_values);
    state.values.insert(state.values.end(), begin, begin + options_.n_values);
  }
  std::vector<std::pair<Key, Early>> waiting(early_.begin(), early_.end());
  std::sort(waiting.begin(), waiting.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.high, a.first.low) < std::pair(b.first.high, b.first.low);
  });
  for (const auto& [key, early] : waiting) {
    state.early_keys.push_back(key);
    state.early_times.push_back(early.time);
    state.early_labels.push_back(early.label);
  }
  state.counters = counters_;
  state.watermark = watermark_;
  return state;
}

void Join::restore(const State& state) {
  entries_.clear();
  heads_.clear();
  early_.clear();
  values_ = state.values;
  for (std::size_t i = 0; i < state.keys.size(); ++i) {
    const auto [head, is_new] = heads_.try_emplace(state.keys[i], -1);
    entries_.push_back({state.keys[i], state.times[i], state.weights[i], state.labels[i], state.groups[i],
                        state.versions[i], state.decisions[i], head->second});
    head->second = static_cast<i32>(i);
  }
  for (std::size_t i = 0; i < state.early_keys.size(); ++i)
    early_[state.early_keys[i]] = {state.early_times[i], state.early_labels[i]};
  counters_ = state.counters;
  watermark_ = state.watermark;
  swept_at_ = kNever;
}

// Gives a label that one version of an id has to the versions that wait for it.
void Join::share_label(const Key& key, Outcomes& out) {
  f64 label = std::numeric_limits<f64>::quiet_NaN();
  for (i32 i = head_of(key); i >= 0; i = entries_[static_cast<std::size_t>(i)].next) {
    if (std::isnan(label)) label = entries_[static_cast<std::size_t>(i)].label;
  }
  if (std::isnan(label)) return;
  for (i32 i = head_of(key); i >= 0; i = entries_[static_cast<std::size_t>(i)].next) {
    Entry& entry = entries_[static_cast<std::size_t>(i)];
    if (std::isnan(entry.label)) match_waiting(entry, label, out);
  }
}

// An id that the same version predicted on both sides stays once; what its label added twice is taken back.
bool Join::merge_duplicate(const Entry& entry, const Join& other, std::size_t index, Outcomes& out) {
  for (i32 i = head_of(entry.key); i >= 0; i = entries_[static_cast<std::size_t>(i)].next) {
    Entry& mine = entries_[static_cast<std::size_t>(i)];
    if (mine.version != entry.version) continue;
    --counters_.predictions;
    ++counters_.duplicate_predictions;
    if (!std::isnan(entry.label) && !std::isnan(mine.label)) {
      --counters_.matched;
      --counters_.matched_labels;
      ++counters_.duplicate;
      other.emit(out, other.entries_[index], entry.label, -1);
    } else if (!std::isnan(entry.label)) {  // the outcome moves to the cell of the entry that stays
      other.emit(out, other.entries_[index], entry.label, -1);
      mine.label = entry.label;
      emit(out, mine, mine.label, 1);
    }
    return true;
  }
  return false;
}

Outcomes Join::merge(const Join& other) {
  Outcomes out;
  advance(other.watermark_);
  const Account& more = other.counters_;
  for (const auto field : kAccountFields) counters_.*field += more.*field;
  const auto n_values = static_cast<std::size_t>(options_.n_values);
  for (std::size_t i = 0; i < other.entries_.size(); ++i) {
    Entry entry = other.entries_[i];
    if (merge_duplicate(entry, other, i, out)) continue;
    entry.next = head_of(entry.key);
    const auto begin = other.values_.begin() + static_cast<std::ptrdiff_t>(i * n_values);
    values_.insert(values_.end(), begin, begin + options_.n_values);
    entries_.push_back(entry);
    heads_[entry.key] = static_cast<i32>(entries_.size() - 1);
    share_label(entry.key, out);
  }
  // Labels that waited on either side are taken in again, now that both sides' predictions are here.
  std::vector<std::pair<Key, Early>> waiting(other.early_.begin(), other.early_.end());
  for (auto early = early_.begin(); early != early_.end();) {
    if (head_of(early->first) < 0) {
      ++early;
      continue;
    }
    waiting.emplace_back(*early);
    early = early_.erase(early);
  }
  for (const auto& [key, early] : waiting) {
    --counters_.labels;  // counted again as it is taken in
    const Key keys[] = {key};
    const f64 labels[] = {early.label};
    const i64 times[] = {early.time};
    label_rows({keys, labels, times}, out);
  }
  return out;
}

}  // namespace tidegauge
