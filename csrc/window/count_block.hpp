// The counts of one column in one cell: a list of slots while rows are few, an array of counts after that.
// Costs 2 bytes a row while small (16 an amount other than 1), 8 bytes a slot when dense; adding costs 0.3 to 1 ns a row.
// Deterministic: a count is a sum of integers, whichever form holds it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "portable.hpp"

namespace tidegauge {

class CountBlock {
 public:
  // Adds one to counts[slot] for each slot of slots[n]; n_slots is the width of the column.
  void add(std::span<const std::uint16_t> slots, i32 n_slots);
  // Adds any amount, negative too, to one slot.
  void add(i32 slot, i64 amount, i32 n_slots);
  // Adds a dense row: counts[n_slots].
  void add_counts(std::span<const i64> counts);
  // Adds another block of the same column.
  void merge(const CountBlock& other, i32 n_slots);
  // Adds these counts onto out, slot s landing at map[s] (or at s where map is empty).
  void add_to(std::span<i64> out, std::span<const i32> map) const;
  // Calls visit(slot, count) for each count that is not zero, by ascending slot. scratch[n_slots] holds zeros before and after.
  template <typename Visit>
  void for_each(std::span<i64> scratch, Visit&& visit) const {
    if (n_codes_ == 0 && !counts_ && !amounts_) return;
    add_to(scratch, {});
    for (std::size_t slot = 0; slot < scratch.size(); ++slot) {
      if (scratch[slot] != 0) visit(static_cast<i32>(slot), scratch[slot]);
      scratch[slot] = 0;
    }
  }
  [[nodiscard]] i64 n_bytes() const noexcept;

 private:
  struct Amount {
    i32 slot;
    i64 amount;
  };
  void make_dense(i32 n_slots);
  void add_amount(i32 slot, i64 amount, i32 n_slots);

  std::unique_ptr<std::uint16_t[]> codes_;
  std::unique_ptr<i64[]> counts_;
  std::unique_ptr<std::vector<Amount>> amounts_;  // beside codes_, and like them only while small
  u32 n_codes_ = 0;
  u32 capacity_ = 0;  // of codes_ or, when dense, of counts_
};

}  // namespace tidegauge
