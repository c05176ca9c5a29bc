#include "arrow/bind.hpp"

#include <cstring>
#include <memory>

#include "device/arrow_tree.hpp"
#include "device/stage.hpp"
#include "errors.hpp"
#include "histogram/encode.hpp"
#include "window/device_fill.hpp"
#include "window/read_cells.hpp"

namespace tidegauge {
namespace {

template <typename T>
T* pointer_of(const py::capsule& capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule.ptr(), name))
    throw py::value_error(std::string("a capsule named ") + name + " is wanted");
  return static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), name));
}

py::dict tree_of(const ArrowArray& array) {
  py::dict tree;
  py::list buffers, children;
  for (i64 i = 0; i < array.n_buffers; ++i) buffers.append(reinterpret_cast<u64>(array.buffers[i]));
  for (i64 i = 0; i < array.n_children; ++i) children.append(tree_of(*array.children[i]));
  tree["length"] = array.length;
  tree["offset"] = array.offset;
  tree["null_count"] = array.null_count;
  tree["buffers"] = buffers;
  tree["children"] = children;
  tree["dictionary"] = array.dictionary == nullptr ? py::none() : py::object(tree_of(*array.dictionary));
  return tree;
}

// Where the stream lies, its schema as a capsule that releases what nobody takes over, and the arrays.
py::tuple drain_stream(const py::capsule& capsule) {
  auto schema = std::make_unique<ArrowSchema>();
  auto* stream = pointer_of<ArrowDeviceArrayStream>(capsule, "arrow_device_array_stream");
  const i32 device_type = stream->device_type;
  auto arrays = read_device_stream(stream, schema.get());
  py::list taken;
  for (auto& array : arrays) taken.append(py::cast(std::make_unique<DeviceArray>(&array)));
  const auto release = [](PyObject* object) {
    auto* owned = static_cast<ArrowSchema*>(PyCapsule_GetPointer(object, "arrow_schema"));
    if (owned->release != nullptr) owned->release(owned);
    delete owned;
  };
  return py::make_tuple(device_type, py::capsule(schema.release(), "arrow_schema", release), taken);
}

std::unique_ptr<StagePlan> make_plan(const Batch& batch, const std::vector<std::string>& names, i64 start, i64 stop) {
  std::vector<i64> columns;
  for (const auto& name : names) columns.push_back(batch.find(name));
  const bool known = std::all_of(columns.begin(), columns.end(), [](i64 column) { return column >= 0; });
  if (!known || start < 0 || stop < start || stop > batch.n_rows()) throw py::index_error("rows outside the batch");
  return std::make_unique<StagePlan>(plan_stage(batch, columns, start, stop));
}

py::list parts_of(const StagePlan& plan, const Batch& batch) {
  py::list parts;
  for (const StagedPart& part : plan.parts) {
    parts.append(py::make_tuple(batch.names()[static_cast<std::size_t>(part.column)], part.chunk, part.first_row,
                                part.n_rows, part.values, part.value_bit, part.validity, part.validity_bit));
  }
  return parts;
}

// One entry of a dict as a number or an address.
template <typename T>
T entry(const py::dict& column, const char* name) {
  return column[name].cast<T>();
}

DeviceColumn device_column(const py::dict& given) {
  const auto address = [&](const char* name) { return entry<u64>(given, name); };
  DeviceColumn column;
  column.values = reinterpret_cast<const void*>(address("values"));
  column.validity = reinterpret_cast<const u8*>(address("validity"));
  column.validity_bit = entry<i64>(given, "validity_bit");
  column.value_bit = entry<i64>(given, "value_bit");
  column.first_row = entry<i64>(given, "first_row");
  column.first_slot = entry<i64>(given, "first_slot");
  column.n_slots = entry<i32>(given, "n_slots");
  column.number = entry<i32>(given, "number");
  if (!given["bins"].is_none()) {
    const auto& bins = given["bins"].cast<const NumericBins&>();
    column.reading = entry<bool>(given, "is_time") ? Reading::kTimes : Reading::kNumbers;
    column.multiply = entry<i64>(given, "multiply");
    column.divide = entry<i64>(given, "divide");
    column.bins.grid = bins.grid;
    column.bins.edges = reinterpret_cast<const f64*>(address("edges"));
    column.bins.guide = reinterpret_cast<const GuideCell*>(address("guide"));
    column.bins.sentinels = reinterpret_cast<const f64*>(address("sentinels"));
    column.bins.n_sentinels = static_cast<i64>(bins.sentinels.size());
  } else {
    column.reading = Reading::kCodes;
    column.table = reinterpret_cast<const u16*>(address("table"));
    column.lowest = entry<i64>(given, "lowest");
    column.n_table = entry<i64>(given, "n_table");
    column.outside = entry<i32>(given, "outside");
  }
  return column;
}

