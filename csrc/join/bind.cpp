#include "arrow/bind.hpp"

#include "errors.hpp"
#include "join/join.hpp"

namespace tidegauge {
namespace {

using Keys = Array<u64>;

std::span<const Key> keys_of(const Keys& keys) {
  return {reinterpret_cast<const Key*>(keys.data()), static_cast<std::size_t>(keys.size() / 2)};
}

Keys wrap_keys(const std::vector<Key>& keys) {
  auto out = make_array<u64>({static_cast<i64>(keys.size()), 2});
  std::copy(keys.begin(), keys.end(), reinterpret_cast<Key*>(out.mutable_data()));
  return out;
}

py::dict wrap_outcomes(const Outcomes& rows) {
  py::dict out;
  out["times"] = wrap(rows.times);
  out["groups"] = wrap(rows.groups);
  out["decisions"] = wrap(rows.decisions);
  out["values"] = wrap(rows.values);
  out["weights"] = wrap(rows.weights);
  out["labels"] = wrap(rows.labels);
  out["signs"] = wrap(rows.signs);
  return out;
}

std::vector<i64> counters_of(const Account& account) {
  std::vector<i64> counters;
  for (const auto field : kAccountFields) counters.push_back(account.*field);
  return counters;
}

template <typename T>
std::vector<T> column(const py::dict& state, const char* name) {
  const auto array = state[name].cast<Array<T>>();
  return {array.data(), array.data() + array.size()};
}

std::vector<Key> key_column(const py::dict& state, const char* name) {
  const auto keys = state[name].cast<Keys>();
  const auto span = keys_of(keys);
  return {span.begin(), span.end()};
}

py::dict save(const Join& self) {
  const Join::State state = self.state();
  py::dict out;
  out["keys"] = wrap_keys(state.keys), out["early_keys"] = wrap_keys(state.early_keys);
  out["times"] = wrap(state.times), out["early_times"] = wrap(state.early_times);
  out["groups"] = wrap(state.groups), out["versions"] = wrap(state.versions), out["decisions"] = wrap(state.decisions);
  out["values"] = wrap(state.values), out["weights"] = wrap(state.weights);
  out["labels"] = wrap(state.labels), out["early_labels"] = wrap(state.early_labels);
  out["counters"] = wrap(counters_of(state.counters));
  out["watermark"] = wrap(std::vector<i64>{state.watermark});
  return out;
}

void load(Join& self, const py::dict& stored) {
  Join::State state;
  state.keys = key_column(stored, "keys"), state.early_keys = key_column(stored, "early_keys");
  state.times = column<i64>(stored, "times"), state.early_times = column<i64>(stored, "early_times");
  state.groups = column<i32>(stored, "groups"), state.versions = column<i32>(stored, "versions"),
  state.decisions = column<i32>(stored, "decisions");
  state.values = column<f64>(stored, "values"), state.weights = column<f64>(stored, "weights");
  state.labels = column<f64>(stored, "labels"), state.early_labels = column<f64>(stored, "early_labels");
  const auto counters = column<i64>(stored, "counters"), watermark = column<i64>(stored, "watermark");
  const std::size_t n = state.keys.size(), n_early = state.early_keys.size();
  const bool fits = state.times.size() == n && state.groups.size() == n && state.versions.size() == n &&
                    state.decisions.size() == n && state.weights.size() == n && state.labels.size() == n &&
                    state.values.size() == n * static_cast<std::size_t>(self.n_values()) &&
                    state.early_times.size() == n_early && state.early_labels.size() == n_early &&
                    counters.size() == std::size(kAccountFields) && watermark.size() == 1;
  if (!fits) throw DataError("the stored join is damaged: its columns differ in length");
  for (std::size_t i = 0; i < counters.size(); ++i) state.counters.*kAccountFields[i] = counters[i];
  state.watermark = watermark[0];
  self.restore(state);
}

}  // namespace

void bind_join(py::module_& m) {
  using namespace pybind11::literals;

  py::class_<Join>(m, "Join",
                   "Predictions waiting for labels, labels waiting for predictions, and the account of both.")
      .def(py::init([](i64 lateness, i32 n_values, i64 capacity) { return Join({lateness, n_values, capacity}); }),
           "lateness"_a, "n_values"_a, "capacity"_a)
      .def(
          "log",
          [](Join& self, const py::dict& rows) {
            const auto keys = rows["keys"].cast<Keys>();
            const auto times = rows["times"].cast<Array<i64>>();
            const auto groups = rows["groups"].cast<Array<i32>>(), versions = rows["versions"].cast<Array<i32>>(),
                       decisions = rows["decisions"].cast<Array<i32>>();
            const auto values = rows["values"].cast<Array<f64>>(), weights = rows["weights"].cast<Array<f64>>();
            auto accepted = make_array<std::uint8_t>({times.size()});
            const PredictionRows r{keys_of(keys),   view(times),  view(groups), view(versions),
                                   view(decisions), view(values), view(weights)};
            const auto out = mutable_view(accepted);
            Outcomes outcomes;
            {
              const py::gil_scoped_release unlocked;
              outcomes = self.log(r, out);
            }
            return py::make_tuple(accepted, wrap_outcomes(outcomes));
          },
          "rows"_a, "Take predictions in: which were new, and outcomes of labels that had waited for them.")
      .def(
          "label",
          [](Join& self, const Keys& keys, const Array<f64>& labels, const Array<i64>& times) {
            const LabelRows rows{keys_of(keys), view(labels), view(times)};
            Outcomes outcomes;
            {
              const py::gil_scoped_release unlocked;
              outcomes = self.label(rows);
            }
            return wrap_outcomes(outcomes);
          },
          py::arg("keys").noconvert(), py::arg("labels").noconvert(), py::arg("times").noconvert(),
          "Take labels in: the outcomes that follow.")
      .def(
          "merge", [](Join& self, const Join& other) { return wrap_outcomes(self.merge(other)); }, "other"_a,
          "Take over another join.")
      .def("advance", &Join::advance, "time"_a, "Move the watermark without an event.")
      .def_property_readonly("watermark", &Join::watermark, "Latest event time met, microseconds.")
      .def(
          "account", [](const Join& self) { return counters_of(self.account()); },
          "Counts of events, in the order of values.Account.")
      .def("save", &save, "State as arrays.")
      .def("load", &load, "state"_a, "Restore such a state.");
  m.attr("NEVER") = kNever;
}

}  // namespace tidegauge
