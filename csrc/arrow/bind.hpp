// Views of NumPy arrays for the bindings: no copy, no cast, a clear type.
// Costs nothing; the array must outlive the view.
// Deterministic: a view never changes what it looks at.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <span>
#include <vector>

#include "portable.hpp"

namespace tidegauge {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
[[nodiscard]] std::span<const T> view(const Array<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <typename T>
[[nodiscard]] std::span<T> mutable_view(Array<T>& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

template <typename T>
[[nodiscard]] Array<T> make_array(std::vector<i64> shape) {
  return Array<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

template <typename T>
[[nodiscard]] Array<T> wrap(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// A column of a dict of arrays, copied.
template <typename T>
[[nodiscard]] std::vector<T> column(const py::dict& columns, const char* name) {
  const auto array = columns[name].cast<Array<T>>();
  return {array.data(), array.data() + array.size()};
}

}  // namespace tidegauge
