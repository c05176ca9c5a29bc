#include "window/block_encoder.hpp"

#include <algorithm>
#include <bit>
#include <type_traits>

namespace tidegauge {
namespace {

constexpr u16 kUnread = 0xffff;  // of an entry that was not met yet; no column has so many slots

void fill_slots(std::span<u16> slots, i32 slot) { std::fill(slots.begin(), slots.end(), static_cast<u16>(slot)); }

template <typename T>
std::span<const T> numbers_at(const ColumnView& view, i64 first, i64 n) {
  return {static_cast<const T*>(view.values) + view.offset + first, static_cast<std::size_t>(n)};
}

// Calls visit(T{}) for the type of numbers that lie in memory as T; false for any other type.
template <typename Visit>
bool visit_type(Type type, Visit&& visit) {
  switch (type) {
    case Type::kInt8: visit(std::int8_t{}); return true;
    case Type::kInt16: visit(std::int16_t{}); return true;
    case Type::kInt32: visit(std::int32_t{}); return true;
    case Type::kInt64: visit(std::int64_t{}); return true;
    case Type::kUInt8: visit(std::uint8_t{}); return true;
    case Type::kUInt16: visit(std::uint16_t{}); return true;
    case Type::kUInt32: visit(std::uint32_t{}); return true;
    case Type::kUInt64: visit(std::uint64_t{}); return true;
    case Type::kFloat16: visit(Half{}); return true;
    case Type::kFloat32: visit(float{}); return true;
    case Type::kFloat64: visit(f64{}); return true;
    default: return false;
  }
}

}  // namespace

Content content_of(std::string_view name) {
  if (name == "categories") return Content::kCategories;
  return name == "times" ? Content::kTimes : Content::kNumbers;
}

BlockEncoder::BlockEncoder(const Batch& batch, const FillColumn& column, ColumnMemory& memory, i64 n_rows)
    : batch_(batch), column_(column), memory_(memory), slots_(static_cast<std::size_t>(std::min(kBlock, n_rows))) {}

Block BlockEncoder::encode_block(i64 start, i64 n, Tally tally, Output output) {
  start_ = start;
  n_ = n;
  Block block;
  block.slots = std::span(slots_).first(static_cast<std::size_t>(n));
  block.has_numbers = column_.content != Content::kCategories && column_.source >= 0;
  if (column_.source < 0) {
    fill_slots(block.slots, kAbsent);
    if (tally) tally_slots(block.slots.data(), n, tally);
    return block;
  }
  batch_.for_each_piece(column_.source, start, start + n, [&](const ColumnView& view, i64 first, i64 size, i64 row) {
    encode_piece({view, first, row - start, size}, block, tally, output);
  });
  return block;
}

void BlockEncoder::encode_piece(const Piece& piece, Block& block, Tally tally, Output output) {
  const ColumnView& view = piece.view;
  const auto slots = block.slots.subspan(static_cast<std::size_t>(piece.offset), static_cast<std::size_t>(piece.n));
  const auto finish = [&] {
    for_each_null(view, piece.first, piece.n, [&](i64 row) { slots[static_cast<std::size_t>(row)] = kMissing; });
    if (tally) tally_slots(slots.data(), piece.n, tally);
  };
  const Type type = view.value_type();
  const bool fits = column_.content == Content::kCategories || type == Type::kNull ||
                    (column_.content == Content::kTimes ? is_time(type) : is_number(type));
  if (!fits || type == Type::kNull) {
    block.exact = false;
    fill_slots(slots, kInvalid);
    finish();
  } else if (view.dictionary) {
    look_up(*view.dictionary, view.length);
    block.range.merge(memory_.table.range);
    block.exact = false;  // not every entry need have been met
    visit_type(view.type, [&](auto code) {
      if constexpr (std::is_integral_v<decltype(code)>) encode_codes<decltype(code)>(piece, slots, tally, output);
    });
  } else if (column_.content == Content::kCategories) {
    encode_texts(view, piece.first, slots);
    finish();
  } else {
    encode_numbers(piece, block, tally);
    for_each_null(view, piece.first, piece.n, [&](i64 row) {
      u16& slot = slots[static_cast<std::size_t>(row)];
      if (tally) tally.move(slot, kMissing);
      slot = kMissing;
      block.exact = false;
    });
  }
}

void BlockEncoder::encode_numbers(const Piece& piece, Block& block, Tally tally) {
  const auto slots = block.slots.subspan(static_cast<std::size_t>(piece.offset), static_cast<std::size_t>(piece.n));
  Encoded encoded;
  const bool in_place = visit_type(piece.view.type, [&](auto number) {
    encoded = encode(*column_.bins, numbers_at<decltype(number)>(piece.view, piece.first, piece.n), slots, tally);
  });
  if (!in_place) {
    numbers_.resize(slots_.size());
    const auto numbers = std::span(numbers_).first(slots.size());
    read_numbers(piece.view, piece.first, numbers);
    encoded = encode<f64>(*column_.bins, numbers, slots, tally);
  }
  block.range.merge(encoded.range);
  block.exact = block.exact && encoded.exact;
}

// Slots of plain texts and other values; those that are null get the slot of missing values here.
void BlockEncoder::encode_texts(const ColumnView& view, i64 first, std::span<u16> slots) {
  codes_.resize(std::max(codes_.size(), slots.size()));
  const auto codes = std::span(codes_).first(slots.size());
  if (!memory_.reader) memory_.reader.emplace(*column_.categories, Growth::kFixed);
  memory_.reader->read(view, first, codes);
  for (std::size_t row = 0; row < slots.size(); ++row) slots[row] = static_cast<u16>(codes[row] + kSpecials + 1);
  if (column_.sentinels == nullptr || column_.sentinels->size() == 0) return;
  std::array<char, 32> buffer;
  for (std::size_t row = 0; row < slots.size(); ++row) {
    if (codes[row] != kUnseenCode) continue;
    if (column_.sentinels->find(text_at(view, first + static_cast<i64>(row), buffer)) >= 0) slots[row] = kSentinel;
  }
}

// Makes the table that of a dictionary, for a chunk of n_rows rows.
void BlockEncoder::look_up(const ColumnView& dictionary, i64 n_rows) {
  if (memory_.dictionary != nullptr && same_values(*memory_.dictionary, dictionary)) return;
  memory_.dictionary = &dictionary;
  SlotTable& table = memory_.table;
  const auto n = static_cast<std::size_t>(dictionary.length);
  table.slots.assign(std::bit_ceil(std::max<std::size_t>(n, 1)), static_cast<u16>(kInvalid));
  const auto slots = std::span(table.slots).first(n);
  table.range = {};
  table.complete = column_.content != Content::kCategories || dictionary.length <= n_rows;
  if (column_.content != Content::kCategories) {
    table.numbers.resize(n);
    read_numbers(dictionary, 0, table.numbers);
    table.range = encode<f64>(*column_.bins, table.numbers, slots).range;
    for_each_null(dictionary, 0, dictionary.length, [&](i64 row) { slots[static_cast<std::size_t>(row)] = kMissing; });
  } else if (table.complete) {
    encode_texts(dictionary, 0, slots);
  } else {
    fill_slots(slots, kUnread);
  }
}

template <typename Code>
void BlockEncoder::look_up_met(const ColumnView& dictionary, std::span<const Code> codes) {
  for (const Code code : codes) {
    const auto entry = static_cast<std::size_t>(code);
    u16& slot = memory_.table.slots[entry];
    if (slot == kUnread) encode_texts(dictionary, static_cast<i64>(code), {&slot, 1});
  }
}

template <typename Code>
void BlockEncoder::encode_codes(const Piece& piece, std::span<u16> slots, Tally tally, Output output) {
  using Index = std::make_unsigned_t<Code>;  // a negative code becomes too large
  const ColumnView& view = piece.view;
  const auto codes = numbers_at<Index>(view, piece.first, piece.n);
  const u16* slot_of = memory_.table.slots.data();
  const u64 size = memory_.table.slots.size();
  Index bits = 0;
  for (const Index code : codes) bits = static_cast<Index>(bits | code);
  const bool inside = bits < size;  // the size being a power of two
  const auto each_null = [&](auto&& visit) { for_each_null(view, piece.first, piece.n, visit); };
  if (inside && !memory_.table.complete) look_up_met<Index>(*view.dictionary, codes);
  if (inside && tally && output == Output::kCounts) {
    tally_codes(codes.data(), piece.n, slot_of, tally);
    each_null([&](i64 row) { tally.move(slot_of[codes[static_cast<std::size_t>(row)]], kMissing); });
    return;
  }
  if (inside) {
    for (std::size_t row = 0; row < codes.size(); ++row) slots[row] = slot_of[codes[row]];
  } else {
    for (std::size_t row = 0; row < codes.size(); ++row) {
      slots[row] = kInvalid;
      if (codes[row] >= size) continue;
      look_up_met<Index>(*view.dictionary, codes.subspan(row, 1));
      slots[row] = slot_of[codes[row]];
    }
  }
  each_null([&](i64 row) { slots[static_cast<std::size_t>(row)] = kMissing; });
  if (tally) tally_slots(slots.data(), piece.n, tally);
}

std::span<const f64> BlockEncoder::numbers() {
  numbers_.resize(slots_.size());
  std::span<const f64> numbers = std::span(numbers_).first(static_cast<std::size_t>(n_));
  batch_.for_each_piece(column_.source, start_, start_ + n_, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
    const auto out = std::span(numbers_).subspan(static_cast<std::size_t>(row - start_), static_cast<std::size_t>(n));
    if (view.type == Type::kFloat64 && !view.dictionary && n == n_) {
      numbers = numbers_at<f64>(view, first, n);
    } else if (view.dictionary && is_number(view.dictionary->type)) {
      look_up(*view.dictionary, view.length);
      for (std::size_t i = 0; i < out.size(); ++i) {
        const i64 index = dictionary_index(view, first + static_cast<i64>(i));
        if (index >= 0) out[i] = memory_.table.numbers[static_cast<std::size_t>(index)];
      }
    } else if (is_number(view.type) || is_time(view.type)) {
      read_numbers(view, first, out);
    }
  });
  return numbers;
}

}  // namespace tidegauge
