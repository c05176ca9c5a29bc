#include "arrow/bind.hpp"

#include "errors.hpp"
#include "window/fill.hpp"
#include "window/outcomes.hpp"
#include "window/pair_index.hpp"
#include "window/read_cells.hpp"

namespace tidegauge {
namespace {

FillColumn fill_column(const Batch& batch, const py::tuple& spec) {
  FillColumn column;
  const auto content = spec[0].cast<std::string>();
  column.content = content == "categories" ? Content::kCategories
                   : content == "times"    ? Content::kTimes
                                           : Content::kNumbers;
  column.source = batch.find(spec[1].cast<std::string>());
  column.block = spec[2].cast<i32>();
  if (column.content == Content::kCategories) {
    column.categories = spec[3].cast<Vocabulary*>();
    column.sentinels = spec[4].cast<const Vocabulary*>();
  } else {
    column.bins = spec[3].cast<const NumericBins*>();
  }
  return column;
}

void add_outcomes(Cells& self, const std::string& task, const py::dict& blocks, const Array<i32>& cells,
                  const py::dict& rows) {
  const auto labels = rows["labels"].cast<Array<f64>>(), values = rows["values"].cast<Array<f64>>(),
             weights = rows["weights"].cast<Array<f64>>();
  const auto decisions = rows["decisions"].cast<Array<i32>>();
  const auto signs = rows["signs"].cast<Array<std::int8_t>>();
  const auto edges = blocks["score_edges"].cast<Array<f64>>();
  const auto n_sets = static_cast<i32>(labels.size() == 0 ? 1 : cells.size() / labels.size());
  const OutcomeRows r{n_sets, view(cells), view(labels), view(decisions), view(values), view(weights), view(signs)};
  const OutcomeBlocks b{blocks["traffic"].cast<i32>(),      blocks["first"].cast<i32>(),
                        blocks["n_classes"].cast<i32>(),    view(edges),
                        blocks["label_center"].cast<f64>(), blocks["label_bins"].cast<const NumericBins*>()};
  const py::gil_scoped_release unlocked;
  (task == "binary" ? add_binary : task == "multiclass" ? add_multiclass : add_regression)(self, b, r);
}

}  // namespace

void bind_window(py::module_& m) {
  using namespace pybind11::literals;
  const auto cells_ = py::arg("cells").noconvert(), rows_ = py::arg("rows").noconvert();

  py::class_<PairIndex>(m, "PairIndex", "Codes of pairs of codes.")
      .def(py::init<>())
      .def(
          "intern",
          [](PairIndex& self, const Array<i32>& first, const Array<i32>& second) {
            auto codes = make_array<i32>({first.size()});
            const auto a = view(first), b = view(second);
            const auto out = mutable_view(codes);
            const py::gil_scoped_release unlocked;
            self.intern(a, b, out);
            return codes;
          },
          py::arg("first").noconvert(), py::arg("second").noconvert(), "Codes of pairs, given when new.")
      .def_property_readonly("pairs", &PairIndex::pairs, "All pairs, by code.");

  py::class_<Cells>(m, "Cells", "The matrix of sums: a row a (pane, segment), a block of counts a column.")
      .def(py::init([](std::vector<i32> n_slots, i32 n_sums) { return Cells(CellLayout{std::move(n_slots), n_sums}); }),
           "n_slots"_a, "n_sums"_a)
      .def("__len__", &Cells::size)
      .def_property_readonly("n_bytes", &Cells::n_bytes, "Memory held, in bytes.")
      .def("widen", &Cells::widen, "block"_a, "n_slots"_a, "Give a block more slots at its end.")
      .def(
          "keys",
          [](const Cells& self) {
            auto keys = make_array<i64>({self.size(), 2});
            auto* out = keys.mutable_data();
            for (i32 cell = 0; cell < self.size(); ++cell)
              *out++ = self[cell].key.pane, *out++ = self[cell].key.segment;
            return keys;
          },
          "(pane, segment) of every cell.")
      .def(
          "locate",
          [](Cells& self, const Array<i64>& times, const Array<i32>& groups, const Array<i64>& segments,
             i64 pane_width) {
            const auto n_sets = static_cast<i32>(segments.shape(1));
            auto cells = make_array<i32>({n_sets, times.size()});
            const auto t = view(times), s = view(segments);
            const auto g = view(groups);
            const auto out = mutable_view(cells);
            const py::gil_scoped_release unlocked;
            self.locate(t, g, s, {pane_width, n_sets, out});
            return cells;
          },
          py::arg("times").noconvert(), py::arg("groups").noconvert(), py::arg("segments").noconvert(), "pane_width"_a,
          "Cells of rows, made when new.")
      .def(
          "fill",
          [](Cells& self, const Batch& batch, const py::list& columns, i64 start, const Array<i32>& cells,
             i32 n_threads) {
            std::vector<FillColumn> specs;
            for (const auto& column : columns) specs.push_back(fill_column(batch, column.cast<py::tuple>()));
            const FillRows rows{start, cells.shape(1), static_cast<i32>(cells.shape(0)), view(cells)};
            if (start < 0 || start + rows.n_rows > batch.n_rows()) throw py::index_error("rows outside the batch");
            const py::gil_scoped_release unlocked;
            fill(self, batch, specs, rows, n_threads);
          },
          "batch"_a, "columns"_a, "start"_a, cells_, "n_threads"_a, "Count columns into cells.")
      .def("add_outcomes", &add_outcomes, "task"_a, "blocks"_a, cells_, "rows"_a, "Count labelled predictions.")
      .def(
          "counts",
          [](const Cells& self, i32 block, const Array<i32>& cells, const Array<i32>& rows, i64 n_rows,
             const Array<i32>& map, i64 width) {
            auto counts = make_array<i64>({n_rows, width});
            const CellRows chosen{view(cells), view(rows)};
            const auto slots = view(map);
            const auto out = mutable_view(counts);
            const py::gil_scoped_release unlocked;
            read_counts(self, block, chosen, slots, width, out);
            return counts;
          },
          "block"_a, cells_, rows_, "n_rows"_a, py::arg("map").noconvert(), "width"_a,
          "Counts of a block, cells summed into rows.")
      .def(
          "sums",
          [](const Cells& self, const Array<i32>& cells, const Array<i32>& rows, i64 n_rows) {
            auto sums = make_array<f64>({n_rows, self.layout().n_sums});
            const CellRows chosen{view(cells), view(rows)};
            const auto out = mutable_view(sums);
            const py::gil_scoped_release unlocked;
            read_sums(self, chosen, out);
            return sums;
          },
          cells_, rows_, "n_rows"_a, "Exact sums, rounded once.")
      .def(
          "extremes",
          [](const Cells& self, i32 block, const Array<i32>& cells, const Array<i32>& rows, i64 n_rows) {
            auto extremes = make_array<f64>({n_rows, 2});
            const CellRows chosen{view(cells), view(rows)};
            const auto out = mutable_view(extremes);
            const py::gil_scoped_release unlocked;
            read_extremes(self, block, chosen, out);
            return extremes;
          },
          "block"_a, cells_, rows_, "n_rows"_a, "Smallest and largest finite value.")
      .def(
          "entries",
          [](const Cells& self, i32 block) {
            const Entries entries = entries_of(self, block);
            return py::make_tuple(wrap(entries.cells), wrap(entries.slots), wrap(entries.counts));
          },
          "block"_a, "All counts that are not zero: cell, slot, count.")
      .def(
          "add_entries",
          [](Cells& self, i32 block, const Array<i32>& cells, const Array<i32>& slots, const Array<i64>& counts) {
            add_entries(self, block, view(cells), view(slots), view(counts));
          },
          "block"_a, cells_, py::arg("slots").noconvert(), py::arg("counts").noconvert(), "Add such counts.")
      .def(
          "limbs",
          [](const Cells& self) {
            auto limbs = make_array<i64>({self.size(), self.layout().n_sums, kLimbs});
            read_limbs(self, mutable_view(limbs));
            return limbs;
          },
          "Exact sums as integers.")
      .def(
          "add_limbs",
          [](Cells& self, const Array<i32>& cells, const Array<i64>& limbs) {
            add_limbs(self, view(cells), view(limbs));
          },
          cells_, py::arg("limbs").noconvert(), "Add such sums.")
      .def(
          "add_extremes",
          [](Cells& self, i32 block, const Array<i32>& cells, const Array<f64>& extremes) {
            const auto c = view(cells);
            const auto e = view(extremes);
            if (e.size() != 2 * c.size()) throw DataError("stored extremes do not fit the layout");
            for (std::size_t i = 0; i < c.size(); ++i)
              self[c[i]].extremes[static_cast<std::size_t>(block)].merge({e[2 * i], e[2 * i + 1]});
          },
          "block"_a, cells_, py::arg("extremes").noconvert(), "Widen extremes.");
}

}  // namespace tidegauge
