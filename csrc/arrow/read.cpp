#include "arrow/read.hpp"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "errors.hpp"
#include "histogram/numbers.hpp"

namespace tidegauge {
namespace {

template <typename T>
const T* values_of(const ColumnView& view) noexcept {
  return static_cast<const T*>(view.values) + view.offset;
}

template <typename T>
void widen(const ColumnView& view, i64 start, std::span<f64> out) noexcept {
  const T* values = values_of<T>(view) + start;
  for (std::size_t row = 0; row < out.size(); ++row) out[row] = to_double(values[row]);
}

// Microseconds since 1970 of a tick count, rounded down; false when they do not fit in 64 bits.
bool to_microseconds(i64 ticks, i64 ticks_per_second, i64& out) noexcept {
  if (ticks_per_second <= 1'000'000) return !__builtin_mul_overflow(ticks, 1'000'000 / ticks_per_second, &out);
  const i64 divisor = ticks_per_second / 1'000'000;
  out = ticks / divisor - (ticks % divisor < 0 ? 1 : 0);
  return true;
}

bool time_at(const ColumnView& view, i64 row, i64& out) noexcept {
  switch (view.type) {
    case Type::kTimestamp: return to_microseconds(values_of<std::int64_t>(view)[row], view.ticks_per_second, out);
    case Type::kDate64: return to_microseconds(values_of<std::int64_t>(view)[row], 1'000, out);
    default: return !__builtin_mul_overflow(i64{values_of<std::int32_t>(view)[row]}, 86'400'000'000LL, &out);
  }
}

i64 integer_at(const ColumnView& view, i64 row) noexcept {
  switch (view.type) {
    case Type::kBool: {
      const i64 bit = view.offset + row;
      return static_cast<const std::uint8_t*>(view.values)[bit >> 3] >> (bit & 7) & 1;
    }
    case Type::kInt8: return values_of<std::int8_t>(view)[row];
    case Type::kInt16: return values_of<std::int16_t>(view)[row];
    case Type::kInt32: return values_of<std::int32_t>(view)[row];
    case Type::kInt64: return values_of<std::int64_t>(view)[row];
    case Type::kUInt8: return values_of<std::uint8_t>(view)[row];
    case Type::kUInt16: return values_of<std::uint16_t>(view)[row];
    case Type::kUInt32: return values_of<std::uint32_t>(view)[row];
    default: return static_cast<i64>(values_of<std::uint64_t>(view)[row]);
  }
}

f64 float_at(const ColumnView& view, i64 row) noexcept {
  switch (view.type) {
    case Type::kFloat16: return to_double(values_of<Half>(view)[row]);
    case Type::kFloat32: return static_cast<f64>(values_of<float>(view)[row]);
    default: return values_of<f64>(view)[row];
  }
}

std::string_view text_of(const ColumnView& view, i64 row) noexcept {
  const auto slice = [&](i64 begin, i64 end) {
    return std::string_view(static_cast<const char*>(view.texts[0]) + begin, static_cast<std::size_t>(end - begin));
  };
  switch (view.type) {
    case Type::kText: {
      const auto* offsets = values_of<std::int32_t>(view) + row;
      return slice(offsets[0], offsets[1]);
    }
    case Type::kLargeText: {
      const auto* offsets = values_of<std::int64_t>(view) + row;
      return slice(offsets[0], offsets[1]);
    }
    case Type::kFixedText:
      return {static_cast<const char*>(view.values) + (view.offset + row) * view.width,
              static_cast<std::size_t>(view.width)};
    default: {
      const char* entry = static_cast<const char*>(view.values) + (view.offset + row) * 16;
      std::int32_t size, buffer, begin;
      std::memcpy(&size, entry, 4);
      if (size <= 12) return {entry + 4, static_cast<std::size_t>(size)};
      std::memcpy(&buffer, entry + 8, 4);
      std::memcpy(&begin, entry + 12, 4);
      return {static_cast<const char*>(view.texts[buffer]) + begin, static_cast<std::size_t>(size)};
    }
  }
}

template <typename T>
std::string_view digits(T value, std::array<char, 32>& buffer) noexcept {
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return {buffer.data(), static_cast<std::size_t>(end - buffer.data())};
}

[[noreturn]] void reject(const Batch& batch, i64 column, const std::string& what) {
  throw DataError("column '" + batch.names()[static_cast<std::size_t>(column)] + "': " + what);
}

const std::string& type_of(const Batch& batch, i64 column) { return batch.types()[static_cast<std::size_t>(column)]; }

}  // namespace

bool same_values(const ColumnView& a, const ColumnView& b) noexcept {
  const bool same_texts =
      a.texts == b.texts || ((a.type == Type::kText || a.type == Type::kLargeText) && a.type == b.type &&
                             a.length > 0 && b.length > 0 && a.texts[0] == b.texts[0]);
  return a.type == b.type && a.length == b.length && a.offset == b.offset && a.validity == b.validity &&
         a.values == b.values && a.width == b.width && (same_texts || !is_text(a.type));
}

i64 dictionary_index(const ColumnView& view, i64 row) noexcept {
  const i64 index = integer_at(view, row);
  return index >= 0 && index < view.dictionary->length ? index : -1;
}

void read_numbers(const ColumnView& view, i64 start, std::span<f64> out) {
  if (view.dictionary) {
    std::vector<f64> entries(static_cast<std::size_t>(view.dictionary->length));
    read_numbers(*view.dictionary, 0, entries);
    for (std::size_t row = 0; row < out.size(); ++row) {
      const i64 position = start + static_cast<i64>(row);
      out[row] = std::numeric_limits<f64>::quiet_NaN();
      if (!view.is_valid(position)) continue;
      if (const i64 index = dictionary_index(view, position); index >= 0)
        out[row] = entries[static_cast<std::size_t>(index)];
    }
    return;
  }
  switch (view.type) {
    case Type::kInt8: return widen<std::int8_t>(view, start, out);
    case Type::kInt16: return widen<std::int16_t>(view, start, out);
    case Type::kInt32: return widen<std::int32_t>(view, start, out);
    case Type::kInt64: return widen<std::int64_t>(view, start, out);
    case Type::kUInt8: return widen<std::uint8_t>(view, start, out);
    case Type::kUInt16: return widen<std::uint16_t>(view, start, out);
    case Type::kUInt32: return widen<std::uint32_t>(view, start, out);
    case Type::kUInt64: return widen<std::uint64_t>(view, start, out);
    case Type::kFloat16: return widen<Half>(view, start, out);
    case Type::kFloat32: return widen<float>(view, start, out);
    case Type::kFloat64: return widen<f64>(view, start, out);
    default: break;
  }
  for (std::size_t row = 0; row < out.size(); ++row) {
    const i64 position = start + static_cast<i64>(row);
    i64 time = 0;
    if (view.type == Type::kBool) {
      out[row] = static_cast<f64>(integer_at(view, position));
    } else if (is_time(view.type) && view.is_valid(position) && time_at(view, position, time)) {
      out[row] = static_cast<f64>(time);
    } else {
      out[row] = std::numeric_limits<f64>::quiet_NaN();
    }
  }
}

void read_numbers(const Batch& batch, i64 column, Wanted wanted, i64 start, std::span<f64> out) {
  const i64 stop = start + static_cast<i64>(out.size());
  batch.for_each_piece(column, start, stop, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
    const Type type = view.value_type();
    const bool readable = wanted == Wanted::kTimes ? is_time(type) : is_number(type);
    if (!readable && type != Type::kNull) {
      const std::string kind = wanted == Wanted::kTimes ? "timestamps" : "numbers";
      reject(batch, column, kind + " are wanted, got " + type_of(batch, column) + "; cast it before logging");
    }
    const auto piece = out.subspan(static_cast<std::size_t>(row - start), static_cast<std::size_t>(n));
    if (type != Type::kNull) read_numbers(view, first, piece);
    for_each_null(view, first, n,
                  [&](i64 null) { piece[static_cast<std::size_t>(null)] = std::numeric_limits<f64>::quiet_NaN(); });
    if (!view.dictionary) return;
    for (i64 i = 0; i < n; ++i) {
      const i64 index = view.is_valid(first + i) ? dictionary_index(view, first + i) : -1;
      if (index < 0 || !view.dictionary->is_valid(index))
        piece[static_cast<std::size_t>(i)] = std::numeric_limits<f64>::quiet_NaN();
    }
  });
}

void read_times(const Batch& batch, i64 column, i64 start, std::span<i64> out) {
  const i64 stop = start + static_cast<i64>(out.size());
  batch.for_each_piece(column, start, stop, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
    if (!is_time(view.type) || view.dictionary) {
      reject(batch, column,
             "timestamps are wanted, got " + type_of(batch, column) + "; cast it to timestamp (no zone means UTC)");
    }
    for_each_null(view, first, n, [&](i64 null) {
      reject(batch, column,
             "row " + std::to_string(row + null) + " has no timestamp; give every row one or leave the row out");
    });
    for (i64 i = 0; i < n; ++i) {
      if (!time_at(view, first + i, out[static_cast<std::size_t>(row - start + i)])) {
        reject(batch, column, "row " + std::to_string(row + i) + " lies beyond what 64-bit microseconds can hold");
      }
    }
  });
}

std::string_view text_at(const ColumnView& view, i64 row, std::array<char, 32>& buffer) {
  if (view.dictionary) {
    const i64 index = dictionary_index(view, row);
    return index < 0 ? std::string_view() : text_at(*view.dictionary, index, buffer);
  }
  if (is_text(view.type)) return text_of(view, row);
  if (view.type == Type::kBool) return integer_at(view, row) ? "true" : "false";
  if (view.type == Type::kUInt64) return digits(static_cast<u64>(integer_at(view, row)), buffer);
  if (is_integer(view.type)) return digits(integer_at(view, row), buffer);
  const f64 value = float_at(view, row);
  // A column of integers that once held a null comes back as floats: 3.0 is the category "3".
  if (value == std::trunc(value) && std::abs(value) < 9e15) return digits(static_cast<i64>(value), buffer);
  // A float32 prints as few digits as tell it from its neighbours, as it does elsewhere.
  if (view.type == Type::kFloat32) return digits(static_cast<float>(value), buffer);
  return digits(value, buffer);
}

i32 CodeReader::code_at(const ColumnView& view, i64 row) {
  if (!view.is_valid(row)) return kMissingCode;
  if (!is_text(view.type) && !is_number(view.type)) return kInvalidCode;
  if (is_float(view.type) && std::isnan(float_at(view, row))) return kNanCode;
  std::array<char, 32> buffer;
  return code_of(text_at(view, row, buffer));
}

void CodeReader::read_dictionary(const ColumnView& view, i64 start, std::span<i32> out) {
  const ColumnView& dictionary = *view.dictionary;
  if (dictionary_ == nullptr || !same_values(*dictionary_, dictionary)) {
    dictionary_ = &dictionary;
    of_dictionary_.assign(static_cast<std::size_t>(dictionary.length), kUnread);
  }
  for (std::size_t row = 0; row < out.size(); ++row) {
    const i64 position = start + static_cast<i64>(row);
    out[row] = kMissingCode;
    if (!view.is_valid(position)) continue;
    const i64 index = dictionary_index(view, position);
    out[row] = kInvalidCode;
    if (index < 0) continue;
    i32& code = of_dictionary_[static_cast<std::size_t>(index)];
    if (code == kUnread) code = code_at(dictionary, index);
    out[row] = code;
  }
}

// Numbers repeat, and their digits take long.
void CodeReader::read_numbers(const ColumnView& view, i64 start, std::span<i32> out) {
  if (number_type_ != view.type) of_number_.emplace();
  number_type_ = view.type;
  for (std::size_t row = 0; row < out.size(); ++row) {
    const i64 position = start + static_cast<i64>(row);
    out[row] = kMissingCode;
    if (!view.is_valid(position)) continue;
    const u64 bits = is_float(view.type) ? std::bit_cast<u64>(float_at(view, position))
                                         : static_cast<u64>(integer_at(view, position));
    out[row] = of_number_->get(bits, bits, [&] { return code_at(view, position); });
  }
}

void CodeReader::read_texts(const ColumnView& view, i64 start, std::span<i32> out) {
  for (std::size_t row = 0; row < out.size(); ++row) {
    const i64 position = start + static_cast<i64>(row);
    out[row] = view.is_valid(position) ? code_of(text_of(view, position)) : kMissingCode;
  }
}

void CodeReader::read(const ColumnView& view, i64 start, std::span<i32> out) {
  if (view.dictionary) return read_dictionary(view, start, out);
  if (is_number(view.type)) return read_numbers(view, start, out);
  if (is_text(view.type)) return read_texts(view, start, out);
  for (std::size_t row = 0; row < out.size(); ++row) out[row] = code_at(view, start + static_cast<i64>(row));
}

}  // namespace tidegauge
