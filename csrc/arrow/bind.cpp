#include "arrow/bind.hpp"

#include "arrow/batch.hpp"
#include "arrow/read.hpp"
#include "join/read_keys.hpp"

namespace tidegauge {
namespace {

template <typename T>
T* pointer_of(const py::capsule& capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule.ptr(), name))
    throw py::value_error(std::string("a capsule named ") + name + " is wanted");
  return static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), name));
}

const char* kind_of(const Batch& batch, const std::string& name) {
  const i64 column = batch.find(name);
  if (column < 0) return "absent";
  const auto& chunks = batch.chunks(column);
  if (chunks.empty()) return "empty";
  const Type type = chunks[0].value_type();
  if (type == Type::kNull) return "null";
  if (type == Type::kBool) return "bool";
  if (is_text(type)) return "text";
  if (is_time(type)) return "time";
  if (is_vector(type)) return "vector";
  return is_integer(type) ? "integer" : is_number(type) ? "float" : "other";
}

struct Slice {
  const Batch* batch;
  i64 column;
  i64 start;
  i64 size;
};

// Rows [start, stop) of a column that the caller has made sure of.
Slice slice(const Batch& batch, const std::string& name, i64 start, i64 stop) {
  const i64 column = batch.find(name);
  if (column < 0) throw py::key_error(name);
  if (start < 0 || stop < start || stop > batch.n_rows()) throw py::index_error("rows outside the batch");
  return {&batch, column, start, stop - start};
}

Array<f64> read_floats(const Batch& batch, const std::string& name, Wanted wanted, i64 start, i64 stop) {
  const Slice rows = slice(batch, name, start, stop);
  auto values = make_array<f64>({rows.size});
  const auto out = mutable_view(values);
  const py::gil_scoped_release unlocked;
  read_numbers(batch, rows.column, wanted, start, out);
  return values;
}

Array<i32> read_codes(const Batch& batch, const std::string& name, Vocabulary& vocabulary, i64 start, i64 stop,
                      Growth growth) {
  const Slice rows = slice(batch, name, start, stop);
  auto codes = make_array<i32>({rows.size});
  const auto out = mutable_view(codes);
  const py::gil_scoped_release unlocked;
  CodeReader reader(vocabulary, growth);
  batch.for_each_piece(rows.column, start, stop, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
    reader.read(view, first, out.subspan(static_cast<std::size_t>(row - start), static_cast<std::size_t>(n)));
  });
  return codes;
}

}  // namespace

void bind_arrow(py::module_& m) {
  using namespace pybind11::literals;
  m.attr("UNSEEN") = kUnseenCode;
  m.attr("MISSING") = kMissingCode;
  m.attr("NAN") = kNanCode;
  m.attr("INVALID") = kInvalidCode;

  py::class_<Batch>(m, "Batch", "The Arrow arrays of one call, owned, viewed without a copy.")
      .def_static(
          "from_stream",
          [](const py::capsule& stream) {
            return std::make_unique<Batch>(pointer_of<ArrowArrayStream>(stream, "arrow_array_stream"));
          },
          "stream"_a, "Drain an `arrow_array_stream` capsule.")
      .def_static(
          "from_array",
          [](const py::capsule& schema, const py::capsule& array) {
            return std::make_unique<Batch>(pointer_of<ArrowSchema>(schema, "arrow_schema"),
                                           pointer_of<ArrowArray>(array, "arrow_array"));
          },
          "schema"_a, "array"_a, "Take over a struct array.")
      .def_property_readonly("n_rows", &Batch::n_rows, "Rows in all chunks.")
      .def_property_readonly("n_chunks", &Batch::n_chunks, "Chunks of every column.")
      .def_property_readonly("names", &Batch::names, "Column names, in order.")
      .def_property_readonly("types", &Batch::types, "Column types as a reader would write them.")
      .def("kind", &kind_of, "name"_a, "absent, empty, null, bool, integer, float, text, time, vector or other.");

  py::class_<Vocabulary>(m, "Vocabulary", "Distinct texts and their codes.")
      .def(py::init<std::vector<std::string>, i64>(), "texts"_a, "limit"_a)
      .def_property_readonly("texts", &Vocabulary::texts, "All texts, by code.")
      .def("__len__", &Vocabulary::size)
      .def(
          "add", [](Vocabulary& self, const std::string& text) { return self.find_or_add(text); }, "text"_a,
          "Code of a text, UNSEEN when full.");

  m.def(
      "read_numbers",
      [](const Batch& batch, const std::string& name, i64 start, i64 stop) {
        return read_floats(batch, name, Wanted::kNumbers, start, stop);
      },
      "batch"_a, "name"_a, "start"_a, "stop"_a, "Numbers as float64, NaN where null.");

  m.def(
      "read_instants",
      [](const Batch& batch, const std::string& name, i64 start, i64 stop) {
        return read_floats(batch, name, Wanted::kTimes, start, stop);
      },
      "batch"_a, "name"_a, "start"_a, "stop"_a, "UTC microseconds as float64, NaN where null.");

  m.def(
      "read_times",
      [](const Batch& batch, const std::string& name, i64 start, i64 stop) {
        const Slice rows = slice(batch, name, start, stop);
        auto times = make_array<i64>({rows.size});
        const auto out = mutable_view(times);
        const py::gil_scoped_release unlocked;
        read_times(batch, rows.column, start, out);
        return times;
      },
      "batch"_a, "name"_a, "start"_a, "stop"_a, "UTC microseconds.");

  m.def(
      "find_codes",
      [](const Batch& batch, const std::string& name, Vocabulary& vocabulary, i64 start, i64 stop) {
        return read_codes(batch, name, vocabulary, start, stop, Growth::kFixed);
      },
      "batch"_a, "name"_a, "vocabulary"_a, "start"_a, "stop"_a, "Codes: UNSEEN, MISSING or NAN where there is none.");

  m.def(
      "intern_codes",
      [](const Batch& batch, const std::string& name, Vocabulary& vocabulary, i64 start, i64 stop) {
        return read_codes(batch, name, vocabulary, start, stop, Growth::kGrow);
      },
      "batch"_a, "name"_a, "vocabulary"_a, "start"_a, "stop"_a, "The same, adding texts not met before.");

  m.def(
      "read_keys",
      [](const Batch& batch, const std::string& name, i64 start, i64 stop, const std::array<u64, 2>& secret) {
        const Slice rows = slice(batch, name, start, stop);
        auto keys = make_array<u64>({rows.size, 2});
        const auto out = std::span(reinterpret_cast<Key*>(keys.mutable_data()), static_cast<std::size_t>(rows.size));
        const py::gil_scoped_release unlocked;
        read_keys(batch, rows.column, start, out, secret);
        return keys;
      },
      "batch"_a, "name"_a, "start"_a, "stop"_a, "secret"_a, "128-bit join keys.");
}

}  // namespace tidegauge
