#include "window/count_block.hpp"

#include <algorithm>

namespace tidegauge {

void CountBlock::make_dense(i32 n_slots) {
  const u32 width = static_cast<u32>(n_slots);
  if (counts_ && capacity_ >= width) return;
  auto counts = std::make_unique<i64[]>(width);
  if (counts_) std::copy_n(counts_.get(), capacity_, counts.get());
  for (u32 i = 0; i < n_codes_; ++i) ++counts[codes_[i]];
  if (amounts_) {
    for (const auto& [slot, amount] : *amounts_) counts[static_cast<std::size_t>(slot)] += amount;
  }
  amounts_.reset();
  codes_.reset();
  n_codes_ = 0;
  counts_ = std::move(counts);
  capacity_ = width;
}

void CountBlock::add(std::span<const std::uint16_t> slots, i32 n_slots) {
  const u32 n = static_cast<u32>(slots.size());
  if (!counts_ && n_codes_ + n <= static_cast<u32>(n_slots)) {
    if (n_codes_ + n > capacity_) {
      const u32 wanted = std::min(std::max({n_codes_ + n, capacity_ + capacity_ / 2, 8U}), static_cast<u32>(n_slots));
      auto codes = std::make_unique_for_overwrite<std::uint16_t[]>(wanted);
      std::copy_n(codes_.get(), n_codes_, codes.get());
      codes_ = std::move(codes);
      capacity_ = wanted;
    }
    std::copy_n(slots.data(), n, codes_.get() + n_codes_);
    n_codes_ += n;
    return;
  }
  make_dense(n_slots);
  for (const std::uint16_t slot : slots) ++counts_[slot];
}

void CountBlock::add(i32 slot, i64 amount, i32 n_slots) {
  if (amount == 0) return;
  if (!counts_ && amount > 0 && amount <= n_slots - static_cast<i64>(n_codes_)) {
    const auto code = static_cast<std::uint16_t>(slot);
    for (i64 i = 0; i < amount; ++i) add({&code, 1}, n_slots);
    return;
  }
  if (amount == -1 && !counts_) {
    auto* end = codes_.get() + n_codes_;
    if (auto* found = std::find(codes_.get(), end, static_cast<std::uint16_t>(slot)); found != end) {
      *found = *(end - 1);
      --n_codes_;
      return;
    }
  }
  if (!counts_) return add_amount(slot, amount, n_slots);
  make_dense(n_slots);
  counts_[static_cast<std::size_t>(slot)] += amount;
}

// Keeps an amount beside the codes; those of one slot are put together before the block turns dense.
void CountBlock::add_amount(i32 slot, i64 amount, i32 n_slots) {
  const auto most = static_cast<std::size_t>(n_slots) / 4;  // as many bytes as half of a dense block
  if (!amounts_) amounts_ = std::make_unique<std::vector<Amount>>();
  auto& kept = *amounts_;
  kept.push_back({slot, amount});
  if (kept.size() <= most) return;
  std::sort(kept.begin(), kept.end(), [](const Amount& a, const Amount& b) { return a.slot < b.slot; });
  std::size_t n = 0;
  for (const Amount& each : kept) {
    if (n > 0 && kept[n - 1].slot == each.slot) {
      kept[n - 1].amount += each.amount;
    } else {
      kept[n++] = each;
    }
  }
  kept.resize(n);
  if (n > most / 2) make_dense(n_slots);
}

i64 CountBlock::n_bytes() const noexcept {
  const i64 beside = amounts_ ? static_cast<i64>(sizeof(*amounts_) + amounts_->capacity() * sizeof(Amount)) : 0;
  return beside + (counts_ ? 8LL : 2LL) * capacity_;
}

void CountBlock::add_counts(std::span<const i64> counts) {
  make_dense(static_cast<i32>(counts.size()));
  for (std::size_t slot = 0; slot < counts.size(); ++slot) counts_[slot] += counts[slot];
}

void CountBlock::merge(const CountBlock& other, i32 n_slots) {
  if (other.counts_) {
    make_dense(n_slots);
    other.add_to({counts_.get(), capacity_}, {});
  } else {
    add({other.codes_.get(), other.n_codes_}, n_slots);
    if (!other.amounts_) return;
    for (const auto& [slot, amount] : *other.amounts_) add(slot, amount, n_slots);
  }
}

void CountBlock::add_to(std::span<i64> out, std::span<const i32> map) const {
  const auto target = [&](std::size_t slot) -> i64& {
    return out[map.empty() ? slot : static_cast<std::size_t>(map[slot])];
  };
  if (counts_) {
    for (std::size_t slot = 0; slot < capacity_; ++slot) target(slot) += counts_[slot];
  } else {
    for (u32 i = 0; i < n_codes_; ++i) ++target(codes_[i]);
    if (!amounts_) return;
    for (const auto& [slot, amount] : *amounts_) target(static_cast<std::size_t>(slot)) += amount;
  }
}

}  // namespace tidegauge
