#include "shap/kernel_shap.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "shap/coalition.hpp"

namespace tidegauge {
namespace {

f64 linked(f64 mean, Link link) noexcept {
  if (link == Link::kIdentity) return mean;
  const f64 p = mean < 1e-12 ? 1e-12 : mean > 1 - 1e-12 ? 1 - 1e-12 : mean;  // NaN stays NaN
  return std::log(p / (1 - p));
}

constexpr i64 kColumns = 256;  // columns whose choices are on the stack at once

// One pair of one row, n of its columns.
template <typename Word>
void fill_columns(const Word* __restrict__ row, const Word* __restrict__ background, const Word* __restrict__ chosen,
                  i64 n, Word* __restrict__ with, Word* __restrict__ without) noexcept {
  for (i64 c = 0; c < n; ++c) {
    with[c] = mask_value(row[c], background[c], chosen[c]);
    without[c] = mask_value(background[c], row[c], chosen[c]);
  }
}

}  // namespace

template <typename Word>
void fill_masked(const Plan& plan, const Tile& tile, const Sources<Word>& sources, std::span<Word> input) noexcept {
  const i64 n_columns = std::ssize(sources.labels) / std::max<i64>(std::ssize(sources.designs), 1);
  const i64 base = plan.offset(tile.first_pair), per_row = plan.offset(tile.last_pair) - base;
  Word chosen[kColumns];
  for (i64 r = 0; r < tile.n_rows; ++r) {
    const Word* row = sources.rows.data() + r * n_columns;
    const i32* labels = sources.labels.data() + r * n_columns;
    const u64* masks = plan.masks.data() + sources.designs[static_cast<std::size_t>(r)] * plan.n_pairs * plan.n_words;
    for (i64 k = tile.first_pair; k < tile.last_pair; ++k) {
      const i64 start = plan.starts[static_cast<std::size_t>(k % plan.n_groups())];
      const i64 n_members = plan.starts[static_cast<std::size_t>(k % plan.n_groups() + 1)] - start;
      Word* out = input.data() + (r * per_row + plan.offset(k) - base) * n_columns;
      for (i64 first = 0; first < n_columns; first += kColumns) {
        const i64 n = std::min(kColumns, n_columns - first);
        for (i64 c = 0; c < n; ++c) {
          chosen[c] = static_cast<Word>(0 - holds(masks + k * plan.n_words, labels[first + c]));
        }
        for (i64 b = 0; b < n_members; ++b) {
          const Word* other = sources.background.data() + (start + b) * n_columns + first;
          Word* with = out + b * n_columns + first;
          fill_columns(row + first, other, chosen, n, with, with + n_members * n_columns);
        }
      }
    }
  }
}

template <typename Value>
void reduce_pairs(const Plan& plan, const Tile& tile, std::span<const Value> outputs, std::span<const f64> weights,
                  Link link, i64 width, std::span<f64> differences) noexcept {
  const i64 base = plan.offset(tile.first_pair), per_row = plan.offset(tile.last_pair) - base;
  const i64 n_outputs = per_row * tile.n_rows == 0 ? 0 : std::ssize(outputs) / (per_row * tile.n_rows);
  for (i64 r = 0; r < tile.n_rows; ++r) {
    for (i64 k = tile.first_pair; k < tile.last_pair; ++k) {
      const i64 start = plan.starts[static_cast<std::size_t>(k % plan.n_groups())];
      const i64 n_members = plan.starts[static_cast<std::size_t>(k % plan.n_groups() + 1)] - start;
      const Value* with = outputs.data() + (r * per_row + plan.offset(k) - base) * n_outputs;
      const Value* without = with + n_members * n_outputs;
      for (i64 o = 0; o < n_outputs; ++o) {
        f64 mean_with = 0, mean_without = 0;
        for (i64 b = 0; b < n_members; ++b) {
          const f64 weight = weights[static_cast<std::size_t>(start + b)];
          mean_with += weight * static_cast<f64>(with[b * n_outputs + o]);
          mean_without += weight * static_cast<f64>(without[b * n_outputs + o]);
        }
        differences[static_cast<std::size_t>((r * n_outputs + o) * width + k)] =
            0.5 * (linked(mean_with, link) - linked(mean_without, link));
      }
    }
  }
}

void label_rows(std::span<const u64> streams, u64 seed, std::span<i32> labels) noexcept {
  const i64 n = std::ssize(streams), n_labels = n == 0 ? 0 : std::ssize(labels) / n;
  for (i64 r = 0; r < n; ++r) {
    const auto width = static_cast<i32>(n_labels);
    shuffle_labels(seed, streams[static_cast<std::size_t>(r)], width, width, labels.data() + r * n_labels);
  }
}

void key_rows(std::span<const u64> values, std::span<u64> keys) noexcept {
  const i64 n = std::ssize(keys), n_columns = n == 0 ? 0 : std::ssize(values) / n;
  for (i64 r = 0; r < n; ++r) keys[static_cast<std::size_t>(r)] = key_of_row(values.data() + r * n_columns, n_columns);
}

void multiply_rows(std::span<const f64> values, std::span<const f64> matrix, i64 depth,
                   std::span<f64> products) noexcept {
  if (depth == 0) std::fill(products.begin(), products.end(), 0.0);
  if (depth == 0 || values.empty()) return;
  const i64 n = std::ssize(values) / depth, width = std::ssize(matrix) / depth;
  for (i64 r = 0; r < n; ++r) {
    const f64* row = values.data() + r * depth;
    f64* __restrict__ sums = products.data() + r * width;
    std::fill(sums, sums + width, 0.0);
    i64 k = 0;
    for (; k + 4 <= depth; k += 4) {
      const f64* a = matrix.data() + k * width;
      const f64 *b = a + width, *c = b + width, *d = c + width;
      for (i64 j = 0; j < width; ++j) {
        sums[j] = sums[j] + row[k] * a[j] + row[k + 1] * b[j] + row[k + 2] * c[j] + row[k + 3] * d[j];
      }
    }
    for (; k < depth; ++k) {
      for (i64 j = 0; j < width; ++j) sums[j] += row[k] * matrix[static_cast<std::size_t>(k * width + j)];
    }
  }
}

template void fill_masked(const Plan&, const Tile&, const Sources<u32>&, std::span<u32>) noexcept;
template void fill_masked(const Plan&, const Tile&, const Sources<u64>&, std::span<u64>) noexcept;
template void reduce_pairs(const Plan&, const Tile&, std::span<const float>, std::span<const f64>, Link, i64,
                           std::span<f64>) noexcept;
template void reduce_pairs(const Plan&, const Tile&, std::span<const f64>, std::span<const f64>, Link, i64,
                           std::span<f64>) noexcept;

}  // namespace tidegauge
