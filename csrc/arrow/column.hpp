// A view of one Arrow array: where its values and its validity bits lie, and what they mean.
// Costs nothing to copy; owns nothing. The batch it came from must outlive it.
// Deterministic: reading a view never changes what it looks at.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "portable.hpp"

namespace tidegauge {

enum class Type {
  kNull,
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kFloat16,
  kFloat32,
  kFloat64,
  kText,        // utf8 and binary, 32-bit offsets
  kLargeText,   // the same, 64-bit offsets
  kTextView,    // the same, 16-byte views
  kFixedText,   // fixed-size binary
  kTimestamp,   // 64-bit ticks since 1970 in UTC
  kDate32,      // days since 1970
  kDate64,      // milliseconds since 1970
  kVector,      // fixed-size list of floats
  kList,        // list of floats, 32-bit offsets
  kLargeList,   // the same, 64-bit offsets
  kUnsupported  // nested and other types that no role can use
};

struct ColumnView {
  Type type = Type::kUnsupported;
  i64 length = 0;
  i64 offset = 0;                                // first row, in values and in validity bits
  const std::uint8_t* validity = nullptr;        // one bit a row; null when every row is valid
  const void* values = nullptr;                  // values, or offsets, or views of text
  const void* const* texts = nullptr;            // character buffers of text
  i64 ticks_per_second = 0;                      // of timestamps
  i64 width = 0;                                 // of fixed-size binary in bytes, of vectors in members
  std::shared_ptr<const ColumnView> dictionary;  // when set, `type` is that of the indices
  std::shared_ptr<const ColumnView> members;     // of vectors and lists

  [[nodiscard]] bool is_valid(i64 row) const noexcept {
    if (type == Type::kNull) return false;
    if (validity == nullptr) return true;
    const i64 bit = offset + row;
    return (validity[bit >> 3] >> (bit & 7) & 1) != 0;
  }
  [[nodiscard]] Type value_type() const noexcept { return dictionary ? dictionary->type : type; }
};

[[nodiscard]] inline bool is_integer(Type type) noexcept { return type >= Type::kInt8 && type <= Type::kUInt64; }
[[nodiscard]] inline bool is_number(Type type) noexcept { return type >= Type::kBool && type <= Type::kFloat64; }
[[nodiscard]] inline bool is_text(Type type) noexcept { return type >= Type::kText && type <= Type::kFixedText; }
[[nodiscard]] inline bool is_float(Type type) noexcept { return type >= Type::kFloat16 && type <= Type::kFloat64; }
[[nodiscard]] inline bool is_vector(Type type) noexcept { return type >= Type::kVector && type <= Type::kLargeList; }
[[nodiscard]] inline bool is_time(Type type) noexcept { return type >= Type::kTimestamp && type <= Type::kDate64; }

}  // namespace tidegauge