Array<u8> device_columns(const std::vector<py::dict>& columns) {
  auto out = make_array<u8>({static_cast<i64>(columns.size()), sizeof(DeviceColumn)});
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const DeviceColumn column = device_column(columns[i]);
    std::memcpy(out.mutable_data() + i * sizeof(DeviceColumn), &column, sizeof(DeviceColumn));
  }
  return out;
}

}  // namespace

void bind_device(py::module_& m) {
  using namespace pybind11::literals;

  py::class_<DeviceArray>(m, "DeviceArray", "An array of the Arrow C device interface.")
      .def(py::init([](const py::capsule& array) {
             return std::make_unique<DeviceArray>(pointer_of<ArrowDeviceArray>(array, "arrow_device_array"));
           }),
           "array"_a)
      .def_property_readonly("device_type", &DeviceArray::device_type, "1 host, 2 CUDA, 3 and 13 CUDA and host.")
      .def_property_readonly("device_id", &DeviceArray::device_id, "Number of the device.")
      .def_property_readonly("sync_event", &DeviceArray::sync_event, "Address of an event to wait for, or 0.")
      .def_property_readonly(
          "tree", [](const DeviceArray& self) { return tree_of(self.array()); }, "Lengths and addresses.");
  m.def("drain_device_stream", &drain_stream, "stream"_a,
        "Device type, schema and arrays of an `arrow_device_array_stream`.");

  py::class_<StagePlan>(m, "StagePlan", "Where rows of a batch go in staging memory.")
      .def(py::init(&make_plan), "batch"_a, "names"_a, "start"_a, "stop"_a)
      .def_readonly("n_bytes", &StagePlan::n_bytes, "Staging memory needed.")
      .def_property_readonly(
          "n_parts", [](const StagePlan& self) { return self.parts.size(); }, "Chunks, in part or whole.")
      .def("parts", &parts_of, "batch"_a, "Name, chunk, first row, rows, and where values and validity lie.")
      .def(
          "copy",
          [](const StagePlan& self, Array<u8>& out, i32 n_threads) {
            if (out.size() < self.n_bytes) throw py::index_error("the staging memory is too small");
            const auto target = mutable_view(out);
            const py::gil_scoped_release unlocked;
            stage(self, target, n_threads);
          },
          py::arg("out").noconvert(), "n_threads"_a, "Copy the rows.");

  m.def(
      "dictionary_slots",
      [](const Batch& batch, const std::string& name, i64 chunk, Vocabulary& categories, const Vocabulary& sentinels) {
        const auto& chunks = batch.chunks(batch.find(name));
        return wrap(dictionary_slots(chunks.at(static_cast<std::size_t>(chunk)), categories, sentinels));
      },
      "batch"_a, "name"_a, "chunk"_a, "categories"_a, "sentinels"_a, "Slot of every entry of a chunk's dictionary.");
  m.def(
      "bins_tables",
      [](const NumericBins& bins) {
        const auto* guide = reinterpret_cast<const u8*>(bins.guide.data());
        const auto n_bytes = static_cast<py::ssize_t>(bins.guide.size() * sizeof(GuideCell));
        return py::make_tuple(wrap(bins.edges), Array<u8>(n_bytes, guide), wrap(bins.sentinels));
      },
      "bins"_a, "Edges, guide and sentinels, which the kernel reads beside the grid.");
  m.attr("COLUMN_BYTES") = sizeof(DeviceColumn);
  m.def("device_columns", &device_columns, "columns"_a, "Columns as the kernel reads them, a row of bytes each.");
  m.def(
      "add_counts",
      [](Cells& cells, i32 block, const Array<i32>& where, const Array<i64>& counts) {
        const auto c = view(counts);
        const auto w = view(where);
        const py::gil_scoped_release unlocked;
        add_counts(cells, block, w, c);
      },
      "cells"_a, "block"_a, py::arg("where").noconvert(), py::arg("counts").noconvert(), "Add dense rows of counts.");
}

}  // namespace tidegauge
