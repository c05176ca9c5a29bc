// Kernel SHAP over rows: masked copies into the model's input, its answers reduced to differences of pairs.
// Costs one write a masked value and one read an answer; the model between the two is what takes the time.
// Deterministic: one order of summation, by background row, pair and row, whatever the tile.
#pragma once

#include <span>

#include "shap/pairs.hpp"

namespace tidegauge {

// Which coalitions there are, and the groups of background rows that they meet (meeting_of).
struct Plan {
  std::span<const u64> masks;   // [n_designs][n_pairs][n_words]
  std::span<const i64> starts;  // [n_groups + 1]
  i64 n_pairs = 0;
  i64 n_words = 1;

  [[nodiscard]] Meeting meeting(i64 pair) const noexcept {
    return meeting_of(pair, starts.data(), std::ssize(starts) - 1);
  }
};

// The tile that one call of the model answers: these pairs of each of these rows.
struct Tile {
  i64 n_rows = 0;
  i64 first_pair = 0;
  i64 last_pair = 0;  // exclusive
};

// Values as bits of one width. labels[row][column] is the bit of the mask that decides a column.
template <typename Word>
struct Sources {
  std::span<const Word> rows;        // [n_rows][n_columns]
  std::span<const Word> background;  // [n_background][n_columns], group by group
  std::span<const i32> designs;      // [n_rows]
  std::span<const i32> labels;       // [n_rows][n_columns]
};

// input[n_rows][pairs of the tile][2][rows of the group][n_columns]
template <typename Word>
void fill_masked(const Plan& plan, const Tile& tile, const Sources<Word>& sources, std::span<Word> input) noexcept;

// Half the difference of the linked means of S and its complement.
// outputs[as input, without columns][n_outputs], weights[n_background] -> differences[n_rows][n_outputs][width]
template <typename Value>
void reduce_pairs(const Plan& plan, const Tile& tile, std::span<const Value> outputs, std::span<const f64> weights,
                  Link link, i64 width, std::span<f64> differences) noexcept;

// One shuffle of the labels for each stream. streams[n] -> labels[n][n_labels]
void label_rows(std::span<const u64> streams, u64 seed, std::span<i32> labels) noexcept;

// Keys of rows from the bits of their values. values[n][n_columns] -> keys[n]
void key_rows(std::span<const u64> values, std::span<u64> keys) noexcept;

// values[n][depth] times matrix[depth][width], each sum in the order of depth. products[n][width]
void multiply_rows(std::span<const f64> values, std::span<const f64> matrix, i64 depth,
                   std::span<f64> products) noexcept;

}  // namespace tidegauge
