#include "arrow/bind.hpp"

#include "errors.hpp"
#include "join/join.hpp"

namespace tidegauge {
namespace {

using Keys = Array<u64>;

std::span<const Key> keys_of(const Keys& keys) {
  return {reinterpret_cast<const Key*>(keys.data()), static_cast<std::size_t>(keys.size() / 2)};
}

std::vector<i64> counters_of(const Account& account) {
  std::vector<i64> counters;
  for (const auto field : kAccountFields) counters.push_back(account.*field);
  return counters;
}

py::tuple log(Join& self, const py::dict& rows) {
  const auto keys = rows["keys"].cast<Keys>();
  const auto times = rows["times"].cast<Array<i64>>();
  const auto groups = rows["groups"].cast<Array<i32>>(), decisions = rows["decisions"].cast<Array<i32>>(),
             versions = rows["group_versions"].cast<Array<i32>>();
  const auto values = rows["values"].cast<Array<f64>>(), weights = rows["weights"].cast<Array<f64>>();
  auto accepted = make_array<std::uint8_t>({times.size()});
  const PredictionRows r{keys_of(keys), view(times),   view(groups),  view(decisions),
                         view(values),  view(weights), view(versions)};
  const auto out = mutable_view(accepted);
  Outcomes outcomes;
  {
    const py::gil_scoped_release unlocked;
    outcomes = self.log(r, out);
  }
  return py::make_tuple(accepted, std::move(outcomes));
}

Outcomes label(Join& self, const Keys& keys, const Array<f64>& labels, const Array<i64>& times) {
  const LabelRows rows{keys_of(keys), view(labels), view(times)};
  const py::gil_scoped_release unlocked;
  return self.label(rows);
}

Outcomes forget(Join& self, const Keys& keys) {
  const auto ids = keys_of(keys);
  const py::gil_scoped_release unlocked;
  return self.forget(ids);
}

Outcomes merge(Join& self, const Join& other, const Array<i32>& groups, const Array<i32>& group_versions) {
  const auto g = view(groups), v = view(group_versions);
  const py::gil_scoped_release unlocked;
  return self.merge(other, g, v);
}

// Calls visit(name, column) for each column of a state.
template <typename State, typename Visit>
void for_each_column(State& state, Visit&& visit) {
  visit("keys", state.keys), visit("early_keys", state.early_keys);
  visit("times", state.times), visit("early_times", state.early_times);
  visit("labels", state.labels), visit("early_labels", state.early_labels);
  visit("groups", state.groups), visit("decisions", state.decisions), visit("values", state.values);
  visit("weights", state.weights), visit("label_delays", state.label_delays);
}

py::dict save(const Join& self, const Array<i32>& ranks) {
  const Join::State state = self.state(view(ranks));
  py::dict out;
  for_each_column(state, [&]<typename T>(const char* name, const std::vector<T>& values) {
    if constexpr (std::is_same_v<T, Key>) {
      auto keys = make_array<u64>({static_cast<i64>(values.size()), 2});
      std::copy(values.begin(), values.end(), reinterpret_cast<Key*>(keys.mutable_data()));
      out[name] = keys;
    } else {
      out[name] = wrap(values);
    }
  });
  out["counters"] = wrap(counters_of(state.counters));
  out["watermark"] = wrap(std::vector<i64>{state.watermark});
  return out;
}

void load(Join& self, const py::dict& stored, const Array<i32>& group_versions) {
  Join::State state;
  for_each_column(state, [&]<typename T>(const char* name, std::vector<T>& values) {
    if constexpr (std::is_same_v<T, Key>) {
      const auto keys = stored[name].cast<Keys>();
      values.assign(keys_of(keys).begin(), keys_of(keys).end());
    } else {
      values = column<T>(stored, name);
    }
  });
  const auto counters = column<i64>(stored, "counters"), watermark = column<i64>(stored, "watermark");
  if (counters.size() != std::size(kAccountFields) || watermark.size() != 1)
    throw DataError("the stored join is damaged: its columns differ in length");
  for (std::size_t i = 0; i < counters.size(); ++i) state.counters.*kAccountFields[i] = counters[i];
  state.watermark = watermark[0];
  self.restore(state, view(group_versions));
}

JoinOptions options_of(const py::dict& given) {
  JoinOptions options;
  options.lateness = given["lateness"].cast<i64>();
  options.n_values = given["n_values"].cast<i32>();
  options.capacity = given["capacity"].cast<i64>();
  options.always_kept = given["always_kept"].cast<i64>();
  options.most_slices = given["most_slices"].cast<i64>();
  options.wide_ids = given["ids"].cast<std::string>() == "text";
  options.is_binary = given["task"].cast<std::string>() == "binary";
  options.has_weights = given["weights"].cast<bool>();
  options.champion = given["champion"].cast<i32>();
  options.arrivals = given["arrivals"].cast<bool>() ? Arrivals::kGiven : Arrivals::kLeftOut;
  return options;
}

}  // namespace

void bind_join(py::module_& m) {
  using namespace pybind11::literals;
  const auto exact = [](const char* name) { return py::arg(name).noconvert(); };

  py::class_<Join>(m, "Join",
                   "Predictions waiting for labels, labels waiting for predictions, and the account of both.")
      .def(py::init([](const py::dict& options) { return Join(options_of(options)); }), "options"_a)
      .def("log", &log, "rows"_a, "Take predictions in: which were new, and outcomes of labels that had waited.")
      .def("label", &label, exact("keys"), exact("labels"), exact("times"), "Take labels in: the outcomes that follow.")
      .def("forget", &forget, exact("keys"), "Take ids out: the outcomes that go with them.")
      .def("merge", &merge, "other"_a, exact("groups"), exact("group_versions"), "Take over another join.")
      .def("advance", &Join::advance, "time"_a, "Move the watermark without an event.")
      .def_property_readonly("watermark", &Join::watermark, "Latest event time met, microseconds.")
      .def_property_readonly("n_bytes", &Join::n_bytes, "Memory held, in bytes.")
      .def(
          "account", [](const Join& self) { return counters_of(self.account()); },
          "Counts of events, in the order of values.Account.")
      .def("save", &save, exact("ranks"), "State as arrays, in which group g is ranks[g].")
      .def("load", &load, "state"_a, exact("group_versions"), "Restore such a state.");
  m.attr("NEVER") = kNever;
  m.attr("DELAY_BINS") = kDelayBins;
  m.attr("NO_DELAY") = kNoDelay;

  m.def(
      "delay_edges",
      [] {
        std::vector<i64> edges;
        for (i32 bin = 1; bin < kDelayBins; ++bin) edges.push_back(delay_edge(bin));
        return edges;
      },
      "Microseconds where the bins of delays begin; the first has no beginning.");
}

}  // namespace tidegauge
