#include "join/rows.hpp"

#include <algorithm>

namespace tidegauge {
namespace {

i64 floor_to(i64 time, i64 width) noexcept {
  const i64 rest = time % width;
  return time - (rest < 0 ? rest + width : rest);
}

}  // namespace
Rows::Rows(RowOptions options) : options_(options) {
  stride_ = kHighAt + (options.wide_ids ? 8 : 0);
  const auto place = [&](bool wanted, std::size_t bytes) {
    const std::size_t at = stride_;
    if (wanted) stride_ += bytes;
    return at;
  };
  values_at_ = place(true, 8 * static_cast<std::size_t>(options.n_values));
  weight_at_ = place(options.has_weights, 8);
  label_at_ = place(!options.is_binary, 8);
  decision_at_ = place(!options.is_binary, 4);
  delay_at_ = place(true, 1);
  for (const u32 n_rows : kChunkSizes) pools_.emplace_back(n_rows * stride_);
}

Generation& Rows::generation_of(i64 time) {
  if (recent_ != nullptr && recent_->start != kNever && time >= recent_->start &&
      time - recent_->start < options_.slice)
    return *recent_;
  const i64 start = time == kNever ? kNever : floor_to(time, options_.slice);
  auto& generation = generations_[start];
  if (!generation) {
    generation = std::make_unique<Generation>();
    generation->start = start;
    find_oldest();
  }
  recent_ = generation.get();
  return *recent_;
}

void Rows::open_chunk(Generation& generation) {
  u32 id = static_cast<u32>(chunks_.size());
  if (free_ids_.empty()) {
    chunks_.emplace_back();
  } else {
    id = free_ids_.back();
    free_ids_.pop_back();
  }
  const auto size = static_cast<u32>(std::min(generation.chunks.size(), pools_.size() - 1));
  chunks_[id] = {pools_[size].take(), &generation, 0, size};
  generation.chunks.push_back(id);
  ++n_chunks_;
  has_opened_chunk_ = true;
}

u32 Rows::add(const Key& key, const RowContent& content, u64 flags) {
  Generation& generation = generation_of(content.time);
  if (generation.chunks.empty()) open_chunk(generation);
  if (const Chunk& last = chunks_[generation.chunks.back()]; last.n_rows == kChunkSizes[last.size])
    open_chunk(generation);
  const u32 id = generation.chunks.back();
  Chunk& chunk = chunks_[id];
  std::byte* at = chunk.rows + chunk.n_rows * stride_;
  const u64 rest = key.low >> 16;
  std::memcpy(at, &rest, 6);
  u64 bits = flags | static_cast<u64>(content.group) << RowState::kGroupAt;
  if (generation.start != kNever) bits |= static_cast<u64>(content.time - generation.start);
  if (options_.is_binary) {
    bits |= static_cast<u64>(content.decision + 1) << RowState::kDecisionAt | RowState::code_of(content.label);
  } else {
    store(at + decision_at_, content.decision);
    store(at + label_at_, content.label);
  }
  if (options_.wide_ids) {
    store(at + kHighAt, key.high);
  } else if (key.high != 0) {
    bits |= RowState::kNegative;
  }
  set_state(at, {bits});
  for (i32 i = 0; i < options_.n_values; ++i)
    store(at + values_at_ + 8 * i, content.values.empty() ? 0.0 : content.values[static_cast<std::size_t>(i)]);
  if (options_.has_weights) store(at + weight_at_, content.weight);
  store(at + delay_at_, content.delay);
  if ((flags & RowState::kEarly) != 0) {
    ++generation.n_early;
  } else {
    ++generation.n_predictions;
    generation.n_pending += content.label != content.label ? 1 : 0;
  }
  return id << kChunkBits | chunk.n_rows++;
}

void Rows::forget(i64 start) {
  const auto found = generations_.find(start);
  for (const u32 id : found->second->chunks) {
    pools_[chunks_[id].size].give(chunks_[id].rows);
    chunks_[id] = {};
    retired_.push_back(id);
  }
  n_chunks_ -= static_cast<i64>(found->second->chunks.size());
  ++n_forgotten_slices_;
  recent_ = nullptr;
  generations_.erase(found);
  find_oldest();
}

i64 Rows::n_bytes() const noexcept {
  constexpr i64 kNode = 64;  // of the map, with what the allocator adds
  i64 bytes = static_cast<i64>(chunks_.capacity() * sizeof(Chunk));
  for (const BlockPool& pool : pools_) bytes += pool.n_bytes();
  for (const auto& [start, generation] : generations_)
    bytes += kNode + static_cast<i64>(sizeof(Generation) + generation->chunks.capacity() * sizeof(u32));
  return bytes;
}

void Rows::date_the_timeless(i64 time) {
  const auto found = generations_.find(kNever);
  if (found == generations_.end()) return;
  auto generation = std::move(found->second);
  generations_.erase(found);
  generation->start = floor_to(time, options_.slice);
  const u64 offset = static_cast<u64>(time - generation->start);
  for_each_in(*generation, [&](std::byte* at) { set_state(at, {state_of(at).bits | offset}); });
  recent_ = generation.get();
  generations_[generation->start] = std::move(generation);
  find_oldest();
}

void Rows::reuse_numbers() {
  free_ids_.insert(free_ids_.end(), retiring_.begin(), retiring_.end());
  retiring_ = std::move(retired_);
  retired_.clear();
}

}  // namespace tidegauge
