// Slots of one column of a batch, a block of rows at a time, whatever type the column came with.
// Costs what encode.hpp, tally.hpp and read.hpp state; an entry of a dictionary is looked up once.
// Deterministic: the slot of a value depends on the value and the column's bins or categories alone.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "arrow/batch.hpp"
#include "arrow/read.hpp"
#include "histogram/encode.hpp"

namespace tidegauge {

constexpr i64 kBlock = 4096;

enum class Content { kNumbers, kTimes, kCategories };
[[nodiscard]] Content content_of(std::string_view name);  // "numbers", "times" or "categories"

struct FillColumn {
  Content content = Content::kNumbers;
  i32 block = 0;                          // in the cells
  i64 source = -1;                        // column of the batch; -1 when it is absent
  const NumericBins* bins = nullptr;      // of numbers and times
  Vocabulary* categories = nullptr;       // of categories: code c counts in slot kSpecials + 1 + c, the rest before it
  const Vocabulary* sentinels = nullptr;  // texts that mean "missing"
};

// What the entries of a dictionary mean: looked up at once, or as they are met where the dictionary is long.
struct SlotTable {
  std::vector<u16> slots;    // [power of two]; kUnread until met, kInvalid past the end of the dictionary
  std::vector<f64> numbers;  // entries of a dictionary of numbers
  Range range;               // of these
  bool complete = false;
};

// What is kept of a column from one block to the next.
struct ColumnMemory {
  const ColumnView* dictionary = nullptr;  // the one that the table is of
  SlotTable table;
  std::optional<CodeReader> reader;
};

// A block of one column.
struct Block {
  std::span<u16> slots;  // hold anything where only counts were asked for
  bool has_numbers = false;
  bool exact = true;  // every number within the range counts
  Range range;        // holds all numbers that count
};

enum class Output { kCounts, kSlots };

class BlockEncoder {
 public:
  BlockEncoder(const Batch& batch, const FillColumn& column, ColumnMemory& memory, i64 n_rows);

  // Slots of rows [start, start + n), which are added to the tally where there is one.
  [[nodiscard]] Block encode_block(i64 start, i64 n, Tally tally, Output output);

  // The numbers of the block encoded last; rows whose slots are special hold any value.
  [[nodiscard]] std::span<const f64> numbers();

 private:
  struct Piece {  // rows [first, first + n) of a chunk, at `offset` in the block
    const ColumnView& view;
    i64 first;
    i64 offset, n;
  };

  void encode_piece(const Piece& piece, Block& block, Tally tally, Output output);
  void encode_numbers(const Piece& piece, Block& block, Tally tally);
  void encode_texts(const ColumnView& view, i64 first, std::span<u16> slots);
  template <typename Code>
  void encode_codes(const Piece& piece, std::span<u16> slots, Tally tally, Output output);
  void look_up(const ColumnView& dictionary, i64 n_rows);
  template <typename Code>
  void look_up_met(const ColumnView& dictionary, std::span<const Code> codes);

  const Batch& batch_;
  const FillColumn& column_;
  ColumnMemory& memory_;
  i64 start_ = 0, n_ = 0;  // of the block encoded last
  std::vector<u16> slots_;
  std::vector<f64> numbers_;
  std::vector<i32> codes_;
};

}  // namespace tidegauge
