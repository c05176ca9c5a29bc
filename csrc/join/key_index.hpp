// Finds the rows of an id: lines of the cache with ten slots each, in segments that grow a page at a time.
// Costs about one line a look-up, 7 to 8 bytes a row; growing never moves more than one segment of 2,560 slots.
// Deterministic: which rows are found depends on the ids alone.
#pragma once

#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "join/rows.hpp"

namespace tidegauge {

class KeyIndex {
 public:
  KeyIndex();

  // Calls visit(row) for the rows that may be of an id, those of other ids with the same low 16 bits among them;
  // stops when visit returns true.
  template <typename Visit>
  void for_each(u64 low, Visit&& visit) const {
    const Segment& segment = segment_of(low);
    const u32 n_lines = segment.n_lines();
    u32 place = home_of(low, n_lines);
    for (u32 left = segment.line(place).reach;; --left) {
      const Line& line = segment.line(place);
      for (u32 alike = line.find(static_cast<std::uint16_t>(low)); alike != 0; alike &= alike - 1) {
        if (visit(line.rows[std::countr_zero(alike)])) return;
      }
      if (left == 0) return;
      place = place + 1 == n_lines ? 0 : place + 1;
    }
  }
  // Inlined, for GCC drops calls of a function that only prefetches.
  [[gnu::always_inline]] void prefetch(u64 low) const noexcept {
    const Segment& segment = segment_of(low);
    __builtin_prefetch(&segment.line(home_of(low, segment.n_lines())));
  }
  // Once that line is here: the one after it, where the first may go on.
  [[gnu::always_inline]] void prefetch_more(u64 low) const noexcept {
    const Segment& segment = segment_of(low);
    const u32 place = home_of(low, segment.n_lines());
    if (segment.line(place).reach != 0 && place + 1 < segment.n_lines()) __builtin_prefetch(&segment.line(place + 1));
  }

  void insert(u64 low, u32 row, const Rows& rows);
  void erase(u64 low, u32 row);
  // Calls visit(low 16 bits, row) for every slot.
  template <typename Visit>
  void for_each_slot(Visit&& visit) const {
    for (const Segment& segment : segments_) {
      for (u32 place = 0; place < segment.n_lines(); ++place) {
        const Line& line = segment.line(place);
        for (u32 slot = 0; slot < line.n; ++slot) visit(static_cast<u64>(line.low[slot]), line.rows[slot]);
      }
    }
  }
  // Drops slots of forgotten rows from a share of the segments; true when the last one has been reached.
  [[nodiscard]] bool clean_share(i64 n_shares, const Rows& rows);

  [[nodiscard]] i64 n_bytes() const noexcept;

 private:
  static constexpr u32 kSlots = 10;      // a line
  static constexpr u32 kPageLines = 32;  // 2 KiB
  static constexpr u32 kPageSlots = kPageLines * kSlots;

  struct alignas(64) Line {
    u32 rows[kSlots];
    std::uint16_t low[kSlots];  // of the ids
    std::uint16_t n;
    std::uint16_t reach;  // lines to look at after this one for what has its place here
    // A bit for each slot that holds these; four slots are compared at a time.
    [[nodiscard]] u32 find(std::uint16_t wanted) const noexcept {
      constexpr u64 kLanes = 0x0001000100010001ULL, kHalf = 0x7fff * kLanes;
      u32 alike = 0;
      for (u32 first = 0; first < kSlots; first += 4) {
        u64 lanes;  // the last four reach into what follows the slots
        std::memcpy(&lanes, reinterpret_cast<const std::byte*>(this) + sizeof(rows) + 2 * first, 8);
        lanes ^= wanted * kLanes;
        const u64 equal = ~(((lanes & kHalf) + kHalf) | lanes | kHalf) >> 15;  // 1 in the lanes that are 0
        alike |= static_cast<u32>(equal * 0x0001000200040008ULL >> 48 & 15) << first;
      }
      return alike & ((1U << n) - 1);
    }
  };
  static_assert(sizeof(Line) == 64);

  struct Slot {
    u32 row;
    std::uint16_t low;
  };

  struct Segment {
    std::vector<Line*> pages;
    u32 n_used = 0;
    i32 depth = 0;       // leading bits that its ids share
    u64 prefix = 0;      // these bits
    i64 cleaned_at = 0;  // slices forgotten when it was cleaned
    [[nodiscard]] u32 n_lines() const noexcept { return static_cast<u32>(pages.size()) * kPageLines; }
    [[nodiscard]] Line& line(u32 place) const noexcept { return pages[place / kPageLines][place % kPageLines]; }
  };

  [[nodiscard]] static u32 home_of(u64 low, u32 n_lines) noexcept {
    return static_cast<u32>((low & 0xffff) * n_lines >> 16);
  }
  [[nodiscard]] const Segment& segment_of(u64 low) const noexcept { return segments_[directory_[slot_of(low)]]; }
  [[nodiscard]] Segment& segment_of(u64 low) noexcept { return segments_[directory_[slot_of(low)]]; }
  [[nodiscard]] std::size_t slot_of(u64 low) const noexcept {
    return static_cast<std::size_t>(low >> 1 >> (63 - depth_));
  }
  [[nodiscard]] static u32 limit_of(const Segment& segment) noexcept;
  [[nodiscard]] static u32 most_pages(const Segment& segment) noexcept;
  void make_room(u64 low, const Rows& rows);
  void split(u32 number, const Rows& rows);
  void take_slots(Segment& segment, const Rows& rows);  // into scratch_; those of forgotten rows are left out
  void put_slots(Segment& segment, std::span<const Slot> slots, std::size_t n_pages);
  static void put(Segment& segment, Slot slot) noexcept;

  BlockPool pool_;
  std::vector<Segment> segments_;
  std::vector<u32> directory_;  // by the leading depth_ bits of an id
  i32 depth_ = 0;
  i64 n_used_ = 0;
  std::size_t next_to_clean_ = 0;
  std::vector<Slot> scratch_, second_;
};

}  // namespace tidegauge
