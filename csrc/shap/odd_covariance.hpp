// How the odd interactions of a game make the differences of its pairs vary together, and the solving of that system.
// Costs n^3 / 3 operations a factorisation and n^2 m for m right-hand sides, once for an explainer and a budget.
// Deterministic: one order of operations, no library between, so an operator has the same bits on every machine.
#pragma once

#include <span>

#include "portable.hpp"

namespace tidegauge {

// Covariance of pairs under independent interactions of the odd sets T, |T| >= 3, of variance prod_{i in T} r_i:
// sinh(sum_i s_i t_i t'_i) prod_i sqrt(1 - r_i^2) - sum_i r_i t_i t'_i, s_i = atanh r_i.
// signs[n][n_players] of -1 and 1, ratios[n_players] -> covariance[n][n], lower triangle, zeros above
void fill_odd_covariance(std::span<const f64> signs, std::span<const f64> ratios, std::span<f64> covariance) noexcept;

// The lower triangle becomes its Cholesky factor. False when the matrix is not positive definite. matrix[n][n]
[[nodiscard]] bool factorise(std::span<f64> matrix, i64 n) noexcept;

// Solves L y = b and L' x = y in place. factor[n][n], sides[n][m]
void solve_lower(std::span<const f64> factor, i64 n, std::span<f64> sides) noexcept;
void solve_upper(std::span<const f64> factor, i64 n, std::span<f64> sides) noexcept;

}  // namespace tidegauge
