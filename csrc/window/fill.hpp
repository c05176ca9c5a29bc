// Counts rows and their columns into cells: each block is encoded once, then added to every cell that it meets.
// Costs about 1.2 ns a float64 for one cell a block, about 1 ns more for each further set of segments.
// Deterministic: tasks are columns, and a column's counts are touched by its own task alone.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "arrow/batch.hpp"
#include "arrow/vocabulary.hpp"
#include "histogram/encode.hpp"
#include "window/cells.hpp"

namespace tidegauge {

enum class Content { kNumbers, kTimes, kCategories };

struct FillColumn {
  Content content = Content::kNumbers;
  i32 block = 0;                          // in the cells
  i64 source = -1;                        // column of the batch; -1 when it is absent
  const NumericBins* bins = nullptr;      // of numbers and times
  Vocabulary* categories = nullptr;       // of categories: code c counts in slot kSpecials + 1 + c, the rest before it
  const Vocabulary* sentinels = nullptr;  // texts that mean "missing"
};

struct FillRows {
  i64 start = 0;  // first row of the batch
  i64 n_rows = 0;
  i32 n_sets = 1;
  i32 traffic_block = 0;       // of Traffic; its first slot counts the rows; -1 where they are counted already
  std::span<const i32> cells;  // [n_sets * n_rows]; -1 leaves a row out
};

void fill(Cells& cells, const Batch& batch, std::span<const FillColumn> columns, const FillRows& rows, i32 n_threads);

}  // namespace tidegauge
