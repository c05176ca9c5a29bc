#include "window/bind.hpp"

#include "errors.hpp"
#include "estimate/calibrator.hpp"
#include "estimate/estimates.hpp"

namespace tidegauge {
namespace {

py::tuple fit(const Array<f64>& scores, const Array<f64>& labels, const Array<f64>& weights) {
  const auto s = view(scores), y = view(labels), w = view(weights);
  if (s.size() != y.size() || s.size() != w.size()) throw DataError("a label and a weight for each score are wanted");
  Knots knots;
  {
    const py::gil_scoped_release unlocked;
    knots = fit_isotonic(s, y, w);
  }
  return py::make_tuple(wrap(knots.scores), wrap(knots.chances));
}

void add_rows(Cells& cells, const py::dict& blocks, const py::tuple& places, const Outcomes& rows,
              const std::string& stage) {
  const auto edges = blocks["score_edges"].cast<Array<f64>>();
  const auto knots = blocks["calibrators"].cast<std::vector<std::pair<Array<f64>, Array<f64>>>>();
  const auto segments = places[0].cast<Array<i64>>(), panes = places[1].cast<Array<i64>>();
  const OutcomePlaces p{view(segments), static_cast<i32>(segments.shape(1)), panes_of(panes)};
  const auto task = blocks["task"].cast<std::string>();
  const Task kind = task == "binary" ? Task::kBinary : task == "multiclass" ? Task::kMulticlass : Task::kRegression;
  const auto number = [&](const char* name) { return blocks[name].cast<i32>(); };
  EstimateBlocks b{kind, number("traffic"), number("first"), number("n_classes"), number("source"), view(edges), {},
                   {}};
  for (const auto& [scores, chances] : knots) {
    b.scores.push_back(view(scores));
    b.chances.push_back(view(chances));
  }
  const Stage s = stage == "labelled" ? Stage::kLabelled : Stage::kPredicted;
  const py::gil_scoped_release unlocked;
  add_estimates(cells, b, p, rows, s);
}

Array<f64> calibrate(const Array<f64>& scores, const Array<f64>& knots, const Array<f64>& chances) {
  auto result = make_array<f64>({scores.size()});
  const auto s = view(scores), x = view(knots), y = view(chances);
  const auto out = mutable_view(result);
  const py::gil_scoped_release unlocked;
  const Calibrator calibrator(x, y, s.size());
  std::transform(s.begin(), s.end(), out.begin(), [&](f64 score) { return calibrator.chance_of(score); });
  return result;
}

}  // namespace

void bind_estimate(py::module_& m) {
  using namespace pybind11::literals;
  const auto exact = [](const char* name) { return py::arg(name).noconvert(); };

  m.def("fit_isotonic", &fit, exact("scores"), exact("labels"), exact("weights"),
        "Knots (scores, chances) of the monotone function nearest to labels at ascending scores.");
  m.def("calibrate", &calibrate, exact("scores"), exact("knots"), exact("chances"),
        "Chance that each score stands for.");
  m.def("add_estimates", &add_rows, "cells"_a, "blocks"_a, "places"_a, "rows"_a, "stage"_a,
        "Count what predictions, or labelled ones, are expected to turn out as.");
  m.attr("CHANCE_UNITS") = static_cast<i64>(kChanceUnits);
}

}  // namespace tidegauge
