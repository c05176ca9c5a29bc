/* What the memory allows: one load after another, and loads that are asked for before they are wanted. */
#include <stddef.h>
#include <stdint.h>

/* Follows n links; each load waits for the one before. */
uint64_t chase(const uint64_t* lines, size_t n) {
  uint64_t at = 0;
  for (size_t i = 0; i < n; ++i) at = lines[8 * at];
  return at;
}

/* Sums n lines in groups of 32, which are fetched first. */
uint64_t fetch(const uint64_t* lines, const uint32_t* order, size_t n) {
  uint64_t sum = 0;
  for (size_t i = 0; i + 32 <= n; i += 32) {
    for (size_t k = 0; k < 32; ++k) __builtin_prefetch(lines + 8 * (size_t)order[i + k]);
    for (size_t k = 0; k < 32; ++k) sum += lines[8 * (size_t)order[i + k]];
  }
  return sum;
}
