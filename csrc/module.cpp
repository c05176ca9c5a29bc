#include <pybind11/pybind11.h>

#include "errors.hpp"

namespace tidegauge {

void bind_arrow(pybind11::module_& m);
void bind_wire(pybind11::module_& m);
void bind_histogram(pybind11::module_& m);
void bind_window(pybind11::module_& m);
void bind_outcomes(pybind11::module_& m);
void bind_join(pybind11::module_& m);
void bind_embedding(pybind11::module_& m);
void bind_sample(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_shap(pybind11::module_& m);
void bind_estimate(pybind11::module_& m);

}  // namespace tidegauge

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core: everything that touches every row.";
  pybind11::register_exception<tidegauge::SchemaError>(m, "SchemaError", PyExc_ValueError);
  pybind11::register_exception<tidegauge::DataError>(m, "DataError", PyExc_ValueError);
  tidegauge::bind_arrow(m);
  tidegauge::bind_wire(m);
  tidegauge::bind_histogram(m);
  tidegauge::bind_window(m);
  tidegauge::bind_outcomes(m);
  tidegauge::bind_join(m);
  tidegauge::bind_embedding(m);
  tidegauge::bind_sample(m);
  tidegauge::bind_device(m);
  tidegauge::bind_shap(m);
  tidegauge::bind_estimate(m);
}
