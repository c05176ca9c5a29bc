#include "sample/select_rows.hpp"

#include <algorithm>

namespace tidegauge {
namespace {

constexpr std::size_t kBlock = 128;

// Most blocks lie in one stratum and hold no row of the sample, which a loop without branches finds out.
template <typename Priority>
SelectedRows select_by(std::span<const i32> strata, std::span<const u64> limits, Priority&& priority_of) {
  SelectedRows selected;
  for (std::size_t start = 0; start < strata.size(); start += kBlock) {
    const std::size_t stop = std::min(strata.size(), start + kBlock);
    const i32 stratum = strata[start];
    i32 others = 0;
    for (std::size_t row = start; row < stop; ++row) others |= strata[row] ^ stratum;
    if (others == 0) {
      if (stratum < 0) continue;
      const u64 limit = limits[static_cast<std::size_t>(stratum)];
      u64 n_within = 0;
      for (std::size_t row = start; row < stop; ++row) n_within += priority_of(row) <= limit ? 1 : 0;
      if (n_within == 0) continue;
    }
    for (std::size_t row = start; row < stop; ++row) {
      if (strata[row] < 0) continue;
      const u64 priority = priority_of(row);
      if (priority > limits[static_cast<std::size_t>(strata[row])]) continue;
      selected.rows.push_back(static_cast<i64>(row));
      selected.priorities.push_back(priority);
    }
  }
  return selected;
}

}  // namespace

SelectedRows select_rows(std::span<const i32> strata, std::span<const Key> keys, u64 first,
                         std::span<const u64> limits) {
  if (!keys.empty()) return select_by(strata, limits, [&](std::size_t row) { return keys[row].low; });
  return select_by(strata, limits, [&](std::size_t row) { return scatter(first + row); });
}

}  // namespace tidegauge
