#include "shap/kernel_shap.hpp"

#include <algorithm>
#include <vector>

#include "shap/coalition.hpp"

namespace tidegauge {
namespace {

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
  const i64 base = plan.meeting(tile.first_pair).before, per_row = plan.meeting(tile.last_pair).before - base;
  Word chosen[kColumns];
  for (i64 r = 0; r < tile.n_rows; ++r) {
    const Word* row = sources.rows.data() + r * n_columns;
    const i32* labels = sources.labels.data() + r * n_columns;
    const u64* masks = plan.masks.data() + sources.designs[static_cast<std::size_t>(r)] * plan.n_pairs * plan.n_words;
    for (i64 k = tile.first_pair; k < tile.last_pair; ++k) {
      const Meeting met = plan.meeting(k);
      Word* out = input.data() + (r * per_row + met.before - base) * n_columns;
      for (i64 first = 0; first < n_columns; first += kColumns) {
        const i64 n = std::min(kColumns, n_columns - first);
        for (i64 c = 0; c < n; ++c) {
          chosen[c] = static_cast<Word>(0 - holds(masks + k * plan.n_words, labels[first + c]));
        }
        for (i64 b = 0; b < met.n_rows; ++b) {
          const Word* other = sources.background.data() + (met.first + b) * n_columns + first;
          Word* with = out + b * n_columns + first;
          fill_columns(row + first, other, chosen, n, with, with + met.n_rows * n_columns);
        }
      }
    }
  }
}

template <typename Value>
void reduce_pairs(const Plan& plan, const Tile& tile, std::span<const Value> outputs, std::span<const f64> weights,
                  Link link, i64 width, std::span<f64> differences) noexcept {
  const i64 base = plan.meeting(tile.first_pair).before, per_row = plan.meeting(tile.last_pair).before - base;
  const i64 n_outputs = per_row * tile.n_rows == 0 ? 0 : std::ssize(outputs) / (per_row * tile.n_rows);
  for (i64 r = 0; r < tile.n_rows; ++r) {
    for (i64 k = tile.first_pair; k < tile.last_pair; ++k) {
      const Meeting met = plan.meeting(k);
      const Value* answers = outputs.data() + (r * per_row + met.before - base) * n_outputs;
      for (i64 o = 0; o < n_outputs; ++o) {
        differences[static_cast<std::size_t>((r * n_outputs + o) * width + k)] =
            pair_difference(answers + o, n_outputs, weights.data() + met.first, met.n_rows, link);
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
