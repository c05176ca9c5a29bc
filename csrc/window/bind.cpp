#include "window/bind.hpp"

#include "errors.hpp"
#include "histogram/encode.hpp"
#include "window/fill.hpp"
#include "window/pair_index.hpp"
#include "window/read_cells.hpp"

namespace tidegauge {
namespace {

FillColumn fill_column(const Batch& batch, const py::tuple& spec) {
  const Content content = content_of(spec[0].cast<std::string>());
  const i64 source = batch.find(spec[1].cast<std::string>());
  const auto block = spec[2].cast<i32>();
  if (content != Content::kCategories) return {content, block, source, spec[3].cast<const NumericBins*>()};
  return {content, block, source, nullptr, spec[3].cast<Vocabulary*>(), spec[4].cast<const Vocabulary*>()};
}

// Allocates rows, then reads cells into them without the interpreter.
template <typename T, typename Read>
Array<T> read_rows(const Array<i32>& cells, const Array<i32>& rows, std::vector<i64> shape, Read&& read) {
  auto result = make_array<T>(std::move(shape));
  const CellRows chosen{view(cells), view(rows)};
  const auto out = mutable_view(result);
  const py::gil_scoped_release unlocked;
  read(chosen, out);
  return result;
}

Array<i64> counts(const Cells& self, i32 block, const Array<i32>& cells, const Array<i32>& rows, i64 n_rows,
                  const Array<i32>& map, i64 width) {
  const auto slots = view(map);
  return read_rows<i64>(cells, rows, {n_rows, width}, [&](const CellRows& chosen, std::span<i64> out) {
    read_counts(self, block, chosen, slots, width, out);
  });
}

Array<f64> sums(const Cells& self, const Array<i32>& cells, const Array<i32>& rows, i64 n_rows) {
  return read_rows<f64>(cells, rows, {n_rows, self.layout().n_sums},
                        [&](const CellRows& chosen, std::span<f64> out) { read_sums(self, chosen, out); });
}

Array<f64> extremes(const Cells& self, i32 block, const Array<i32>& cells, const Array<i32>& rows, i64 n_rows) {
  return read_rows<f64>(cells, rows, {n_rows, 2},
                        [&](const CellRows& chosen, std::span<f64> out) { read_extremes(self, block, chosen, out); });
}

Array<i64> keys(const Cells& self) {
  auto out = make_array<i64>({self.size(), 2});
  read_keys(self, mutable_view(out));
  return out;
}

Array<i64> limbs(const Cells& self) {
  auto out = make_array<i64>({self.size(), self.layout().n_sums, kLimbs});
  read_limbs(self, mutable_view(out));
  return out;
}

void add_sums(Cells& self, const Array<i32>& cells, const Array<i64>& found) {
  add_limbs(self, view(cells), view(found));
}

py::tuple entries(const Cells& self, i32 block) {
  const Entries found = entries_of(self, block);
  return py::make_tuple(wrap(found.cells), wrap(found.slots), wrap(found.counts));
}

Array<i32> locate(Cells& self, const Array<i64>& times, const Array<i32>& groups, const Array<i64>& segments,
                  const Array<i64>& panes) {
  const auto n_sets = static_cast<i32>(segments.shape(1));
  auto cells = make_array<i32>({n_sets, times.size()});
  const auto t = view(times), s = view(segments);
  const auto g = view(groups);
  const auto p = panes_of(panes);
  const auto out = mutable_view(cells);
  const py::gil_scoped_release unlocked;
  self.locate(t, g, s, {p, n_sets, out});
  return cells;
}

std::unique_ptr<Filler> make_filler(const Batch& batch, const py::list& columns) {
  std::vector<FillColumn> specs;
  for (const auto& column : columns) specs.push_back(fill_column(batch, column.cast<py::tuple>()));
  return std::make_unique<Filler>(batch, std::move(specs));
}

void fill_rows(Cells& self, Filler& filler, i64 start, i64 stop, const Array<i32>& cells, i32 traffic_block,
               i32 n_threads) {
  const FillRows rows{start, stop - start, static_cast<i32>(cells.shape(0)), traffic_block, view(cells)};
  const py::gil_scoped_release unlocked;
  filler.add(self, rows, n_threads);
}

Array<i32> intern(PairIndex& self, const Array<i32>& first, const Array<i32>& second) {
  auto codes = make_array<i32>({first.size()});
  self.intern(view(first), view(second), mutable_view(codes));
  return codes;
}

}  // namespace

void bind_window(py::module_& m) {
  using namespace pybind11::literals;
  const auto exact = [](const char* name) { return py::arg(name).noconvert(); };

  py::class_<PairIndex>(m, "PairIndex", "Codes of pairs of codes.")
      .def(py::init<i64, i32>(), "capacity"_a, "fallback"_a)
      .def("intern", &intern, exact("first"), exact("second"), "Codes of pairs, given when new.")
      .def("__len__", &PairIndex::size)
      .def("__getitem__", &PairIndex::at, "code"_a, "Pair of a code.");

  py::class_<Filler>(m, "Filler", "Columns of a batch on their way into cells.")
      .def(py::init(&make_filler), "batch"_a, "columns"_a, py::keep_alive<1, 2>(), py::keep_alive<1, 3>())
      .def_property_readonly("batch", &Filler::batch, "The batch.");

  py::class_<Cells>(m, "Cells", "The matrix of sums: a row a (pane, segment), a block of counts a column.")
      .def(py::init([](std::vector<i32> n_slots, i32 n_sums) { return Cells(CellLayout{std::move(n_slots), n_sums}); }),
           "n_slots"_a, "n_sums"_a)
      .def("__len__", &Cells::size)
      .def_property_readonly("n_bytes", &Cells::n_bytes, "Memory held, in bytes.")
      .def("widen", &Cells::widen, "block"_a, "n_slots"_a, "Give a block more slots at its end.")
      .def("keys", &keys, "(pane, segment) of every cell.")
      .def("locate", &locate, exact("times"), exact("groups"), exact("segments"), exact("panes"),
           "Cells of rows, made when new.")
      .def(
          "roll", [](Cells& self, const Array<i64>& panes) { self.roll(panes_of(panes)); }, exact("panes"),
          "Add cells into those of wider panes; forget those kept no longer.")
      .def("fill", &fill_rows, "filler"_a, "start"_a, "stop"_a, exact("cells"), "traffic_block"_a, "n_threads"_a,
           "Count rows and columns into cells.")
      .def("counts", &counts, "block"_a, exact("cells"), exact("rows"), "n_rows"_a, exact("map"), "width"_a,
           "Counts of a block, cells summed into rows.")
      .def("sums", &sums, exact("cells"), exact("rows"), "n_rows"_a, "Exact sums, rounded once.")
      .def("extremes", &extremes, "block"_a, exact("cells"), exact("rows"), "n_rows"_a,
           "Smallest and largest finite value.")
      .def("entries", &entries, "block"_a, "All counts that are not zero: cell, slot, count.")
      .def(
          "add_entries",
          [](Cells& self, i32 block, const Array<i32>& cells, const Array<i32>& slots, const Array<i64>& found) {
            add_entries(self, block, view(cells), view(slots), view(found));
          },
          "block"_a, exact("cells"), exact("slots"), exact("counts"), "Add such counts.")
      .def("limbs", &limbs, "Exact sums as integers.")
      .def("add_limbs", &add_sums, exact("cells"), exact("limbs"), "Add such sums.")
      .def(
          "add_extremes",
          [](Cells& self, i32 block, const Array<i32>& cells, const Array<f64>& found) {
            add_extremes(self, block, view(cells), view(found));
          },
          "block"_a, exact("cells"), exact("extremes"), "Widen extremes.");
}

}  // namespace tidegauge
