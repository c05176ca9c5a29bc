#include "arrow/bind.hpp"

#include <bit>
#include <memory>

#include "errors.hpp"
#include "histogram/encode.hpp"

namespace tidegauge {
namespace {

// Doubles in order, as integers in order, so that a bisection can walk all of them.
f64 from_rank(i64 rank) { return std::bit_cast<f64>(rank < 0 ? rank ^ 0x7fffffffffffffffLL : rank); }
i64 to_rank(f64 x) {
  const auto bits = std::bit_cast<i64>(x);
  return bits < 0 ? bits ^ 0x7fffffffffffffffLL : bits;
}

// Smallest double of each ordered bin; a bin that nothing falls into has the edge of the next.
std::vector<f64> lower_edges(const NumericBins& bins) {
  const f64 infinity = std::numeric_limits<f64>::infinity();
  const i32 n_bins = bins.n_slots() - kSpecials;
  std::vector<f64> edges(static_cast<std::size_t>(n_bins));
  for (i32 bin = 0; bin < n_bins; ++bin) {
    i64 low = to_rank(-infinity);
    i64 high = to_rank(infinity) + 1;
    while (low < high) {
      const i64 middle = low + (high - low) / 2;
      const f64 x = from_rank(middle);
      std::uint16_t slot;
      NumericBins plain = {bins.grid, bins.edges, bins.guide, bins.guide_grid, {}};
      encode(plain, {&x, 1}, {&slot, 1});
      if (slot >= kSpecials + bin) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    edges[static_cast<std::size_t>(bin)] = low > to_rank(infinity) ? infinity : from_rank(low);
  }
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
