// What a pair of coalitions meets and gives: its rows of the background, the difference of its answers, sums in order.
// Costs a multiplication and an addition an answer; a logarithm a mean where there is a link.
// Freestanding: IEEE operations in one order and a logarithm of our own, so CPU and CUDA give the same bits.
#pragma once

#include "portable.hpp"

namespace tidegauge {

enum class Link { kIdentity, kLogit };

// The background rows [first, first + n_rows) that a pair meets, and the rows of the model's input before the pair's own.
struct Meeting {
  i64 first;
  i64 n_rows;
  i64 before;
};

// Pair k belongs to group k % n_groups, which owns the background rows starts[g]..starts[g + 1]. A pair takes 2 n_rows
// rows of the model's input: S with each of its background rows, then the complement of S with each. Starts {0, 2, 3}:
// pair 0 meets rows 0 and 1, pair 1 row 2 behind 4 rows of input, pair 2 rows 0 and 1 behind 6. starts[n_groups + 1]
TIDE_FN Meeting meeting_of(i64 pair, const i64* starts, i64 n_groups) {
  const i64 cycle = pair / n_groups, group = pair % n_groups;
  return {starts[group], starts[group + 1] - starts[group], 2 * (cycle * starts[n_groups] + starts[group])};
}

// Natural logarithm of a positive normal number, good to one unit in the last place (after fdlibm): libraries differ there.
TIDE_FN f64 natural_log(f64 x) {
  constexpr u64 kRootHalf = 0x3FE6A09E00000000ULL, kOne = 0x3FF0000000000000ULL;
  const u64 bits = to_bits(x) + (kOne - kRootHalf);
  const f64 exponent = static_cast<f64>(static_cast<i64>(bits >> 52) - 1023);
  const f64 f = from_bits((bits & (~0ULL >> 12)) + kRootHalf) - 1;  // 1 + f from the root of 1/2 to that of 2
  const f64 s = f / (2 + f), z = s * s, w = z * z, half = 0.5 * f * f;
  const f64 even = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332));
  const f64 odd = z * (0.6666666666666735130 +
                       w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591)));
  return exponent * 6.93147180369123816490e-01 -
         ((half - (s * (half + (even + odd)) + exponent * 1.90821492927058770002e-10)) - f);
}

TIDE_FN f64 link_mean(f64 mean, Link link) {
  if (link == Link::kIdentity || mean != mean) return mean;
  const f64 p = mean < 1e-12 ? 1e-12 : mean > 1 - 1e-12 ? 1 - 1e-12 : mean;
  return natural_log(p / (1 - p));
}

// Half the difference of the linked means of S and its complement, one output: answers 3, 5 with S, then 1, 1 give 1.5.
// answers[2][n_rows], `stride` apart; weights[n_rows] add up to 1
template <typename Value>
TIDE_FN f64 pair_difference(const Value* answers, i64 stride, const f64* weights, i64 n_rows, Link link) {
  f64 with = 0, without = 0;
  for (i64 b = 0; b < n_rows; ++b) {
    with += weights[b] * static_cast<f64>(answers[b * stride]);
    without += weights[b] * static_cast<f64>(answers[(n_rows + b) * stride]);
  }
  return 0.5 * (link_mean(with, link) - link_mean(without, link));
}

// A row times a column of a matrix, in the order of the row. row[depth], column[depth], `width` apart
TIDE_FN f64 multiply_row(const f64* row, const f64* column, i64 depth, i64 width) {
  f64 sum = 0;
  for (i64 k = 0; k < depth; ++k) sum += row[k] * column[k * width];
  return sum;
}

}  // namespace tidegauge
