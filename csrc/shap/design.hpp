// Draws the coalitions of a paired design: sizes by kernel weight, without replacement, complete sizes enumerated.
// Costs about a microsecond a drawn coalition, once for an explainer and a budget.
// Deterministic: counters and the seed decide each draw; what was drawn before only decides whether it is kept.
#pragma once

#include <vector>

#include "portable.hpp"

namespace tidegauge {

// One side of each pair {S, complement}, |S| <= n_players / 2, in random order.
struct Design {
  std::vector<u64> masks;    // [n_pairs][n_words], bit i of the words: player i is in S
  std::vector<f64> weights;  // [n_pairs] share of the Shapley kernel that the pair stands for; they add up to 1
  std::vector<f64> shares;   // [n_pairs] share of the pairs of this size that were drawn: 1 where enumerated
};

struct DesignOptions {
  i32 n_players = 2;
  i64 n_pairs = 1;  // no more than there are, 2^(n_players - 1) - 1
  u64 seed = 0;
  u64 stream = 0;  // another stream, another design
};

[[nodiscard]] inline i32 mask_words(i32 n_players) noexcept { return (n_players + 63) / 64; }

[[nodiscard]] Design draw_design(const DesignOptions& options);

}  // namespace tidegauge
