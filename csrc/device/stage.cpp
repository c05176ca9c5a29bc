#include "device/stage.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "arrow/read.hpp"
#include "parallel.hpp"

namespace tidegauge {
namespace {

constexpr i64 kAlignment = 64;
constexpr i64 kTask = i64{1} << 20;  // bytes that a thread copies at once

struct Copy {
  const u8* from;
  i64 to;
  i64 n_bytes;
};

i64 bytes_of_bits(i64 first, i64 n) noexcept { return ((first & 7) + n + 7) / 8; }

}  // namespace

i64 width_of(Type type) noexcept {
  switch (type) {
    case Type::kInt8:
    case Type::kUInt8: return 1;
    case Type::kInt16:
    case Type::kUInt16:
    case Type::kFloat16: return 2;
    case Type::kInt32:
    case Type::kUInt32:
    case Type::kFloat32:
    case Type::kDate32: return 4;
    case Type::kBool: return 0;
    default: return 8;
  }
}

StagePlan plan_stage(const Batch& batch, std::span<const i64> columns, i64 start, i64 stop) {
  StagePlan plan;
  const auto take = [&](i64 n_bytes) {
    const i64 place = plan.n_bytes;
    plan.n_bytes += (n_bytes + kAlignment - 1) / kAlignment * kAlignment;
    return place;
  };
  for (const i64 column : columns) {
    const ColumnView* first_view = batch.chunks(column).data();
    batch.for_each_piece(column, start, stop, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
      StagedPart part;
      part.column = column;
      part.chunk = &view - first_view;
      part.first_row = row - start;
      part.n_rows = n;
      part.view = &view;
      part.start = first;
      const i64 width = width_of(view.type), bit = view.offset + first;
      part.values = take(width == 0 ? bytes_of_bits(bit, n) : n * width);
      part.value_bit = width == 0 ? bit & 7 : 0;
      if (view.validity != nullptr) {
        part.validity = take(bytes_of_bits(bit, n));
        part.validity_bit = bit & 7;
      }
      plan.parts.push_back(part);
    });
  }
  return plan;
}

void stage(const StagePlan& plan, std::span<u8> out, i32 n_threads) {
  std::vector<Copy> copies;
  const auto add = [&](const u8* from, i64 to, i64 n_bytes) {
    for (i64 done = 0; done < n_bytes; done += kTask) {
      copies.push_back({from + done, to + done, std::min(kTask, n_bytes - done)});
    }
  };
  for (const StagedPart& part : plan.parts) {
    const ColumnView& view = *part.view;
    const i64 width = width_of(view.type), bit = view.offset + part.start;
    const auto* values = static_cast<const u8*>(view.values);
    if (width == 0) {
      add(values + bit / 8, part.values, bytes_of_bits(bit, part.n_rows));
    } else {
      add(values + bit * width, part.values, part.n_rows * width);
    }
    if (part.validity >= 0) add(view.validity + bit / 8, part.validity, bytes_of_bits(bit, part.n_rows));
  }
  parallel_for(static_cast<i64>(copies.size()), copies.size() > 4 ? n_threads : 1, [&](i64 index) {
    const Copy& copy = copies[static_cast<std::size_t>(index)];
    std::memcpy(out.data() + copy.to, copy.from, static_cast<std::size_t>(copy.n_bytes));
  });
}

std::vector<u16> dictionary_slots(const ColumnView& view, Vocabulary& categories, const Vocabulary& sentinels) {
  const ColumnView& entries = *view.dictionary;
  std::vector<i32> codes(static_cast<std::size_t>(entries.length));
  CodeReader(categories, Growth::kFixed).read(entries, 0, codes);
  std::vector<u16> slots(codes.size());
  std::array<char, 32> buffer;
  for (std::size_t entry = 0; entry < codes.size(); ++entry) {
    const bool means_missing = codes[entry] == kUnseenCode && sentinels.size() > 0 &&
                               sentinels.find(text_at(entries, static_cast<i64>(entry), buffer)) >= 0;
    slots[entry] = static_cast<u16>(means_missing ? kSentinel : codes[entry] + kSpecials + 1);
  }
  return slots;
}

}  // namespace tidegauge
