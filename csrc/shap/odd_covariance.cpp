#include "shap/odd_covariance.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace tidegauge {

void fill_odd_covariance(std::span<const f64> signs, std::span<const f64> ratios, std::span<f64> covariance) noexcept {
  const i64 m = std::ssize(ratios), n = std::ssize(signs) / m;
  f64 scale = 1;
  std::vector<f64> slopes;
  for (const f64 ratio : ratios) {
    scale *= std::sqrt((1 - ratio) * (1 + ratio));
    slopes.push_back(std::atanh(ratio));
  }
  // Players first, so that the loop over partners is contiguous. [m][n]
  std::vector<f64> turned(signs.size());
  for (i64 k = 0; k < n; ++k) {
    for (i64 i = 0; i < m; ++i)
      turned[static_cast<std::size_t>(i * n + k)] = signs[static_cast<std::size_t>(k * m + i)];
  }
  std::vector<f64> angles(static_cast<std::size_t>(n)), mains(static_cast<std::size_t>(n));
  for (i64 k = 0; k < n; ++k) {
    std::fill(angles.begin(), angles.end(), 0.0);
    std::fill(mains.begin(), mains.end(), 0.0);
    for (i64 i = 0; i < m; ++i) {
      const f64 sign = signs[static_cast<std::size_t>(k * m + i)];
      const f64 slope = sign * slopes[static_cast<std::size_t>(i)], ratio = sign * ratios[static_cast<std::size_t>(i)];
      const f64* partners = turned.data() + i * n;
      for (i64 j = 0; j <= k; ++j) {
        angles[static_cast<std::size_t>(j)] += slope * partners[j];
        mains[static_cast<std::size_t>(j)] += ratio * partners[j];
      }
    }
    for (i64 j = 0; j <= k; ++j) {
      const auto at = static_cast<std::size_t>(j);
      covariance[static_cast<std::size_t>(k * n + j)] = scale * std::sinh(angles[at]) - mains[at];
    }
    std::fill_n(covariance.begin() + k * n + k + 1, n - k - 1, 0.0);
  }
}

// By panels of columns: factorise the panel, then subtract its products from everything right of it.
bool factorise(std::span<f64> matrix, i64 n) noexcept {
  constexpr i64 kPanel = 64;
  f64* a = matrix.data();
  std::vector<f64> turned(static_cast<std::size_t>(kPanel * n));  // the panel, columns first, for contiguous loops
  for (i64 first = 0; first < n; first += kPanel) {
    const i64 last = std::min(first + kPanel, n), width = last - first;
    for (i64 i = first; i < n; ++i) {
      f64* row = a + i * n;
      for (i64 p = first; p < std::min(i, last); ++p) {
        f64 rest = row[p];
        for (i64 q = first; q < p; ++q) rest -= row[q] * a[p * n + q];
        row[p] = rest / a[p * n + p];
      }
      if (i < last) {
        f64 pivot = row[i];
        for (i64 q = first; q < i; ++q) pivot -= row[q] * row[q];
        if (!(pivot > 0)) return false;
        row[i] = std::sqrt(pivot);
      }
      for (i64 p = first; p < std::min(i + 1, last); ++p)
        turned[static_cast<std::size_t>((p - first) * n + i)] = row[p];
    }
    for (i64 i = last; i < n; ++i) {
      f64* __restrict__ row = a + i * n;
      i64 p = 0;
      for (; p + 4 <= width; p += 4) {
        const f64* b = turned.data() + p * n;
        const f64 *c = b + n, *d = c + n, *e = d + n;
        const f64 w = b[i], x = c[i], y = d[i], z = e[i];
        for (i64 j = last; j <= i; ++j) row[j] = row[j] - w * b[j] - x * c[j] - y * d[j] - z * e[j];
      }
      for (; p < width; ++p) {
        const f64* b = turned.data() + p * n;
        for (i64 j = last; j <= i; ++j) row[j] -= b[i] * b[j];
      }
    }
  }
  return true;
}

void solve_lower(std::span<const f64> factor, i64 n, std::span<f64> sides) noexcept {
  const i64 m = std::ssize(sides) / n;
  for (i64 i = 0; i < n; ++i) {
    f64* __restrict__ row = sides.data() + i * m;
    const f64* left = factor.data() + i * n;
    for (i64 p = 0; p < i; ++p) {
      const f64* other = sides.data() + p * m;
      for (i64 j = 0; j < m; ++j) row[j] -= left[p] * other[j];
    }
    for (i64 j = 0; j < m; ++j) row[j] /= left[i];
  }
}

void solve_upper(std::span<const f64> factor, i64 n, std::span<f64> sides) noexcept {
  const i64 m = std::ssize(sides) / n;
  for (i64 i = n - 1; i >= 0; --i) {
    f64* row = sides.data() + i * m;
    const f64* left = factor.data() + i * n;
    for (i64 j = 0; j < m; ++j) row[j] /= left[i];
    for (i64 p = 0; p < i; ++p) {
      f64* __restrict__ other = sides.data() + p * m;
      for (i64 j = 0; j < m; ++j) other[j] -= left[p] * row[j];
    }
  }
}

}  // namespace tidegauge
