// What the CUDA fill is told: the columns of a batch as they lie on a device, and the pieces that they are counted in.
// No cost: plain structs, written by the host (device/bind.cpp) and read by the kernel (window/fill.cu).
// Freestanding: one layout for every compiler, held by the assertions below.
#pragma once

#include "histogram/slot.hpp"

namespace tidegauge {

enum class Reading : i32 { kNumbers, kTimes, kCodes };

// One chunk of a column. All pointers are the device's.
struct DeviceColumn {
  const void* values = nullptr;  // of the chunk's first row
  const u8* validity = nullptr;  // one bit a row; null when every row is valid
  i64 validity_bit = 0;          // of the chunk's first row
  i64 value_bit = 0;             // the same for packed booleans
  i64 first_row = 0;             // of the chunk, among the rows that are counted
  i64 first_slot = 0;            // of the column, in the row of counts of a cell
  i32 n_slots = 0;
  i32 number = 0;  // of the column, among those with extremes; -1 where it has none
  Reading reading = Reading::kNumbers;
  i32 outside = 0;             // kCodes: slot of values that the table does not reach
  const u16* table = nullptr;  // kCodes: slot of the value `lowest` + i
  i64 lowest = 0;
  i64 n_table = 0;
  i64 multiply = 1;  // kTimes: a tick lasts multiply / divide microseconds
  i64 divide = 1;
  BinsView bins;  // kNumbers, kTimes
};

// Rows [begin, end) of a chunk of a column, inside one stretch of rows.
struct Piece {
  i64 begin;
  i64 end;
  i32 column;
  i32 stretch;
};

// The cells of a stretch of rows in one set of segments.
struct CellRange {
  i32 first;
  i32 n_cells;
  i32 whole;  // every row lies in cell `first`
};

static_assert(sizeof(Grid) == 168 && sizeof(BinsView) == 200 && sizeof(DeviceColumn) == 304);
static_assert(sizeof(Piece) == 24 && sizeof(CellRange) == 12);

// Slots of the values of rows that follow each other, and the numbers they stand for (NaN for codes).
template <i32 n, typename T>
TIDE_FN void read_slots(const DeviceColumn& column, const T (&stored)[n], f64 (&values)[n], i32 (&slots)[n]) {
  if (column.reading == Reading::kCodes) {
    for (i32 i = 0; i < n; ++i) {
      const u64 place = static_cast<u64>(integer_of(stored[i])) - static_cast<u64>(column.lowest);
      slots[i] = place < static_cast<u64>(column.n_table) ? column.table[place] : column.outside;
      values[i] = from_bits(kQuietNan);
    }
    return;
  }
  for (i32 i = 0; i < n; ++i) {
    values[i] = column.reading == Reading::kNumbers
                    ? to_double(stored[i])
                    : microseconds_of(integer_of(stored[i]), column.multiply, column.divide);
  }
  slots_of(column.bins, values, slots);
}

TIDE_FN bool is_set(const u8* bits, i64 bit) { return (bits[bit >> 3] >> (bit & 7) & 1) != 0; }

}  // namespace tidegauge
