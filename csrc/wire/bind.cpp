#include "arrow/bind.hpp"

#include <optional>

#include "wire/packed.hpp"

namespace tidegauge {
namespace {

constexpr std::size_t kLong = 1 << 18;  // bytes that are worth giving the interpreter to others for

std::unique_ptr<PackedBatch> read_packed(const py::bytes& body) {
  const std::string_view wire = body;
  std::optional<py::gil_scoped_release> unlocked;
  if (wire.size() > kLong) unlocked.emplace();
  return std::make_unique<PackedBatch>(wire);
}

}  // namespace

void bind_wire(py::module_& m) {
  using namespace pybind11::literals;
  py::class_<PackedBatch>(m, "PackedBatch", "Packed columns of the wire, copied and checked.")
      .def(py::init(&read_packed), "body"_a, "Read a serialized ColumnBatch.")
      .def_property_readonly("n_rows", &PackedBatch::n_rows, "Rows of every column.")
      .def_property_readonly("names", &PackedBatch::names, "Names of the columns, in order.")
      .def("longest_text", &PackedBatch::longest_text, "name"_a, "Bytes of the longest text of a column.")
      .def("same_shape", &PackedBatch::same_shape, "other"_a, "Whether both have the same columns and types.")
      .def(
          "add_constant",
          [](PackedBatch& self, const std::string& name, const std::string& text) { self.add_constant(name, text); },
          "name"_a, "text"_a, "Add a column with one text in every row.");
  m.def("join_packed", &PackedBatch::join, "parts"_a, py::keep_alive<0, 1>(), "One batch of several of one shape.");
}

}  // namespace tidegauge
