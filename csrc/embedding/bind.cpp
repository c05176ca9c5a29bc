#include "arrow/bind.hpp"

#include "arrow/vectors.hpp"
#include "embedding/embedding.hpp"
#include "errors.hpp"

namespace tidegauge {
namespace {

// Column whose rows [start, stop) hold vectors.
i64 column_of(const Batch& batch, const std::string& name, i64 start, i64 stop) {
  const i64 column = batch.find(name);
  if (column < 0) throw py::key_error(name);
  if (start < 0 || stop < start || stop > batch.n_rows()) throw py::index_error("rows outside the batch");
  return column;
}

}  // namespace

void bind_embedding(py::module_& m) {
  using namespace pybind11::literals;
  m.def(
      "vector_width",
      [](const Batch& batch, const std::string& name) { return vector_width(batch, column_of(batch, name, 0, 0)); },
      "batch"_a, "name"_a,
      "Members of a fixed-size list, or of the first list that is not null; 0 where there is none.");

  m.def(
      "read_vectors",
      [](const Batch& batch, const std::string& name, const Array<i64>& rows, i64 width) {
        const i64 column = column_of(batch, name, 0, 0);
        if (width < 1) throw py::value_error("a width of at least 1 is wanted");
        const auto r = view(rows);
        for (const i64 row : r) column_of(batch, name, row, row + 1);
        auto vectors = make_array<float>({rows.size(), width});
        auto states = make_array<i32>({rows.size()});
        const auto v = mutable_view(vectors);
        const auto s = mutable_view(states);
        {
          const py::gil_scoped_release unlocked;
          read_vectors(batch, column, r, v, s);
        }
        return py::make_tuple(vectors, states);
      },
      "batch"_a, "name"_a, "rows"_a.noconvert(), "width"_a,
      "Vectors of some rows as float32 [n, width], and 0 or why there is none: MISSING, NAN, INVALID.");

  py::class_<Embedding>(m, "Embedding", "Learnt centroids and directions that vectors are placed among.")
      .def(py::init([](const Array<float>& center, const Array<float>& centroids, const Array<float>& components) {
             if (center.size() == 0 || centroids.size() == 0 || centroids.size() % center.size() != 0 ||
                 components.size() % center.size() != 0)
               throw SchemaError("centroids and components must be as wide as the center");
             const auto c = view(center);
             return std::make_unique<Embedding>(std::vector<float>(c.begin(), c.end()), view(centroids),
                                                view(components));
           }),
           "center"_a.noconvert(), "centroids"_a.noconvert(), "components"_a.noconvert())
      .def(
          "embed",
          [](const Embedding& self, const Batch& batch, const std::string& name, i64 start, i64 stop, i32 n_threads) {
            const i64 column = column_of(batch, name, start, stop);
            const auto n = static_cast<std::size_t>(stop - start);
            auto clusters = make_array<i32>({stop - start});
            auto numbers = make_array<f64>({3, stop - start});
            const auto c = mutable_view(clusters);
            const auto v = mutable_view(numbers);
            {
              const py::gil_scoped_release unlocked;
              embed(self, batch, column, {start, n_threads}, {c, v.first(n), v.subspan(n, n), v.last(n)});
            }
            return py::make_tuple(clusters, numbers);
          },
          "batch"_a, "name"_a, "start"_a, "stop"_a, "threads"_a,
          "Nearest centroid, or MISSING, NAN, INVALID; and [distance, reconstruction error, norm] by row.");
}

}  // namespace tidegauge
