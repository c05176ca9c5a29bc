#include "join/read_keys.hpp"

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "arrow/read.hpp"
#include "errors.hpp"
#include "join/sip_hash.hpp"

namespace tidegauge {
namespace {

// With a secret mixed in before it is scattered, nobody can choose integers that crowd together.
template <typename T>
void scatter_integers(const ColumnView& view, i64 first, u64 secret, std::span<Key> out) noexcept {
  const T* values = static_cast<const T*>(view.values) + view.offset + first;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bool is_negative = std::is_signed_v<T> && values[i] < T{0};
    out[i] = {is_negative ? 1ULL : 0ULL, scatter(static_cast<u64>(static_cast<i64>(values[i])) ^ secret)};
  }
}

// Keys of valid rows [first, first + n); null rows get any. out[n]
void read_plain(const ColumnView& view, i64 first, const std::array<u64, 2>& secret, std::span<Key> out) {
  switch (view.type) {
    case Type::kInt8: return scatter_integers<std::int8_t>(view, first, secret[0], out);
    case Type::kInt16: return scatter_integers<std::int16_t>(view, first, secret[0], out);
    case Type::kInt32: return scatter_integers<std::int32_t>(view, first, secret[0], out);
    case Type::kInt64: return scatter_integers<std::int64_t>(view, first, secret[0], out);
    case Type::kUInt8: return scatter_integers<std::uint8_t>(view, first, secret[0], out);
    case Type::kUInt16: return scatter_integers<std::uint16_t>(view, first, secret[0], out);
    case Type::kUInt32: return scatter_integers<std::uint32_t>(view, first, secret[0], out);
    case Type::kUInt64: return scatter_integers<std::uint64_t>(view, first, secret[0], out);
    default: break;
  }
  std::array<char, 32> buffer;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const i64 row = first + static_cast<i64>(i);
    if (view.is_valid(row)) out[i] = sip_hash(text_at(view, row, buffer), secret);
  }
}

[[noreturn]] void reject(const Batch& batch, i64 column, const std::string& what) {
  throw DataError("column '" + batch.names()[static_cast<std::size_t>(column)] + "': " + what);
}

}  // namespace

void read_keys(const Batch& batch, i64 column, i64 start, std::span<Key> out, const std::array<u64, 2>& secret) {
  std::vector<Key> entries;  // of a dictionary
  const i64 stop = start + static_cast<i64>(out.size());
  batch.for_each_piece(column, start, stop, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
    const Type type = view.value_type();
    if (!is_integer(type) && !is_text(type))
      reject(batch, column, "ids are integers, text or bytes, got " + batch.types()[static_cast<std::size_t>(column)]);
    const auto reject_row = [&](i64 i) {
      reject(batch, column, "row " + std::to_string(row + i) + " has no id; give every row one or leave the row out");
    };
    for_each_null(view, first, n, reject_row);
    const auto keys = out.subspan(static_cast<std::size_t>(row - start), static_cast<std::size_t>(n));
    if (!view.dictionary) return read_plain(view, first, secret, keys);
    entries.resize(static_cast<std::size_t>(view.dictionary->length));
    read_plain(*view.dictionary, 0, secret, entries);
    for (i64 i = 0; i < n; ++i) {
      const i64 index = dictionary_index(view, first + i);
      if (index < 0 || !view.dictionary->is_valid(index)) reject_row(i);
      keys[static_cast<std::size_t>(i)] = entries[static_cast<std::size_t>(index)];
    }
  });
}

}  // namespace tidegauge
