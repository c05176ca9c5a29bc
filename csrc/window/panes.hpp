// Places a point of time in its pane: narrow panes while it is recent, wider ones as it ages, none in the end.
// Costs one division a change of pane.
// Deterministic: the pane follows from the time and the bounds alone; a bound is a multiple of the widths beside it.
#pragma once

#include <span>

#include "portable.hpp"

namespace tidegauge {

struct Pane {
  i64 start = 0, end = 0;  // [start, end), microseconds; both 0 where no time is kept
};

// Times before bounds[k] are kept in panes of widths[k + 1]; times before the last bound are not kept.
struct Panes {
  std::span<const i64> widths;  // [n], finest first, each divides the next; a single 0 keeps no time
  std::span<const i64> bounds;  // [n], descending

  [[nodiscard]] Pane at(i64 time) const noexcept {
    std::size_t level = 0;
    while (level + 1 < widths.size() && time < bounds[level]) ++level;
    const i64 width = widths[level];
    if (width == 0) return {};
    const i64 rest = time % width;
    const i64 start = time - (rest < 0 ? rest + width : rest);
    return {start, start + width};
  }
  [[nodiscard]] bool keeps(i64 time) const noexcept { return time >= bounds.back(); }
};

}  // namespace tidegauge
