// Turns numbers of any width into fine-bin slots, counts them on the way, and finds their range, reading each once.
// Costs about 0.7 ns a float64 with AVX-512, 0.85 with AVX2, of which 0.3 are counting; guided edges cost 1 ns more.
// Deterministic: element-wise IEEE arithmetic without contraction gives the same slots on every instruction set.
#pragma once

#include <span>
#include <tuple>
#include <vector>

#include "histogram/bins.hpp"
#include "histogram/numbers.hpp"
#include "histogram/tally.hpp"

namespace tidegauge {

// A grid, or more exact edges than it has cuts, found through a guide table.
struct NumericBins {
  Grid grid;                     // of the bins; the guide where there are edges
  std::vector<f64> edges;        // ascending; empty when the grid serves
  std::vector<GuideCell> guide;  // [kSpecials + n_cells + 2] by slot of the guide
  std::vector<f64> sentinels;    // values that mean "missing"

  [[nodiscard]] i32 n_slots() const noexcept;
};

[[nodiscard]] NumericBins with_edges(std::vector<f64> edges);

struct Encoded {
  Range range;         // of all values, NaN left out
  bool exact = false;  // no value in it is infinite or a sentinel
};

// Slots of values[n], sentinels included, nulls not; adds them to the tally where there is one. slots[n]
template <typename T>
Encoded encode(const NumericBins& bins, std::span<const T> values, std::span<u16> slots, Tally tally = {}) noexcept;

// Range of the finite values[n] whose slots[n] say that they count.
[[nodiscard]] Range counted_range(std::span<const f64> values, std::span<const u16> slots) noexcept;

// Name of the instruction set in use: "avx512", "avx2", "neon" or "scalar".
[[nodiscard]] const char* instruction_set() noexcept;

// Restricts the choice to what `name` needs; for tests and benchmarks. False when unknown or not available.
[[nodiscard]] bool use_instruction_set(const char* name) noexcept;

// The loops of one instruction set.
template <typename T>
using EncodeGrid = Range (*)(const Grid& grid, const T* values, i64 n, u16* slots, Tally tally);
template <typename... Ts>
using EncodeGrids = std::tuple<EncodeGrid<Ts>...>;

struct Kernels {
  EachNumber<EncodeGrids> encode_grid;
  Range (*counted_range)(const f64* values, const u16* slots, i64 n);
};

namespace scalar {
Kernels kernels();
}
namespace avx2 {
Kernels kernels();
}
namespace avx512 {
Kernels kernels();
}

}  // namespace tidegauge
