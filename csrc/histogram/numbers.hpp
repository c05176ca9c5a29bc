// The widths of numbers that are encoded where they lie, and how each becomes the double that its bin is defined by.
// Costs one conversion a value, in registers.
// Deterministic: all but 64-bit integers are represented exactly; those are rounded to the nearest double.
#pragma once

#include <cstdint>
#include <limits>

#include "histogram/slot.hpp"

namespace tidegauge {

// A template of every such type.
template <template <typename...> typename List>
using EachNumber = List<f64, float, Half, std::int8_t, std::int16_t, std::int32_t, std::int64_t, std::uint8_t,
                        std::uint16_t, std::uint32_t, std::uint64_t>;

// Smallest and largest of some values, NaN left out; infinity and minus infinity where there is none.
struct Range {
  f64 low = std::numeric_limits<f64>::infinity();
  f64 high = -std::numeric_limits<f64>::infinity();

  void merge(const Range& other) noexcept {
    low = other.low < low ? other.low : low;
    high = other.high > high ? other.high : high;
  }
};

}  // namespace tidegauge
