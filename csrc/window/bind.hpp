// Panes as Python hands them over: a row of widths above a row of bounds.
// Costs nothing; the array must outlive the panes.
// Deterministic: a view never changes what it looks at.
#pragma once

#include "arrow/bind.hpp"
#include "window/panes.hpp"

namespace tidegauge {

[[nodiscard]] inline Panes panes_of(const Array<i64>& panes) {
  const auto both = view(panes);
  return {both.first(both.size() / 2), both.last(both.size() / 2)};
}

}  // namespace tidegauge
