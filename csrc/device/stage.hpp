// Copies rows of some columns of a batch into staging memory, chunk by chunk, for one transfer to a device.
// Costs one pass at the speed of memory; threads share the chunks' parts between them.
// Deterministic: where a part lies follows from the batch alone, and a part is written by one task.
#pragma once

#include <span>
#include <vector>

#include "arrow/batch.hpp"
#include "arrow/vocabulary.hpp"

namespace tidegauge {

// The rows of one chunk of a column; offsets count bytes from the start of the staging memory.
struct StagedPart {
  i64 column = 0;     // of the batch
  i64 chunk = 0;      // of the column
  i64 first_row = 0;  // of the rows that are staged
  i64 n_rows = 0;
  i64 values = 0;
  i64 value_bit = 0;  // of packed booleans
  i64 validity = -1;  // -1 where every row is valid
  i64 validity_bit = 0;
  const ColumnView* view = nullptr;
  i64 start = 0;  // in the view
};

struct StagePlan {
  std::vector<StagedPart> parts;
  i64 n_bytes = 0;
};

// Bytes that a value of a type takes; 0 for packed booleans.
[[nodiscard]] i64 width_of(Type type) noexcept;

[[nodiscard]] StagePlan plan_stage(const Batch& batch, std::span<const i64> columns, i64 start, i64 stop);
void stage(const StagePlan& plan, std::span<u8> out, i32 n_threads);

// Slot of every entry of a dictionary: a category, a text that means "missing", or one of neither.
[[nodiscard]] std::vector<u16> dictionary_slots(const ColumnView& view, Vocabulary& categories,
                                                const Vocabulary& sentinels);

}  // namespace tidegauge
