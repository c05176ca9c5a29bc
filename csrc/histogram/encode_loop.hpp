// The loops over numbers, included once by each translation unit that compiles them for an instruction set.
// Costs what encode.hpp states; a chunk of values stays in the first cache until its slots are counted.
// Deterministic: element-wise steps and exact minima. The including unit sets the namespace and the target.

constexpr i64 kChunk = 1024;       // values for which range and cuts are looked at
constexpr i64 kStep = 32;          // values encoded before those that precede them are counted
constexpr i64 kAhead = 32 * 1024;  // bytes by which memory is asked for before it is read: counting hides the wait

// Smallest and largest of n values, many at a time; `pick` gives a NaN for those to be left out.
template <typename Pick>
Range range_of(i64 n, Pick pick) {
  constexpr i64 kLanes = 32;
  Range whole;
  f64 lows[kLanes], highs[kLanes];
  for (i64 lane = 0; lane < kLanes; ++lane) {
    lows[lane] = whole.low;
    highs[lane] = whole.high;
  }
  i64 i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (i64 lane = 0; lane < kLanes; ++lane) {
      const f64 x = pick(i + lane);
      lows[lane] = x < lows[lane] ? x : lows[lane];  // in this order a NaN changes nothing
      highs[lane] = x > highs[lane] ? x : highs[lane];
    }
  }
  for (; i < n; ++i) whole.merge({pick(i), pick(i)});
  for (i64 half = kLanes / 2; half > 0; half /= 2) {
    for (i64 lane = 0; lane < half; ++lane) {
      lows[lane] = lows[lane + half] < lows[lane] ? lows[lane + half] : lows[lane];
      highs[lane] = highs[lane + half] > highs[lane] ? highs[lane + half] : highs[lane];
    }
  }
  whole.merge({lows[0], highs[0]});
  return whole;
}

// Range of the finite values[n] whose slots[n] count as values.
Range counted_range(const f64* values, const u16* slots, i64 n) {
  constexpr f64 kLargest = std::numeric_limits<f64>::max();
  constexpr f64 kNothing = std::numeric_limits<f64>::quiet_NaN();
  return range_of(n, [=](i64 i) {
    const f64 x = values[i];
    return slots[i] >= kSpecials && x >= -kLargest && x <= kLargest ? x : kNothing;
  });
}

// A chunk of values: their doubles[n], where they came from, and the cuts that tell them apart.
struct Chunk {
  const f64* doubles;
  i64 n;
  const char* source;
  i64 bytes_a_step;
  i32 first_cut, end_cut;
};

// Slots of values[n].
template <i32 (*cell)(f64, const Grid&)>
void encode_step(const Grid& grid, const Chunk& chunk, const f64* __restrict__ values, i64 n, u16* __restrict__ slots) {
  const i32 first = kSpecials + chunk.first_cut;
  for (i64 i = 0; i < n; ++i) {
    const i32 slot = first + cell(values[i], grid);
    slots[i] = static_cast<u16>(values[i] == values[i] ? slot : kNan);
  }
  for (i32 k = chunk.first_cut; k < chunk.end_cut; ++k) {
    const f64 cut = grid.cuts[k];
    for (i64 i = 0; i < n; ++i) slots[i] = static_cast<u16>(slots[i] + (values[i] >= cut ? 1 : 0));
  }
}

// Slots of a chunk, a step at a time; each step is counted while the next is encoded.
// The grid is a copy, which no count can overlap, so that its numbers stay in registers.
template <i32 (*cell)(f64, const Grid&)>
void encode_steps(const Grid grid, const Chunk chunk, u16* slots, Tally tally) {
  i64 start = 0;
  for (; start + kStep <= chunk.n; start += kStep) {
    const char* ahead = chunk.source + kAhead + start / kStep * chunk.bytes_a_step;
    for (i64 line = 0; line < chunk.bytes_a_step; line += 64) __builtin_prefetch(ahead + line, 0, 2);
    encode_step<cell>(grid, chunk, chunk.doubles + start, kStep, slots + start);
    if (tally && start > 0) tally_slots(slots + start - kStep, kStep, tally);
  }
  encode_step<cell>(grid, chunk, chunk.doubles + start, chunk.n - start, slots + start);
  const i64 counted = start > 0 ? start - kStep : 0;
  if (tally) tally_slots(slots + counted, chunk.n - counted, tally);
}

inline i32 only_cell(f64, const Grid&) { return 0; }

// Only cuts within the range of the chunk tell its values apart; those below add one to every slot.
Range encode_chunk(const Grid& grid, Chunk chunk, u16* slots, Tally tally) {
  const f64* values = chunk.doubles;
  const Range range = range_of(chunk.n, [=](i64 i) { return values[i]; });
  while (chunk.first_cut < grid.n_cuts && grid.cuts[chunk.first_cut] <= range.low) ++chunk.first_cut;
  chunk.end_cut = chunk.first_cut;
  while (chunk.end_cut < grid.n_cuts && grid.cuts[chunk.end_cut] <= range.high) ++chunk.end_cut;
  switch (grid.kind) {
    case GridKind::kLinear: encode_steps<linear_cell>(grid, chunk, slots, tally); break;
    case GridKind::kLog: encode_steps<log_cell>(grid, chunk, slots, tally); break;
    case GridKind::kSymlog: encode_steps<symlog_cell>(grid, chunk, slots, tally); break;
    default: encode_steps<only_cell>(grid, chunk, slots, tally);
  }
  return range;
}

template <typename T>
Range encode_grid(const Grid& grid, const T* values, i64 n, u16* slots, Tally tally) {
  Range range;
  f64 doubles[kChunk];
  for (i64 start = 0; start < n; start += kChunk) {
    const i64 size = n - start < kChunk ? n - start : kChunk;
    const T* source = values + start;
    const f64* widened = doubles;
    if constexpr (std::is_same_v<T, f64>) {
      widened = source;
    } else {
      for (i64 i = 0; i < size; ++i) doubles[i] = to_double(source[i]);
    }
    const Chunk chunk{widened, size, reinterpret_cast<const char*>(source), kStep * static_cast<i64>(sizeof(T)), 0, 0};
    range.merge(encode_chunk(grid, chunk, slots + start, tally));
  }
  return range;
}

template <typename... Ts>
Kernels make_kernels(const std::tuple<EncodeGrid<Ts>...>*) {
  return {{encode_grid<Ts>...}, counted_range};
}

Kernels kernels() { return make_kernels(static_cast<const decltype(Kernels::encode_grid)*>(nullptr)); }
