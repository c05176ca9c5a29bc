#include "arrow/bind.hpp"

#include <algorithm>
#include <functional>

#include "errors.hpp"
#include "shap/coalition.hpp"
#include "shap/design.hpp"
#include "shap/kernel_shap.hpp"
#include "shap/odd_covariance.hpp"

namespace tidegauge {
namespace {

using namespace pybind11::literals;

// Designs and the groups of background rows that their pairs meet; owns what a Plan looks at.
struct Coalitions {
  Array<u64> masks;
  std::vector<i64> starts;

  [[nodiscard]] Plan plan() const { return {view(masks), starts, masks.shape(1), masks.shape(2)}; }
};

void demand(bool fits, const char* what) {
  if (!fits) throw DataError(what);
}

Coalitions make_coalitions(const Array<u64>& masks, const std::vector<i64>& starts) {
  demand(masks.ndim() == 3 && masks.size() > 0, "masks are [designs][pairs][words]");
  demand(starts.size() > 1 && starts.front() == 0, "starts begin at 0 and end at the number of background rows");
  demand(std::ranges::adjacent_find(starts, std::greater_equal{}) == starts.end(), "every group has a row");
  return {masks, starts};
}

i64 n_inputs(const Coalitions& self, std::pair<i64, i64> pairs) {
  demand(0 <= pairs.first && pairs.first <= pairs.second && pairs.second <= self.masks.shape(1), "no such pairs");
  return self.plan().meeting(pairs.second).before - self.plan().meeting(pairs.first).before;
}

template <typename Word>
void fill(const Coalitions& self, std::pair<i64, i64> pairs, const Array<Word>& rows, const Array<Word>& background,
          const Array<i32>& designs, const Array<i32>& labels, Array<Word> input) {
  const Plan plan = self.plan();
  const Tile tile{designs.size(), pairs.first, pairs.second};
  demand(rows.size() == labels.size() && labels.ndim() == 2 && labels.shape(0) == designs.size(),
         "rows and labels are [rows][columns], designs [rows]");
  demand(background.size() == self.starts.back() * labels.shape(1), "background is [rows][columns]");
  demand(input.size() == n_inputs(self, pairs) * labels.size(), "input is [rows of the tile][columns]");
  const auto d = view(designs), l = view(labels);
  for (const i32 design : d) demand(design >= 0 && design < self.masks.shape(0), "no such design");
  for (const i32 label : l) demand(label >= 0 && label < 64 * plan.n_words, "no such label");
  const Sources<Word> sources{view(rows), view(background), d, l};
  const auto out = mutable_view(input);
  const py::gil_scoped_release unlocked;
  fill_masked(plan, tile, sources, out);
}

template <typename Value>
void reduce(const Coalitions& self, std::pair<i64, i64> pairs, const Array<Value>& outputs, const Array<f64>& weights,
            const std::string& link, Array<f64> differences) {
  demand(link == "identity" || link == "logit", "the link is 'identity' or 'logit'");
  demand(differences.ndim() == 3 && differences.shape(2) >= pairs.second, "differences are [rows][outputs][width]");
  const Plan plan = self.plan();
  const Tile tile{differences.shape(0), pairs.first, pairs.second};
  const i64 n_differences = differences.shape(2);
  demand(outputs.size() == tile.n_rows * n_inputs(self, pairs) * differences.shape(1), "outputs do not fit the tile");
  demand(weights.size() == self.starts.back(), "one weight a background row");
  const auto y = view(outputs);
  const auto w = view(weights);
  const auto out = mutable_view(differences);
  const py::gil_scoped_release unlocked;
  reduce_pairs(plan, tile, y, w, link == "logit" ? Link::kLogit : Link::kIdentity, n_differences, out);
}

Array<f64> multiply(const Array<f64>& values, const Array<f64>& matrix) {
  demand(values.ndim() == 2 && matrix.ndim() == 2 && values.shape(1) == matrix.shape(0), "shapes do not fit");
  auto products = make_array<f64>({values.shape(0), matrix.shape(1)});
  const auto v = view(values), a = view(matrix);
  const auto out = mutable_view(products);
  const i64 depth = matrix.shape(0);
  const py::gil_scoped_release unlocked;
  multiply_rows(v, a, depth, out);
  return products;
}

Array<f64> covariance(const Array<f64>& signs, const Array<f64>& ratios) {
  demand(signs.ndim() == 2 && signs.shape(1) == ratios.size() && ratios.size() > 0, "signs are [pairs][players]");
  auto found = make_array<f64>({signs.shape(0), signs.shape(0)});
  const auto t = view(signs), r = view(ratios);
  const auto out = mutable_view(found);
  const py::gil_scoped_release unlocked;
  fill_odd_covariance(t, r, out);
  return found;
}

bool factorise_in_place(Array<f64> matrix) {
  demand(matrix.ndim() == 2 && matrix.shape(0) == matrix.shape(1), "matrix is [n][n]");
  const auto a = mutable_view(matrix);
  const i64 n = matrix.shape(0);
  const py::gil_scoped_release unlocked;
  return factorise(a, n);
}

Array<f64> solve(const Array<f64>& factor, const Array<f64>& sides, bool upper) {
  demand(factor.size() == factor.shape(0) * factor.shape(0) && sides.ndim() == 2, "factor is [n][n]");
  demand(factor.shape(0) == sides.shape(0), "sides are [n][m]");
  Array<f64> solved(sides.request());
  const auto f = view(factor);
  const auto out = mutable_view(solved);
  const i64 n = factor.shape(0);
  const py::gil_scoped_release unlocked;
  upper ? solve_upper(f, n, out) : solve_lower(f, n, out);
  return solved;
}

py::tuple draw(i32 n_players, i64 n_pairs, u64 seed, u64 stream) {
  demand(n_players >= 2 && n_pairs >= 1 && (n_players > 62 || n_pairs < i64{1} << (n_players - 1)),
         "more pairs than there are");
  const Design design = draw_design({n_players, n_pairs, seed, stream});
  auto masks = make_array<u64>({n_pairs, mask_words(n_players)});
  std::copy(design.masks.begin(), design.masks.end(), masks.mutable_data());
  return py::make_tuple(masks, wrap(design.weights), wrap(design.shares));
}

Array<i32> shuffled(const Array<u64>& streams, i32 n_labels, u64 seed) {
  auto labels = make_array<i32>({streams.size(), n_labels});
  const auto s = view(streams);
  const auto out = mutable_view(labels);
  const py::gil_scoped_release unlocked;
  label_rows(s, seed, out);
  return labels;
}

Array<u64> keys_of(const Array<u64>& values) {
  demand(values.ndim() == 2, "values are [rows][columns]");
  auto keys = make_array<u64>({values.shape(0)});
  const auto v = view(values);
  const auto out = mutable_view(keys);
  const py::gil_scoped_release unlocked;
  key_rows(v, out);
  return keys;
}

std::vector<u32> random_words(u64 key, u64 high, u64 low) {
  const Draws draws = philox(key, high, low);
  return {draws.word, draws.word + 4};
}

}  // namespace

void bind_shap(py::module_& m) {
  const auto rows = py::arg("rows").noconvert(), background = py::arg("background").noconvert(),
             designs = py::arg("designs").noconvert(), labels = py::arg("labels").noconvert(),
             input = py::arg("input").noconvert(), outputs = py::arg("outputs").noconvert(),
             weights = py::arg("weights").noconvert(), differences = py::arg("differences").noconvert();
  const char *filled = "Write the masked rows of these pairs.", *reduced = "Differences of these pairs from answers.";
  py::class_<Coalitions>(m, "Coalitions", "Designs of coalition pairs, and the background rows that each pair meets.")
      .def(py::init(&make_coalitions), py::arg("masks").noconvert(), "starts"_a)
      .def("n_inputs", &n_inputs, "pairs"_a, "Rows of the model's input that these pairs of one row take.")
      .def("fill", &fill<u64>, "pairs"_a, rows, background, designs, labels, input, filled)
      .def("fill", &fill<u32>, "pairs"_a, rows, background, designs, labels, input, filled)
      .def("reduce", &reduce<f64>, "pairs"_a, outputs, weights, "link"_a, differences, reduced)
      .def("reduce", &reduce<float>, "pairs"_a, outputs, weights, "link"_a, differences, reduced);

  m.def("draw_design", &draw, "n_players"_a, "n_pairs"_a, "seed"_a, "stream"_a,
        "Masks, kernel weights and drawn shares of a paired design.");
  m.def("philox", &random_words, "key"_a, "high"_a, "low"_a, "Four random words.");
  m.def("shuffle_labels", &shuffled, py::arg("streams").noconvert(), "n_labels"_a, "seed"_a, "A shuffle a stream.");
  m.def("keys_of_rows", &keys_of, py::arg("values").noconvert(), "Keys of rows, from the bits of their values.");
  m.def("multiply_rows", &multiply, py::arg("values").noconvert(), py::arg("matrix").noconvert(), "Fixed order.");
  m.def("odd_covariance", &covariance, py::arg("signs").noconvert(), py::arg("ratios").noconvert(), "Lower triangle.");
  m.def("factorise", &factorise_in_place, py::arg("matrix").noconvert(), "Cholesky factor in place.");
  m.def("solve", &solve, py::arg("factor").noconvert(), py::arg("sides").noconvert(), py::kw_only(), "upper"_a,
        "Solve L y = b, or L' x = y where `upper`.");
}

}  // namespace tidegauge
