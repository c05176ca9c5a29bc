#include "arrow/bind.hpp"

#include <algorithm>
#include <bit>
#include <memory>
#include <numeric>

#include "errors.hpp"
#include "histogram/encode.hpp"
#include "histogram/slot.hpp"

namespace tidegauge {
namespace {

// Doubles in order, as integers in order, so that a bisection can walk all of them.
f64 from_rank(i64 rank) { return std::bit_cast<f64>(rank < 0 ? rank ^ 0x7fffffffffffffffLL : rank); }
i64 to_rank(f64 x) {
  const auto bits = std::bit_cast<i64>(x);
  return bits < 0 ? bits ^ 0x7fffffffffffffffLL : bits;
}

// About where a cell begins; the search below makes it exact.
f64 guess_edge(i32 cell, const Grid& grid) {
  const auto power = [&](i32 step) {
    return std::bit_cast<f64>(static_cast<i64>(static_cast<u32>(step) << grid.shift) << 32);
  };
  if (grid.kind == GridKind::kLinear) return grid.origin + (cell - 1) / grid.scale;
  if (grid.kind == GridKind::kLog) return power(grid.base + cell - 1);
  const i32 half = grid.n_cells / 2;
  const i32 step = cell > half ? cell - half - 1 : half - cell + 1;
  const f64 distance = power(grid.base + step) - grid.scale;
  return cell > half ? grid.origin + distance : grid.origin - distance;
}

// Smallest double of a cell: gallops from the guess, then bisects.
f64 cell_edge(i32 cell, const Grid& grid) {
  const i64 first = to_rank(-std::numeric_limits<f64>::infinity()),
            last = to_rank(std::numeric_limits<f64>::infinity());
  const auto reached = [&](i64 rank) {
    return rank > last || (rank >= first && cell_of(from_rank(rank), grid) >= cell);
  };
  constexpr i64 kLongest = i64{1} << 60;  // no step, and no difference below, leaves 64 bits
  const f64 guess = guess_edge(cell, grid);
  i64 low = guess == guess ? std::clamp(to_rank(guess), first, last) : 0;
  i64 high = low;
  for (i64 step = 1; reached(low) && low >= first; step = std::min(4 * step, kLongest)) {
    low = low < first + step ? first - 1 : low - step;
  }
  for (i64 step = 1; !reached(high); step = std::min(4 * step, kLongest)) {
    high = high > last - step ? last + 1 : high + step;
  }
  while (low + 1 < high) {
    const i64 middle = std::midpoint(low, high);
    (reached(middle) ? high : low) = middle;
  }
  return from_rank(std::clamp(high, first, last));
}

// Smallest double of each ordered bin; a bin that nothing falls into has the edge of the next.
// A slot is the number of edges at or below the value, so the edges of cells and the cuts need only be sorted.
std::vector<f64> lower_edges(const NumericBins& bins) {
  std::vector<f64> edges = bins.edges;
  if (edges.empty()) {
    edges.assign(bins.grid.cuts, bins.grid.cuts + bins.grid.n_cuts);
    const i32 n_cells = bins.grid.kind == GridKind::kCuts ? 0 : bins.grid.n_cells + 1;
    for (i32 cell = 1; cell <= n_cells; ++cell) edges.push_back(cell_edge(cell, bins.grid));
  }
  edges.push_back(-std::numeric_limits<f64>::infinity());
  std::sort(edges.begin(), edges.end());
  return edges;
}

std::unique_ptr<NumericBins> make_grid(const std::string& kind, const py::dict& numbers, const std::vector<f64>& cuts) {
  auto bins = std::make_unique<NumericBins>();
  Grid& grid = bins->grid;
  grid.kind = kind == "linear"   ? GridKind::kLinear
              : kind == "log"    ? GridKind::kLog
              : kind == "symlog" ? GridKind::kSymlog
                                 : GridKind::kCuts;
  grid.origin = numbers["origin"].cast<f64>();
  grid.scale = numbers["scale"].cast<f64>();
  grid.shift = numbers["shift"].cast<i32>();
  grid.base = numbers["base"].cast<i32>();
  grid.n_cells = numbers["n_cells"].cast<i32>();
  if (grid.kind == GridKind::kCuts && kind != "cuts") throw SchemaError("unknown kind of grid '" + kind + "'");
  if (cuts.size() > kMaxCuts || grid.n_cells < 0 || grid.n_cells > 60'000 || grid.shift < 0 || grid.shift > 31) {
    throw SchemaError("a grid holds at most 60000 cells and 16 cuts");
  }
  grid.n_cuts = static_cast<i32>(cuts.size());
  std::copy(cuts.begin(), cuts.end(), grid.cuts);
  return bins;
}

}  // namespace

void bind_histogram(py::module_& m) {
  using namespace pybind11::literals;

  py::class_<NumericBins>(m, "NumericBins", "The fine bins of a numeric column.")
      .def_static("grid", &make_grid, "kind"_a, "numbers"_a, "cuts"_a, "A linear, log or symlog grid split at cuts.")
      .def_static(
          "edges",
          [](const std::vector<f64>& edges) {
            if (edges.empty() || edges.size() > 60'000) throw SchemaError("between 1 and 60000 edges are wanted");
            return std::make_unique<NumericBins>(with_edges(edges));
          },
          "edges"_a, "Exact edges.")
      .def_readwrite("sentinels", &NumericBins::sentinels, "Values that mean missing.")
      .def_property_readonly("n_slots", &NumericBins::n_slots, "Five special slots and the ordered bins.")
      .def(
          "lower_edges", [](const NumericBins& self) { return wrap(lower_edges(self)); },
          "Smallest double of each ordered bin.")
      .def(
          "encode",
          [](const NumericBins& self, const Array<f64>& values) {
            auto slots = make_array<std::uint16_t>({values.size()});
            const auto v = view(values);
            const auto out = mutable_view(slots);
            const py::gil_scoped_release unlocked;
            encode(self, v, out);
            return slots;
          },
          py::arg("values").noconvert(), "Slot of every value.");

  m.def("upper_half", &upper_half, "x"_a, "Upper 32 bits of a double.");
  m.def("instruction_set", &instruction_set, "Instruction set the row loops run on.");
  m.def("use_instruction_set", &use_instruction_set, "name"_a,
        "Choose another that this processor has; False when it has not.");
  m.attr("SPECIALS") = kSpecials;
  m.attr("MAX_CUTS") = kMaxCuts;
}

}  // namespace tidegauge
