#include "histogram/encode.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "histogram/slot.hpp"

namespace tidegauge {

namespace scalar {
#include "histogram/encode_loop.hpp"
}  // namespace scalar

namespace {

struct InstructionSet {
  const char* name;
  Kernels kernels;
  bool available;
};

// Best first; the last is what the compiler's baseline gives.
const auto& instruction_sets() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool has_avx512 =
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  // The functions that name the kernels are compiled for their set too: calling one needs the set.
  static const InstructionSet kSets[] = {
      {"avx512", has_avx512 ? avx512::kernels() : Kernels{}, has_avx512},
      {"avx2", has_avx2 ? avx2::kernels() : Kernels{}, has_avx2},
      {"scalar", scalar::kernels(), true},
  };
#elif defined(__aarch64__)
  static const InstructionSet kSets[] = {{"neon", scalar::kernels(), true}};
#else
  static const InstructionSet kSets[] = {{"scalar", scalar::kernels(), true}};
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
  Grid& grid = bins.grid;
  if (edges.size() <= kMaxCuts) {
    grid.n_cuts = static_cast<i32>(edges.size());
    std::copy(edges.begin(), edges.end(), grid.cuts);
    return bins;
  }
  const auto is_inner = [](f64 edge) { return std::abs(edge) < std::numeric_limits<f64>::max() / 4; };
  const auto first = std::find_if(edges.begin(), edges.end(), is_inner);
  const auto last = std::find_if(edges.rbegin(), edges.rend(), is_inner);
  const f64 width = first == edges.end() ? 0 : *last - *first;
  grid.kind = GridKind::kLinear;
  grid.n_cells = static_cast<i32>(std::min<std::size_t>(4 * edges.size(), 60'000));
  grid.origin = width > 0 ? *first : 0;
  grid.scale = width > 0 ? std::min(grid.n_cells / width, 1e300) : 1;
  const f64 nothing = std::numeric_limits<f64>::quiet_NaN();  // no value reaches it
  bins.guide.assign(kSpecials, {nothing, kNan, 0});
  std::size_t edge = 0;
  for (i32 cell = 0; cell < grid.n_cells + 2; ++cell) {
    const std::size_t before = edge;
    while (edge < edges.size() && linear_cell(edges[edge], grid) <= cell) ++edge;
    const i32 below = kSpecials + static_cast<i32>(before);
    bins.guide.push_back(before == edge ? GuideCell{nothing, below, 0}
                                        : GuideCell{edges[before], below, static_cast<i32>(edge - before) - 1});
  }
  bins.edges = std::move(edges);
  return bins;
}

namespace {

// Turns slots of the guide into those of the edges.
template <typename T>
void follow_guide(const NumericBins& bins, const T* values, i64 n, u16* slots) noexcept {
  const GuideCell* guide = bins.guide.data();
  for (i64 i = 0; i < n; ++i) {
    const i32 slot = guided_slot(to_double(values[i]), guide[slots[i]], bins.edges.data());
    slots[i] = static_cast<u16>(slot);
  }
}

}  // namespace

template <typename T>
Encoded encode(const NumericBins& bins, std::span<const T> values, std::span<u16> slots, Tally tally) noexcept {
  const EncodeGrid<T> encode_grid =
      std::get<EncodeGrid<T>>(chosen().load(std::memory_order_relaxed)->kernels.encode_grid);
  const i64 n = static_cast<i64>(values.size());
  Encoded encoded;
  if (bins.edges.empty()) {
    encoded.range = encode_grid(bins.grid, values.data(), n, slots.data(), tally);
  } else {
    encoded.range = encode_grid(bins.grid, values.data(), n, slots.data(), {});
    follow_guide(bins, values.data(), n, slots.data());
    if (tally) tally_slots(slots.data(), n, tally);
  }
  constexpr f64 kLargest = std::numeric_limits<f64>::max();
  encoded.exact = encoded.range.low >= -kLargest && encoded.range.high <= kLargest;
  for (const f64 sentinel : bins.sentinels) {
    if (sentinel < encoded.range.low || sentinel > encoded.range.high) continue;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (to_double(values[i]) != sentinel) continue;
      if (tally) tally.move(slots[i], kSentinel);
      slots[i] = kSentinel;
      encoded.exact = false;
    }
  }
  return encoded;
}

template Encoded encode(const NumericBins&, std::span<const f64>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const float>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const Half>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::int8_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::int16_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::int32_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::int64_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::uint8_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::uint16_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::uint32_t>, std::span<u16>, Tally) noexcept;
template Encoded encode(const NumericBins&, std::span<const std::uint64_t>, std::span<u16>, Tally) noexcept;

Range counted_range(std::span<const f64> values, std::span<const u16> slots) noexcept {
  const auto& kernels = chosen().load(std::memory_order_relaxed)->kernels;
  return kernels.counted_range(values.data(), slots.data(), static_cast<i64>(slots.size()));
}

}  // namespace tidegauge
