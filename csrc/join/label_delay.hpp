// Bin of a label's delay: below one second, then two bins an octave up to 2^25 seconds (388 days), then the rest.
// Costs a few integer operations.
// Deterministic: integers only, the same edges for every monitor, so histograms add.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "portable.hpp"

namespace tidegauge {

constexpr i32 kDelayOctaves = 25;
constexpr i32 kDelayBins = 2 * kDelayOctaves + 2;

// Lower edge of a bin but the first, which has none; microseconds. Bin 1 begins at one second.
[[nodiscard]] constexpr i64 delay_edge(i32 bin) noexcept {
  const i32 octave = (bin - 1) / 2;
  return (bin - 1) % 2 == 0 ? 1'000'000LL << octave : (1'414'213'562LL << octave) / 1000;
}

[[nodiscard]] inline std::uint8_t delay_bin(i64 microseconds) noexcept {
  if (microseconds < delay_edge(1)) return 0;
  const i32 octave = static_cast<i32>(std::bit_width(static_cast<u64>(microseconds) / 1'000'000)) - 1;
  if (octave >= kDelayOctaves) return kDelayBins - 1;
  return static_cast<std::uint8_t>(1 + 2 * octave + (microseconds >= delay_edge(2 + 2 * octave) ? 1 : 0));
}

}  // namespace tidegauge
