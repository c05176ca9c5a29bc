#include "window/count_block.hpp"

#include <algorithm>

namespace tidegauge {

void CountBlock::make_dense(i32 n_slots) {
  const u32 width = static_cast<u32>(n_slots);
  if (counts_ && capacity_ >= width) return;
  auto counts = std::make_unique<i64[]>(width);
  if (counts_) std::copy_n(counts_.get(), capacity_, counts.get());
  for (u32 i = 0; i < n_codes_; ++i) ++counts[codes_[i]];
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
  make_dense(n_slots);
  counts_[static_cast<std::size_t>(slot)] += amount;
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
  }
}

}  // namespace tidegauge
