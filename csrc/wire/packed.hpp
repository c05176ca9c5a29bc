// Reads the packed columns of the wire (tidegauge.v1.ColumnBatch) from strangers into Arrow arrays, checked to the last offset.
// Costs one copy of the bytes, into aligned memory, and one look at every offset, code and character of text.
// Deterministic: the first broken column, in order, is the one reported; what comes out depends on the bytes alone.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "arrow/abi.hpp"
#include "arrow/batch.hpp"
#include "portable.hpp"

namespace tidegauge {

struct PackedLimits {
  i64 columns = 4096;
  i64 cells = 1 << 20;
  i64 dictionary = 65'536;
  i64 name_bytes = 256;
  i64 vector_members = 16'384;
};

class PackedBatch {
 public:
  // Throws DataError when the bytes are no such batch, or a column is not what it says it is.
  explicit PackedBatch(std::string_view wire, PackedLimits limits = {});
  PackedBatch(const PackedBatch&) = delete;
  PackedBatch& operator=(const PackedBatch&) = delete;

  // Adds a column with one text in every row; for rows that do not name it themselves.
  void add_constant(std::string name, std::string_view text);

  [[nodiscard]] i64 n_rows() const noexcept { return n_rows_; }
  [[nodiscard]] std::vector<std::string> names() const;
  // Bytes of the longest text of a column; 0 where it has none.
  [[nodiscard]] i64 longest_text(const std::string& name) const;
  // Whether both have the same columns of the same types, in the same order.
  [[nodiscard]] bool same_shape(const PackedBatch& other) const noexcept;

  // One batch of several of one shape, without a copy; they must outlive it.
  [[nodiscard]] static std::unique_ptr<Batch> join(const std::vector<const PackedBatch*>& parts);

 private:
  // A column as the Arrow interface wants it; a deque keeps its address.
  struct Field {
    std::string name;
    std::string format;
    ArrowSchema schema{};
    ArrowArray array{};
    const void* buffers[3]{};
    ArrowSchema* child_schema[1]{};
    ArrowArray* child_array[1]{};
    i64 longest_text = 0;
  };

  Field& add_field(std::string name, std::string format, i64 length);
  void add_column(std::string_view wire);
  void* hold(std::string_view bytes);  // a copy, aligned to 64 bytes
  void hold_texts(Field& field, const std::vector<std::string_view>& texts);

  PackedLimits limits_;
  i64 n_rows_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::deque<Field> columns_;
  std::deque<Field> inner_;  // dictionaries, members of vectors
};

}  // namespace tidegauge
