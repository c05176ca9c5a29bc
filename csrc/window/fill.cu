// The fill of window/fill.cpp on a device: pieces of columns into dense counts and extremes of cells.
// Values {0.5, 7, NaN} of a column with the slots [5: below 1] and [6: from 1], in rows of the cells {0, 1, 0}, give
// counts[0] = {NaN: 1, slot 5: 1}, counts[1] = {slot 6: 1}, extremes 0.5 .. 0.5 and 7 .. 7.
#include "window/device_fill.hpp"

namespace tidegauge {

constexpr i32 kMostThreads = 256;  // of a block; also the most cells whose extremes a block keeps to itself
constexpr i32 kGroup = sizeof(VALUE) == 8 ? 2 : 4;  // values that a thread takes at once: 128 bits of floats

struct alignas(sizeof(VALUE) * kGroup) Group {
  VALUE values[kGroup];
};

// A look first: an old key can only be less extreme, so that nothing is missed and few values reach the atomic.
__device__ inline void widen(u64* low, u64* high, u64 below, u64 above) {
  if (below < *static_cast<volatile u64*>(low)) atomicMin(low, below);
  if (above > *static_cast<volatile u64*>(high)) atomicMax(high, above);
}

// Values of the rows of a group; one load when all of them belong to the piece, and none outside it.
__device__ inline void load(const DeviceColumn& column, i64 row, const Piece& piece, VALUE (&out)[kGroup]) {
#ifdef PACKED_BITS
  const u8* bits = static_cast<const u8*>(column.values);
  for (i32 i = 0; i < kGroup; ++i) {
    const bool inside = row + i >= piece.begin && row + i < piece.end;
    out[i] = inside && is_set(bits, column.value_bit + row + i - column.first_row) ? 1 : 0;
  }
#else
  const VALUE* values = static_cast<const VALUE*>(column.values) + (row - column.first_row);
  if (row >= piece.begin && row + kGroup <= piece.end) {
    const Group group = *reinterpret_cast<const Group*>(values);
    for (i32 i = 0; i < kGroup; ++i) out[i] = group.values[i];
  } else {
    for (i32 i = 0; i < kGroup; ++i) {
      if (row + i >= piece.begin && row + i < piece.end) out[i] = values[i];
    }
  }
#endif
}

// columns, pieces[n_pieces], cells[n_sets * n_rows] (-1 leaves a row out; unread where a stretch is whole),
// ranges[n_sets * n_stretches]; counts[n_cells * n_slots], lows and highs[n_cells * n_numbers] as keys.
extern "C" __global__ void __launch_bounds__(kMostThreads, 4)
    fill(const DeviceColumn* __restrict__ columns, const Piece* __restrict__ pieces, i64 n_pieces,
         const i32* __restrict__ cells, i64 n_rows, const CellRange* __restrict__ ranges, i64 n_stretches, i64 n_sets,
         i64 n_slots, i64 n_numbers, i64 n_counters, u64* counts, u64* lows, u64* highs) {
  extern __shared__ u32 counters[];  // [n_counters]
  __shared__ u64 block_lows[kMostThreads], block_highs[kMostThreads];
  const i32 me = static_cast<i32>(threadIdx.x), n_threads = static_cast<i32>(blockDim.x);
  const f64 kInfinity = from_bits(0x7ffULL << 52);

  // Blocks that follow each other count the same rows into the sets: all but the first find them in the cache.
  for (i64 task = blockIdx.x; task < n_pieces * n_sets; task += gridDim.x) {
    const Piece piece = pieces[task / n_sets];
    const i64 set = task % n_sets;
    const DeviceColumn& column = columns[piece.column];
    const CellRange range = ranges[set * n_stretches + piece.stretch];
    const bool fits = range.n_cells <= kMostThreads && range.n_cells * static_cast<i64>(column.n_slots) <= n_counters;
    const i32 n_local = fits ? range.n_cells * column.n_slots : 0;
    u64* const column_counts = counts + column.first_slot;
    // Several counters a slot, so that lanes that meet the same value seldom wait for each other.
    i32 n_copies = 32;
    while (n_copies > 1 && static_cast<i64>(n_local) * n_copies > n_counters) n_copies /= 2;
    for (i32 i = me; i < n_local * n_copies; i += n_threads) counters[i] = 0;
    for (i32 i = me; i < kMostThreads; i += n_threads) {
      block_lows[i] = ~0ULL;
      block_highs[i] = 0;
    }
    __syncthreads();

    i32 current = range.first;
    f64 low = kInfinity, high = -kInfinity;  // of this thread's last rows, all in the cell `current`
    const auto keep = [&] {
      const i64 place = current * n_numbers + column.number;
      const i32 local = range.whole ? me : current - range.first;
      if (low > high) return;
      if (fits || range.whole) {
        widen(&block_lows[local], &block_highs[local], to_key(low), to_key(high));
      } else {
        widen(&lows[place], &highs[place], to_key(low), to_key(high));
      }
    };
    const i64 skew = static_cast<i64>(reinterpret_cast<u64>(column.values) / sizeof(VALUE) % kGroup);
    const i64 origin = column.first_row - skew;  // rows from here on lie in aligned groups
    for (i64 group = (piece.begin - origin) / kGroup + me; origin + group * kGroup < piece.end; group += n_threads) {
      const i64 first = origin + group * kGroup;
      VALUE stored[kGroup] = {};
      f64 values[kGroup];
      i32 slots[kGroup];
      load(column, first, piece, stored);
      read_slots(column, stored, values, slots);
      for (i32 i = 0; i < kGroup; ++i) {
        const i64 row = first + i;
        if (row < piece.begin || row >= piece.end) continue;
        const i32 cell = range.whole ? range.first : cells[set * n_rows + row];
        if (cell < 0) continue;
        if (column.validity != nullptr && !is_set(column.validity, column.validity_bit + row - column.first_row)) {
          slots[i] = kMissing;
        }
        if (fits) {
          const i32 counter = (cell - range.first) * column.n_slots + slots[i];
          atomicAdd(&counters[counter * n_copies + (me & (n_copies - 1))], 1U);
        } else {
          atomicAdd(&column_counts[cell * n_slots + slots[i]], 1ULL);
        }
        if (cell != current) {
          keep();
          current = cell;
          low = kInfinity;
          high = -kInfinity;
        }
        const f64 x = values[i];
        if ((x < low || x > high) && slots[i] >= kSpecials && x >= -kLargest && x <= kLargest) {
          low = x < low ? x : low;
          high = x > high ? x : high;
        }
      }
    }
    if (column.number >= 0) keep();
    for (i32 n = range.whole ? n_threads : 1, half = (n + 1) / 2; n > 1; n = half, half = (n + 1) / 2) {
      __syncthreads();
      if (me + half < n) widen(&block_lows[me], &block_highs[me], block_lows[me + half], block_highs[me + half]);
    }
    __syncthreads();

    for (i32 i = me; i < n_local; i += n_threads) {
      u64 total = 0;
      for (i32 copy = 0; copy < n_copies; ++copy) total += counters[i * n_copies + ((copy + i) & (n_copies - 1))];
      const i64 cell = range.first + i / column.n_slots;
      if (total > 0) atomicAdd(&column_counts[cell * n_slots + i % column.n_slots], total);
    }
    for (i32 i = me; i < (fits ? range.n_cells : range.whole) && column.number >= 0; i += n_threads) {
      const i64 place = (range.first + i) * n_numbers + column.number;
      widen(&lows[place], &highs[place], block_lows[i], block_highs[i]);
    }
    __syncthreads();
  }
}

}  // namespace tidegauge
