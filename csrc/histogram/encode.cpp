#include "histogram/encode.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

namespace tidegauge {

namespace scalar {
#include "histogram/encode_loop.hpp"
}  // namespace scalar

namespace {

struct InstructionSet {
  const char* name;
  EncodeGrid encode_grid;
  FiniteRange finite_range;
  bool available;
};

// Best first; the last is what the compiler's baseline gives.
const auto& instruction_sets() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const InstructionSet kSets[] = {
      {"avx512", avx512::encode_grid, avx512::finite_range,
       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")},
      {"avx2", avx2::encode_grid, avx2::finite_range, __builtin_cpu_supports("avx2") != 0},
      {"scalar", scalar::encode_grid, scalar::finite_range, true},
  };
#elif defined(__aarch64__)
  static const InstructionSet kSets[] = {{"neon", scalar::encode_grid, scalar::finite_range, true}};
#else
  static const InstructionSet kSets[] = {{"scalar", scalar::encode_grid, scalar::finite_range, true}};
#endif
  return kSets;
}

const InstructionSet* best_set() noexcept {
  for (const auto& set : instruction_sets()) {
    if (set.available) return &set;
  }
  return nullptr;
}

std::atomic<const InstructionSet*>& chosen() noexcept {
  static std::atomic<const InstructionSet*> set{best_set()};
  return set;
}

}  // namespace

const char* instruction_set() noexcept { return chosen().load()->name; }

bool use_instruction_set(const char* name) noexcept {
  for (const auto& set : instruction_sets()) {
    if (set.available && std::strcmp(set.name, name) == 0) {
      chosen().store(&set);
      return true;
    }
  }
  return false;
}

i32 NumericBins::n_slots() const noexcept {
  if (!edges.empty()) return kSpecials + static_cast<i32>(edges.size()) + 1;
  const i32 n_cells = grid.kind == GridKind::kCuts ? 1 : grid.n_cells + 2;
  return kSpecials + n_cells + grid.n_cuts;
}

// The guide spans the edges that are no sentries at the ends of the doubles; a width of zero means one cell for all.
NumericBins with_edges(std::vector<f64> edges) {
  NumericBins bins;
  bins.edges = std::move(edges);
  const auto is_inner = [](f64 edge) { return std::abs(edge) < std::numeric_limits<f64>::max() / 4; };
  const auto first = std::find_if(bins.edges.begin(), bins.edges.end(), is_inner);
  const auto last = std::find_if(bins.edges.rbegin(), bins.edges.rend(), is_inner);
  const f64 width = first == bins.edges.end() ? 0 : *last - *first;
  Grid& grid = bins.guide_grid;
  grid.kind = GridKind::kLinear;
  grid.n_cells = static_cast<i32>(4 * bins.edges.size());
  grid.origin = width > 0 ? *first : 0;
  grid.scale = width > 0 ? std::min(grid.n_cells / width, 1e300) : 1;
  // guide[c] counts the edges in cells before c: the answer for a value of cell c lies in [guide[c], guide[c + 1]].
  const i32 n_edges = static_cast<i32>(bins.edges.size());
  i32 edge = 0;
  for (i32 cell = 0; cell < grid.n_cells + 2; ++cell) {
    while (edge < n_edges && linear_cell(bins.edges[static_cast<std::size_t>(edge)], grid) < cell) ++edge;
    bins.guide.push_back(edge);
  }
  bins.guide.push_back(n_edges);
  return bins;
}

void encode(const NumericBins& bins, std::span<const f64> values, std::span<std::uint16_t> slots) {
  if (bins.edges.empty()) {
    chosen()
        .load(std::memory_order_relaxed)
        ->encode_grid(bins.grid, values.data(), static_cast<i64>(values.size()), slots.data());
  } else {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const f64 x = values[i];
      const auto cell = static_cast<std::size_t>(linear_cell(x, bins.guide_grid));
      const i32 below = edges_at_or_below(x, bins.edges.data(), bins.guide[cell], bins.guide[cell + 1]);
      slots[i] = static_cast<std::uint16_t>(x == x ? kSpecials + below : kNan);
    }
  }
  for (const f64 sentinel : bins.sentinels) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] == sentinel) slots[i] = kSentinel;
    }
  }
}

void finite_range(std::span<const f64> values, f64& low, f64& high) {
  chosen().load(std::memory_order_relaxed)->finite_range(values.data(), static_cast<i64>(values.size()), &low, &high);
}

}  // namespace tidegauge
