// Turns rows of a column view into plain arrays: doubles, UTC microseconds, vocabulary codes.
// Costs one pass over the rows asked for; numbers about 0.3 ns a value, texts 8 to 15 ns by their length and number.
// Deterministic: a value's result depends on the value and the vocabulary alone.
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "arrow/batch.hpp"
#include "arrow/vocabulary.hpp"
#include "histogram/bins.hpp"
#include "recent.hpp"

namespace tidegauge {

// Codes of values that are in no vocabulary: such that the slot of any code is the code and kSpecials + 1.
constexpr i32 kUnseenCode = -1;
constexpr i32 kMissingCode = kMissing - kSpecials - 1;  // null
constexpr i32 kNanCode = kNan - kSpecials - 1;          // a NaN where a category is wanted
constexpr i32 kInvalidCode = kInvalid - kSpecials - 1;  // of a type that cannot be a category

// Calls visit(row) for each null among rows [start, start + n) of the view.
template <typename Visit>
void for_each_null(const ColumnView& view, i64 start, i64 n, Visit&& visit) {
  if (view.type == Type::kNull) {
    for (i64 row = 0; row < n; ++row) visit(row);
    return;
  }
  if (view.validity == nullptr) return;
  for (i64 row = 0; row < n;) {
    const i64 bit = view.offset + start + row;
    if ((bit & 7) == 0 && n - row >= 64) {
      u64 valid;
      std::memcpy(&valid, view.validity + (bit >> 3), 8);
      for (u64 nulls = ~valid; nulls != 0; nulls &= nulls - 1) visit(row + std::countr_zero(nulls));
      row += 64;
    } else {
      if ((view.validity[bit >> 3] >> (bit & 7) & 1) == 0) visit(row);
      ++row;
    }
  }
}

// Whether two views surely show the same values; false says nothing.
[[nodiscard]] bool same_values(const ColumnView& a, const ColumnView& b) noexcept;

// Numbers as doubles; times as microseconds. Rows that are null hold any value. out[n]
void read_numbers(const ColumnView& view, i64 start, std::span<f64> out);

// The same over a whole batch, NaN where null; rejects columns that hold nothing of the kind. out[stop - start]
enum class Wanted { kNumbers, kTimes };
void read_numbers(const Batch& batch, i64 column, Wanted wanted, i64 start, std::span<f64> out);

// UTC microseconds; rejects nulls, other types and times beyond 64 bits. out[stop - start]
void read_times(const Batch& batch, i64 column, i64 start, std::span<i64> out);

// Codes of values in a vocabulary, or one of the negative codes above. Remembers numbers and the last dictionary met.
class CodeReader {
 public:
  CodeReader(Vocabulary& vocabulary, Growth growth) : vocabulary_(vocabulary), growth_(growth) {}
  void read(const ColumnView& view, i64 start, std::span<i32> out);  // out[n]

 private:
  static constexpr i32 kUnread = -100;

  i32 code_of(std::string_view text) {
    return growth_ == Growth::kGrow ? vocabulary_.find_or_add(text) : vocabulary_.find(text);
  }
  i32 code_at(const ColumnView& view, i64 row);
  void read_dictionary(const ColumnView& view, i64 start, std::span<i32> out);
  void read_numbers(const ColumnView& view, i64 start, std::span<i32> out);
  void read_texts(const ColumnView& view, i64 start, std::span<i32> out);

  Vocabulary& vocabulary_;
  Growth growth_;
  const ColumnView* dictionary_ = nullptr;
  std::vector<i32> of_dictionary_;        // kUnread until the entry is met
  std::optional<Recent<u64>> of_number_;  // by its bits
  Type number_type_ = Type::kNull;        // of these
};

// The text of the value at a row; the row must be valid. `buffer` holds the digits of numbers.
[[nodiscard]] std::string_view text_at(const ColumnView& view, i64 row, std::array<char, 32>& buffer);

// Index into the view's dictionary, -1 for one outside it, which only a broken producer makes.
[[nodiscard]] i64 dictionary_index(const ColumnView& view, i64 row) noexcept;

}  // namespace tidegauge
