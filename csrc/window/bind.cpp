#include "arrow/bind.hpp"

#include "errors.hpp"
#include "window/fill.hpp"
#include "window/outcomes.hpp"

namespace tidegauge {
namespace {

using Cells32 = Array<i32>;

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

// Sums cells into rows: target[i] is the row that cell[i] belongs to.
template <typename Add>
void for_each_cell(std::span<const i32> cells, std::span<const i32> targets, Add&& add) {
  for (std::size_t i = 0; i < cells.size(); ++i) add(cells[i], static_cast<std::size_t>(targets[i]));
}

Array<i64> read_counts(const Cells& self, i32 block, const Cells32& cells, const Cells32& targets, i64 n_rows,
                       const Cells32& map, i32 n_out) {
  auto counts = make_array<i64>({n_rows, n_out});
  const auto c = view(cells), t = view(targets), slots = view(map);
  const auto out = mutable_view(counts);
  const py::gil_scoped_release unlocked;
  std::fill(out.begin(), out.end(), 0);
  const auto width = static_cast<std::size_t>(n_out);
  for_each_cell(c, t, [&](i32 cell, std::size_t row) {
    self[cell].blocks[static_cast<std::size_t>(block)].add_to(out.subspan(row * width, width), slots);
  });
  return counts;
}

Array<f64> read_sums(const Cells& self, const Cells32& cells, const Cells32& targets, i64 n_rows) {
  const auto n_sums = static_cast<std::size_t>(self.layout().n_sums);
  auto sums = make_array<f64>({n_rows, static_cast<i64>(n_sums)});
  const auto c = view(cells), t = view(targets);
  const auto out = mutable_view(sums);
  const py::gil_scoped_release unlocked;
  std::vector<std::array<i64, kLimbs>> limbs(static_cast<std::size_t>(n_rows) * n_sums);
  for_each_cell(c, t, [&](i32 cell, std::size_t row) {
    for (std::size_t sum = 0; sum < self[cell].sums.size(); ++sum) {
      for (std::size_t limb = 0; limb < kLimbs; ++limb) limbs[row * n_sums + sum][limb] += self[cell].sums[sum][limb];
    }
  });
  for (std::size_t i = 0; i < limbs.size(); ++i) out[i] = round_sum(limbs[i]);
  return sums;
}

Array<f64> read_extremes(const Cells& self, i32 block, const Cells32& cells, const Cells32& targets, i64 n_rows) {
  auto extremes = make_array<f64>({n_rows, 2});
  const auto c = view(cells), t = view(targets);
  const auto out = mutable_view(extremes);
  const py::gil_scoped_release unlocked;
  std::vector<Extremes> rows(static_cast<std::size_t>(n_rows));
  for_each_cell(
      c, t, [&](i32 cell, std::size_t row) { rows[row].merge(self[cell].extremes[static_cast<std::size_t>(block)]); });
  for (std::size_t row = 0; row < rows.size(); ++row)
    out[2 * row] = rows[row].minimum, out[2 * row + 1] = rows[row].maximum;
  return extremes;
}

py::tuple entries_of(const Cells& self, i32 block) {
  std::vector<i32> cells, slots;
  std::vector<i64> counts, scratch(static_cast<std::size_t>(self.n_slots(block)));
  for (i32 cell = 0; cell < self.size(); ++cell) {
    self[cell].blocks[static_cast<std::size_t>(block)].for_each(
        scratch, [&](i32 slot, i64 count) { cells.push_back(cell), slots.push_back(slot), counts.push_back(count); });
  }
  return py::make_tuple(wrap(cells), wrap(slots), wrap(counts));
}

void add_entries(Cells& self, i32 block, const Cells32& cells, const Cells32& slots, const Array<i64>& counts) {
  const auto c = view(cells), s = view(slots);
  const auto n = view(counts);
  const i32 width = self.n_slots(block);
  for (std::size_t i = 0; i < c.size(); ++i) {
    if (c[i] < 0 || c[i] >= self.size() || s[i] < 0 || s[i] >= width)
      throw DataError("a stored count lies outside the layout");
  }
  const py::gil_scoped_release unlocked;
  for (std::size_t i = 0; i < c.size(); ++i) self.count(c[i], block, s[i], n[i]);
}

Array<i64> limbs_of(const Cells& self) {
  auto limbs = make_array<i64>({self.size(), self.layout().n_sums, kLimbs});
  auto* out = limbs.mutable_data();
  const auto width = static_cast<std::size_t>(self.layout().n_sums) * kLimbs;
  std::fill_n(out, static_cast<std::size_t>(limbs.size()), 0);
  for (i32 cell = 0; cell < self.size(); ++cell, out += width) {
    for (std::size_t sum = 0; sum < self[cell].sums.size(); ++sum)
      std::copy_n(self[cell].sums[sum].data(), kLimbs, out + sum * kLimbs);
  }
  return limbs;
}

void add_limbs(Cells& self, const Cells32& cells, const Array<i64>& limbs) {
  const auto n_sums = static_cast<std::size_t>(self.layout().n_sums);
  const auto c = view(cells);
  const auto values = view(limbs);
  if (values.size() != c.size() * n_sums * kLimbs) throw DataError("stored sums do not fit the layout");
  for (std::size_t i = 0; i < c.size(); ++i) {
    const auto row = values.subspan(i * n_sums * kLimbs, n_sums * kLimbs);
    if (std::all_of(row.begin(), row.end(), [](i64 limb) { return limb == 0; })) continue;
    auto& sums = self[c[i]].sums;
    sums.resize(n_sums);
    for (std::size_t j = 0; j < row.size(); ++j) sums[j / kLimbs][j % kLimbs] += row[j];
  }
}

void add_outcomes(Cells& self, const std::string& task, const py::dict& blocks, const Cells32& cells,
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
          [](Cells& self, const Array<i64>& times, const Cells32& groups, const Array<i64>& segments, i64 pane_width) {
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
          [](Cells& self, const Batch& batch, const py::list& columns, i64 start, const Cells32& cells, i32 n_threads) {
            std::vector<FillColumn> specs;
            for (const auto& column : columns) specs.push_back(fill_column(batch, column.cast<py::tuple>()));
            const FillRows rows{start, cells.shape(1), static_cast<i32>(cells.shape(0)), view(cells)};
            if (start < 0 || start + rows.n_rows > batch.n_rows()) throw py::index_error("rows outside the batch");
            const py::gil_scoped_release unlocked;
            fill(self, batch, specs, rows, n_threads);
          },
          "batch"_a, "columns"_a, "start"_a, py::arg("cells").noconvert(), "n_threads"_a, "Count columns into cells.")
      .def("add_outcomes", &add_outcomes, "task"_a, "blocks"_a, py::arg("cells").noconvert(), "rows"_a,
           "Count labelled predictions.")
      .def("counts", &read_counts, "block"_a, py::arg("cells").noconvert(), py::arg("targets").noconvert(), "n_rows"_a,
           py::arg("map").noconvert(), "n_out"_a, "Counts of a block, cells summed into rows.")
      .def("sums", &read_sums, py::arg("cells").noconvert(), py::arg("targets").noconvert(), "n_rows"_a,
           "Exact sums, rounded once.")
      .def("extremes", &read_extremes, "block"_a, py::arg("cells").noconvert(), py::arg("targets").noconvert(),
           "n_rows"_a, "Smallest and largest finite value.")
      .def("entries", &entries_of, "block"_a, "All counts that are not zero: cell, slot, count.")
      .def("add_entries", &add_entries, "block"_a, py::arg("cells").noconvert(), py::arg("slots").noconvert(),
           py::arg("counts").noconvert(), "Add such counts.")
      .def("limbs", &limbs_of, "Exact sums as integers.")
      .def("add_limbs", &add_limbs, py::arg("cells").noconvert(), py::arg("limbs").noconvert(), "Add such sums.")
      .def(
          "add_extremes",
          [](Cells& self, i32 block, const Cells32& cells, const Array<f64>& extremes) {
            const auto c = view(cells);
            const auto e = view(extremes);
            if (e.size() != 2 * c.size()) throw DataError("stored extremes do not fit the layout");
            for (std::size_t i = 0; i < c.size(); ++i)
              self[c[i]].extremes[static_cast<std::size_t>(block)].merge({e[2 * i], e[2 * i + 1]});
          },
          "block"_a, py::arg("cells").noconvert(), py::arg("extremes").noconvert(), "Widen extremes.");
}

}  // namespace tidegauge
