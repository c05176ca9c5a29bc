// Hashes and compares short texts, eight bytes at a time.
// Costs a few steps for each eight bytes, none of them out of line.
// Deterministic for a seed; the seed is drawn anew for each table, so that nobody can choose texts that crowd together.
#pragma once

#include <cstring>
#include <string_view>

#include "portable.hpp"

namespace tidegauge {

template <typename T>
u64 load_bytes(const char* bytes) noexcept {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// The bytes of a text of eight or fewer, told apart from all others of its size.
inline u64 short_bytes(const char* bytes, std::size_t n) noexcept {
  if (n >= 4) return load_bytes<u32>(bytes) << 32 | load_bytes<u32>(bytes + n - 4);
  if (n == 0) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<u64>(static_cast<unsigned char>(bytes[i])); };
  return byte(0) << 16 | byte(n / 2) << 8 | byte(n - 1);
}

inline u64 hash_text(std::string_view text, u64 seed) noexcept {
  __extension__ using u128 = unsigned __int128;
  const auto mix = [](u64 a, u64 b) {
    const u128 product = static_cast<u128>(a) * b;
    return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
  };
  constexpr u64 kFirst = 0x9e3779b97f4a7c15ULL, kSecond = 0xd6e8feb86659fd93ULL;
  const char* bytes = text.data();
  std::size_t n = text.size();
  u64 state = seed ^ n;
  for (; n > 8; bytes += 8, n -= 8) state = mix(state ^ load_bytes<u64>(bytes), kFirst);
  return mix(state ^ short_bytes(bytes, n), kSecond);
}

inline bool same_text(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) return false;
  const char *x = a.data(), *y = b.data();
  std::size_t n = a.size();
  for (; n > 8; x += 8, y += 8, n -= 8) {
    if (load_bytes<u64>(x) != load_bytes<u64>(y)) return false;
  }
  return short_bytes(x, n) == short_bytes(y, n);
}

}  // namespace tidegauge
