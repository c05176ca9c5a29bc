#include "arrow/vectors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "arrow/read.hpp"
#include "errors.hpp"
#include "histogram/slot.hpp"

namespace tidegauge {
namespace {

// Copies members as floats; false when one of them is not finite or too large.
template <typename T>
bool copy_members(const T* members, i64 width, float* out) noexcept {
  std::uint32_t bad = 0;
  for (i64 k = 0; k < width; ++k) {
    const float member = to_float(members[k]);
    bad |= std::abs(member) <= kLargestMember ? 0U : 1U;
    out[k] = member;
  }
  return bad == 0;
}

bool read_members(const ColumnView& members, i64 first, i64 width, float* out) noexcept {
  const i64 begin = members.offset + first;
  switch (members.type) {
    case Type::kFloat16: return copy_members(static_cast<const Half*>(members.values) + begin, width, out);
    case Type::kFloat32: return copy_members(static_cast<const float*>(members.values) + begin, width, out);
    default: return copy_members(static_cast<const f64*>(members.values) + begin, width, out);
  }
}

struct Extent {
  i64 first, size;
};

// Where the members of a row lie among those of the view.
Extent extent_of(const ColumnView& view, i64 row) noexcept {
  const auto between = [&](const auto* offsets) -> Extent {
    return {offsets[view.offset + row], offsets[view.offset + row + 1] - offsets[view.offset + row]};
  };
  if (view.type == Type::kList) return between(static_cast<const std::int32_t*>(view.values));
  if (view.type == Type::kLargeList) return between(static_cast<const std::int64_t*>(view.values));
  return {row * view.width, view.width};
}

}  // namespace

void read_vectors(const ColumnView& view, i64 start, std::span<float> out, std::span<i32> states) {
  const i64 width = static_cast<i64>(out.size() / states.size());
  for (std::size_t row = 0; row < states.size(); ++row) {
    const i64 position = start + static_cast<i64>(row);
    float* vector = out.data() + static_cast<i64>(row) * width;
    i32& state = states[row];
    state = kMissingCode;
    if (view.is_valid(position)) {
      const auto [first, size] = extent_of(view, position);
      state = size != width ? kInvalidCode : read_members(*view.members, first, width, vector) ? 0 : kNanCode;
      if (state == 0 && view.members->validity != nullptr)
        for_each_null(*view.members, first, width, [&](i64) { state = kNanCode; });
    }
    if (state != 0) std::fill_n(vector, width, 0.0F);
  }
}

void check_vectors(const Batch& batch, i64 column) {
  for (const ColumnView& view : batch.chunks(column)) {
    if (!is_vector(view.type) && view.type != Type::kNull) {
      const auto index = static_cast<std::size_t>(column);
      throw DataError("column '" + batch.names()[index] + "': vectors are wanted, lists of floats, got " +
                      batch.types()[index]);
    }
  }
}

void read_vectors(const Batch& batch, i64 column, i64 start, std::span<float> out, std::span<i32> states) {
  check_vectors(batch, column);
  if (states.empty()) return;
  const std::size_t width = out.size() / states.size();
  const i64 stop = start + static_cast<i64>(states.size());
  batch.for_each_piece(column, start, stop, [&](const ColumnView& view, i64 first, i64 n, i64 row) {
    const auto offset = static_cast<std::size_t>(row - start);
    const auto size = static_cast<std::size_t>(n);
    read_vectors(view, first, out.subspan(offset * width, size * width), states.subspan(offset, size));
  });
}

void read_vectors(const Batch& batch, i64 column, std::span<const i64> rows, std::span<float> out,
                  std::span<i32> states) {
  const std::size_t width = rows.empty() ? 0 : out.size() / rows.size();
  for (std::size_t i = 0; i < rows.size(); ++i)
    read_vectors(batch, column, rows[i], out.subspan(i * width, width), states.subspan(i, 1));
}

i64 vector_width(const Batch& batch, i64 column) {
  check_vectors(batch, column);
  for (const ColumnView& view : batch.chunks(column)) {
    if (view.type == Type::kVector) return view.width;
    for (i64 row = 0; row < view.length; ++row) {
      if (view.is_valid(row)) return extent_of(view, row).size;
    }
  }
  return 0;
}

}  // namespace tidegauge
