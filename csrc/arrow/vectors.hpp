// Reads vectors, which are fixed-size lists or lists of floats, into rows of single precision.
// Costs one pass over the members, 0.1 to 0.3 ns each; fixed-size lists without nulls are read where they lie.
// Deterministic: a row's result depends on the row alone.
#pragma once

#include <span>

#include "arrow/batch.hpp"

namespace tidegauge {

constexpr float kLargestMember = 1e15F;  // squares of larger ones would leave single precision

// Reads rows of the view. A row without a usable vector is filled with zeros, and its state is kMissingCode when it is
// null, kInvalidCode when its length is another, kNanCode when a member is null, not finite or beyond
// kLargestMember; the state of any other row is 0. out[n * width], states[n]
void read_vectors(const ColumnView& view, i64 start, std::span<float> out, std::span<i32> states);

// The same over consecutive rows of a batch, and over any; a column that holds no vectors is rejected.
void read_vectors(const Batch& batch, i64 column, i64 start, std::span<float> out, std::span<i32> states);
void read_vectors(const Batch& batch, i64 column, std::span<const i64> rows, std::span<float> out,
                  std::span<i32> states);

// Members of a fixed-size list, or of the first list that is not null; 0 where there is none.
[[nodiscard]] i64 vector_width(const Batch& batch, i64 column);

// Rejects a column that holds no vectors.
void check_vectors(const Batch& batch, i64 column);

}  // namespace tidegauge
