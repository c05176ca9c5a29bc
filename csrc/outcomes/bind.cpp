#include "window/bind.hpp"

#include "errors.hpp"
#include "histogram/encode.hpp"
#include "outcomes/outcomes.hpp"

namespace tidegauge {
namespace {

// The columns of rows, each [n]: what a dict of arrays holds of them.
template <typename T, typename Field>
Array<T> field_of(const std::vector<Outcome>& rows, Field Outcome::* field) {
  auto out = make_array<T>({static_cast<i64>(rows.size())});
  for (std::size_t i = 0; i < rows.size(); ++i) out.mutable_data()[i] = static_cast<T>(rows[i].*field);
  return out;
}

// Calls visit(name, rows) for each kind of rows.
template <typename State, typename Visit>
void for_each_kind(State& state, Visit&& visit) {
  visit("", state.rows), visit("pair_", state.pairs), visit("arrival_", state.arrivals);
}

py::dict columns(const Outcomes& self) {
  py::dict out;
  const auto put = [&](const std::string& name, const py::object& array) { out[py::str(name)] = array; };
  for_each_kind(self, [&](const std::string& kind, const std::vector<Outcome>& rows) {
    put(kind + "times", field_of<i64>(rows, &Outcome::time)), put(kind + "known", field_of<i64>(rows, &Outcome::known));
    put(kind + "labels", field_of<f64>(rows, &Outcome::label));
    put(kind + "weights", field_of<f64>(rows, &Outcome::weight));
    put(kind + "groups", field_of<i32>(rows, &Outcome::group));
    put(kind + "decisions", field_of<std::int16_t>(rows, &Outcome::decision));
    put(kind + "signs", field_of<std::int8_t>(rows, &Outcome::sign));
    put(kind + "delays", field_of<std::uint8_t>(rows, &Outcome::delay));
  });
  put("values", wrap(self.values)), put("pair_values", wrap(self.pair_values)), put("champions", wrap(self.champions));
  return out;
}

Outcomes make_outcomes(const py::dict& given, bool has_weights) {
  Outcomes out;
  out.has_weights = has_weights;
  for_each_kind(out, [&](const std::string& kind, std::vector<Outcome>& rows) {
    const auto of = [&](const char* name) { return kind + name; };
    const auto times = column<i64>(given, of("times").c_str()), known = column<i64>(given, of("known").c_str());
    const auto labels = column<f64>(given, of("labels").c_str()), weights = column<f64>(given, of("weights").c_str());
    const auto groups = column<i32>(given, of("groups").c_str());
    const auto decisions = column<std::int16_t>(given, of("decisions").c_str());
    const auto signs = column<std::int8_t>(given, of("signs").c_str());
    const auto delays = column<std::uint8_t>(given, of("delays").c_str());
    const std::size_t n = times.size();
    const auto fits = [n](const auto&... each) { return ((each.size() == n) && ...); };
    if (!fits(known, labels, weights, groups, decisions, signs, delays))
      throw DataError("outcomes are columns of one length");
    for (std::size_t i = 0; i < n; ++i)
      rows.push_back({times[i], known[i], labels[i], weights[i], groups[i], decisions[i], signs[i], delays[i]});
  });
  out.values = column<f64>(given, "values");
  out.pair_values = column<f64>(given, "pair_values");
  out.champions = column<std::int16_t>(given, "champions");
  const auto fit = [](const std::vector<f64>& values, std::size_t n) {
    return n == 0 ? values.empty() : values.size() % n == 0;
  };
  if (!fit(out.values, out.rows.size()) || !fit(out.pair_values, 2 * out.pairs.size()) ||
      out.champions.size() != out.pairs.size())
    throw DataError("outcomes are columns of one length");
  return out;
}

OutcomePlaces places_of(const Array<i64>& segments, const Array<i64>& panes) {
  return {view(segments), static_cast<i32>(segments.shape(1)), panes_of(panes)};
}

void add(Cells& cells, const std::string& task, const py::dict& blocks, const py::tuple& places,
         const Outcomes& outcomes) {
  const auto edges = blocks["score_edges"].cast<Array<f64>>();
  const auto segments = places[0].cast<Array<i64>>(), panes = places[1].cast<Array<i64>>();
  const auto number = [&](const char* name) { return blocks[name].cast<i32>(); };
  const OutcomePlaces p = places_of(segments, panes);
  const OutcomeBlocks b{number("traffic"),
                        number("delays"),
                        number("pairs"),
                        number("first"),
                        number("pair_sum"),
                        number("n_classes"),
                        view(edges),
                        blocks["label_center"].cast<f64>(),
                        blocks["label_bins"].cast<const NumericBins*>()};
  const Task kind = task == "binary" ? Task::kBinary : task == "multiclass" ? Task::kMulticlass : Task::kRegression;
  const py::gil_scoped_release unlocked;
  add_outcomes(cells, kind, b, p, outcomes);
}

void add_arrived(Cells& cells, i32 traffic_block, const py::tuple& places, const Outcomes& outcomes) {
  const auto segments = places[0].cast<Array<i64>>(), panes = places[1].cast<Array<i64>>();
  const OutcomePlaces p = places_of(segments, panes);
  const py::gil_scoped_release unlocked;
  add_arrivals(cells, traffic_block, p, outcomes);
}

}  // namespace

void bind_outcomes(py::module_& m) {
  using namespace pybind11::literals;

  py::class_<Outcomes>(m, "JoinedRows", "Labelled predictions, and pairs of them, on their way into their cells.")
      .def(py::init(&make_outcomes), "columns"_a, py::kw_only(), "weighted"_a)
      .def("__len__", [](const Outcomes& self) { return self.rows.size() + self.pairs.size() + self.arrivals.size(); })
      .def_readonly("weighted", &Outcomes::has_weights, "Whether predictions have weights.")
      .def_property_readonly("earliest", &Outcomes::earliest, "Earliest time of a prediction.")
      .def_property_readonly("latest_known", &Outcomes::latest_known, "Watermark when the last of it was learnt.")
      .def_property_readonly("n_bytes", &Outcomes::n_bytes, "Memory held, in bytes.")
      .def("columns", &columns, "Everything as arrays; what the constructor takes.")
      .def("extend", &Outcomes::extend, "other"_a, "Append other rows.")
      .def("after", &Outcomes::after, "moment"_a, "sign"_a, "What was learnt after a moment, with signs times `sign`.");
  m.def("add_outcomes", &add, "cells"_a, "task"_a, "blocks"_a, "places"_a, "rows"_a,
        "Count labelled predictions and pairs; places: (segments of each group, panes).");
  m.def("add_arrivals", &add_arrived, "cells"_a, "traffic_block"_a, "places"_a, "rows"_a,
        "Count predictions that came, but not their columns.");
}

}  // namespace tidegauge
