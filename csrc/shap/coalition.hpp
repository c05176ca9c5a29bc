// Coalitions as bits: random numbers that draw and relabel them, the masking of a value, the key of a row.
// Costs about 10 ns for four random numbers; a masked value is an and and two exclusive ors.
// Freestanding: integers and bits alone, so every compiler, CUDA's too, draws the same coalitions.
#pragma once

#include "portable.hpp"

namespace tidegauge {

// Four random words: Philox-4x32 of ten rounds (Salmon et al., 2011), a function of key and counter and of nothing else.
struct Draws {
  u32 word[4];
};

TIDE_FN Draws philox(u64 key, u64 high, u64 low) {
  Draws counter = {{static_cast<u32>(low), static_cast<u32>(low >> 32), static_cast<u32>(high),  //
                    static_cast<u32>(high >> 32)}};
  u32 key_low = static_cast<u32>(key), key_high = static_cast<u32>(key >> 32);
  for (i32 round = 0; round < 10; ++round) {
    const u64 even = u64{0xD2511F53} * counter.word[0], odd = u64{0xCD9E8D57} * counter.word[2];
    counter = {{static_cast<u32>(odd >> 32) ^ counter.word[1] ^ key_low, static_cast<u32>(odd),
                static_cast<u32>(even >> 32) ^ counter.word[3] ^ key_high, static_cast<u32>(even)}};
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

// A number below `bound` out of a random word: 0x80000000 and 10 give 5.
TIDE_FN i32 scale_draw(u32 word, i32 bound) {
  return static_cast<i32>((static_cast<u64>(word) * static_cast<u64>(bound)) >> 32);
}

// The labels 0..n_labels-1 shuffled from the end, `n_swaps` places of it; the stream says which shuffle. labels[n_labels]
TIDE_FN void shuffle_labels(u64 seed, u64 stream, i32 n_swaps, i32 n_labels, i32* labels) {
  for (i32 label = 0; label < n_labels; ++label) labels[label] = label;
  Draws draws = {};
  for (i32 swap = 0; swap < n_swaps && swap + 1 < n_labels; ++swap) {
    if (swap % 4 == 0) draws = philox(seed, stream, static_cast<u64>(swap / 4));
    const i32 last = n_labels - 1 - swap, other = scale_draw(draws.word[swap % 4], last + 1);
    const i32 kept = labels[last];
    labels[last] = labels[other];
    labels[other] = kept;
  }
}

// Whether a coalition holds a label. mask[ceil(n_labels / 64)]
TIDE_FN u64 holds(const u64* mask, i32 label) { return mask[label >> 6] >> (label & 63) & 1; }

// The row's bits where `chosen` is all ones, the background's where it is zero; swap row and background for the complement.
template <typename Word>
TIDE_FN Word mask_value(Word row, Word background, Word chosen) {
  return static_cast<Word>(background ^ ((row ^ background) & chosen));
}

// Key of a row from the bits of its values: equal rows have equal keys, wherever they stand. values[n_values]
TIDE_FN u64 key_of_row(const u64* values, i64 n_values) {
  u64 key = 0x9E3779B97F4A7C15ULL;
  for (i64 i = 0; i < n_values; ++i) {
    key = (key ^ values[i]) * 0xBF58476D1CE4E5B9ULL;
    key = (key ^ (key >> 29)) * 0x94D049BB133111EBULL;
    key ^= key >> 32;
  }
  return key;
}

}  // namespace tidegauge
