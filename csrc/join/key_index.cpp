#include "join/key_index.hpp"

#include <algorithm>
#include <cstring>

namespace tidegauge {
namespace {

constexpr u32 kFewestPages = 4;  // of the fullest segments before they split in two
constexpr i32 kSpreadOfDepths = 4;

// Differs from one segment to the next, so that segments do not all grow in the same call.
u32 phase_of(u64 prefix) noexcept { return static_cast<u32>(prefix * 0x9e3779b97f4a7c15ULL >> 60); }

}  // namespace

KeyIndex::KeyIndex() : pool_(kPageLines * sizeof(Line)), segments_(1), directory_(1, 0) {
  put_slots(segments_[0], {}, 1);
}

u32 KeyIndex::limit_of(const Segment& segment) noexcept {
  const u32 slots = segment.n_lines() * kSlots;
  return slots * (107 + phase_of(segment.prefix) / 2) / 128;  // .84 to .89 of the slots
}

u32 KeyIndex::most_pages(const Segment& segment) noexcept {
  return kFewestPages + 1 + phase_of(segment.prefix) % kFewestPages;
}

void KeyIndex::put(Segment& segment, Slot slot) noexcept {
  const u32 n_lines = segment.n_lines();
  const u32 home = home_of(slot.low, n_lines);
  u32 place = home;
  u32 steps = 0;
  for (; segment.line(place).n == kSlots; ++steps) place = place + 1 == n_lines ? 0 : place + 1;
  if (steps > segment.line(home).reach) segment.line(home).reach = static_cast<std::uint16_t>(steps);
  Line& line = segment.line(place);
  line.rows[line.n] = slot.row;
  line.low[line.n++] = slot.low;
  ++segment.n_used;
}

void KeyIndex::take_slots(Segment& segment, const Rows& rows) {
  const bool may_hold_forgotten = segment.cleaned_at != rows.n_forgotten_slices();
  scratch_.resize(segment.n_used);
  Slot* out = scratch_.data();
  for (u32 place = 0; place < segment.n_lines(); ++place) {
    const Line& line = segment.line(place);
    for (u32 slot = 0; slot < line.n; ++slot) {
      if (!may_hold_forgotten || rows.find(line.rows[slot]) != nullptr) *out++ = {line.rows[slot], line.low[slot]};
    }
  }
  scratch_.resize(static_cast<std::size_t>(out - scratch_.data()));
  n_used_ -= segment.n_used;
  segment.cleaned_at = rows.n_forgotten_slices();
}

void KeyIndex::put_slots(Segment& segment, std::span<const Slot> slots, std::size_t n_pages) {
  while (segment.pages.size() > n_pages) {
    pool_.give(reinterpret_cast<std::byte*>(segment.pages.back()));
    segment.pages.pop_back();
  }
  while (segment.pages.size() < n_pages) segment.pages.push_back(reinterpret_cast<Line*>(pool_.take()));
  for (Line* page : segment.pages) std::memset(static_cast<void*>(page), 0, kPageLines * sizeof(Line));
  segment.n_used = 0;
  for (const Slot slot : slots) put(segment, slot);
  n_used_ += segment.n_used;
}

void KeyIndex::insert(u64 low, u32 row, const Rows& rows) {
  if (const Segment& segment = segment_of(low); segment.n_used >= limit_of(segment)) make_room(low, rows);
  put(segment_of(low), {row, static_cast<std::uint16_t>(low)});
  ++n_used_;
}

void KeyIndex::erase(u64 low, u32 row) {
  Segment& segment = segment_of(low);
  const u32 n_lines = segment.n_lines();
  u32 place = home_of(low, n_lines);
  for (;;) {
    Line& line = segment.line(place);
    const u32* end = line.rows + line.n;
    if (const u32* found = std::find(static_cast<const u32*>(line.rows), end, row); found != end) {
      const auto slot = found - line.rows;
      --line.n;
      line.rows[slot] = line.rows[line.n];
      line.low[slot] = line.low[line.n];
      --segment.n_used;
      --n_used_;
      return;
    }
    place = place + 1 == n_lines ? 0 : place + 1;
  }
}

// Cleans the segment of an id; where that does not help it gets a page more, or becomes two.
void KeyIndex::make_room(u64 low, const Rows& rows) {
  const u32 number = directory_[slot_of(low)];
  Segment& segment = segments_[number];
  const std::size_t n_pages = segment.pages.size();
  if (segment.cleaned_at != rows.n_forgotten_slices()) {
    take_slots(segment, rows);
    put_slots(segment, scratch_, n_pages);
    if (segment.n_used * 8 <= n_pages * kPageSlots * 6) return;
  }
  // Many versions of one id share all bits: then no split would ever part them.
  const auto usual_depth = static_cast<i32>(std::bit_width(static_cast<u64>(n_used_) / kPageSlots));
  if (n_pages >= most_pages(segment) && segment.depth < std::min(usual_depth + kSpreadOfDepths, 40)) {
    split(number, rows);
    return;
  }
  take_slots(segment, rows);
  put_slots(segment, scratch_, n_pages + 1);
}

void KeyIndex::split(u32 number, const Rows& rows) {
  if (segments_[number].depth == depth_) {
    std::vector<u32> twice(2 * directory_.size());
    for (std::size_t i = 0; i < twice.size(); ++i) twice[i] = directory_[i / 2];
    directory_ = std::move(twice);
    ++depth_;
  }
  const u32 other_number = static_cast<u32>(segments_.size());
  segments_.emplace_back();
  Segment& segment = segments_[number];
  Segment& other = segments_[other_number];
  take_slots(segment, rows);
  other.cleaned_at = segment.cleaned_at;
  other.depth = ++segment.depth;
  segment.prefix *= 2;
  other.prefix = segment.prefix + 1;
  const std::size_t span = std::size_t{1} << (depth_ - segment.depth);
  std::fill_n(directory_.begin() + static_cast<std::ptrdiff_t>(other.prefix * span), span, other_number);

  constexpr std::size_t kAhead = 16;
  second_.clear();
  std::size_t kept = 0;
  for (std::size_t i = 0; i < scratch_.size(); ++i) {
    if (i + kAhead < scratch_.size()) __builtin_prefetch(rows.find(scratch_[i + kAhead].row));
    const u64 leading = Rows::low_rest(rows.find(scratch_[i].row)) << 16;
    if ((leading >> (64 - segment.depth) & 1) != 0) {
      second_.push_back(scratch_[i]);
    } else {
      scratch_[kept++] = scratch_[i];
    }
  }
  const auto pages_for = [](std::size_t n) { return n * 8 / (kPageSlots * 6) + 1; };  // at most .75 full
  put_slots(segment, std::span(scratch_).first(kept), pages_for(kept));
  put_slots(other, second_, pages_for(second_.size()));
}

bool KeyIndex::clean_share(i64 n_shares, const Rows& rows) {
  const std::size_t n = segments_.size() / static_cast<std::size_t>(std::max<i64>(n_shares, 1)) + 1;
  for (std::size_t i = 0; i < n; ++i) {
    Segment& segment = segments_[next_to_clean_];
    if (segment.cleaned_at != rows.n_forgotten_slices()) {
      take_slots(segment, rows);
      put_slots(segment, scratch_, std::min(segment.pages.size(), scratch_.size() * 8 / (kPageSlots * 6) + 1));
    }
    if (++next_to_clean_ == segments_.size()) {
      next_to_clean_ = 0;
      return true;
    }
  }
  return false;
}

i64 KeyIndex::n_bytes() const noexcept {
  i64 bytes = pool_.n_bytes() + static_cast<i64>(directory_.capacity() * sizeof(u32));
  for (const Segment& segment : segments_)
    bytes += static_cast<i64>(sizeof(Segment) + segment.pages.capacity() * sizeof(Line*));
  return bytes;
}

}  // namespace tidegauge
