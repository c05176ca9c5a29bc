#include "arrow/bind.hpp"

#include <algorithm>

#include "sample/select_rows.hpp"

namespace tidegauge {

void bind_sample(py::module_& m) {
  using namespace pybind11::literals;
  m.def(
      "select_rows",
      [](const Array<i32>& strata, const Array<u64>& keys, u64 first, const Array<u64>& limits) {
        const auto s = view(strata);
        const auto l = view(limits);
        const std::span k(reinterpret_cast<const Key*>(keys.data()), static_cast<std::size_t>(keys.size() / 2));
        if (!k.empty() && k.size() != s.size()) throw py::value_error("one key a row is wanted");
        if (!s.empty() && *std::max_element(s.begin(), s.end()) >= static_cast<i32>(l.size()))
          throw py::index_error("a stratum without a limit");
        SelectedRows selected;
        {
          const py::gil_scoped_release unlocked;
          selected = select_rows(s, k, first, l);
        }
        return py::make_tuple(wrap(selected.rows), wrap(selected.priorities));
      },
      "strata"_a.noconvert(), "keys"_a.noconvert(), "first"_a, "limits"_a.noconvert(),
      "Rows whose priority lies within the limit of their stratum, and their priorities.");
}

}  // namespace tidegauge
