// Keyed 128-bit hash of a byte string: SipHash-1-3 with the 128-bit output of its authors.
// Costs about 0.5 ns a byte; a 36-character id takes about 20 ns.
// Deterministic for a secret; without the secret nobody can choose ids that collide.
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <string_view>

#include "arrow/read.hpp"

namespace tidegauge {

[[nodiscard]] inline Key sip_hash(std::string_view bytes, const std::array<u64, 2>& secret) noexcept {
  u64 v0 = 0x736f6d6570736575ULL ^ secret[0];
  u64 v1 = 0x646f72616e646f6dULL ^ secret[1] ^ 0xee;
  u64 v2 = 0x6c7967656e657261ULL ^ secret[0];
  u64 v3 = 0x7465646279746573ULL ^ secret[1];
  const auto round = [&]() noexcept {
    v0 += v1, v1 = std::rotl(v1, 13), v1 ^= v0, v0 = std::rotl(v0, 32);
    v2 += v3, v3 = std::rotl(v3, 16), v3 ^= v2;
    v0 += v3, v3 = std::rotl(v3, 21), v3 ^= v0;
    v2 += v1, v1 = std::rotl(v1, 17), v1 ^= v2, v2 = std::rotl(v2, 32);
  };
  const std::size_t n_words = bytes.size() / 8;
  for (std::size_t word = 0; word < n_words; ++word) {
    u64 m;
    std::memcpy(&m, bytes.data() + 8 * word, 8);
    v3 ^= m, round(), v0 ^= m;
  }
  u64 last = static_cast<u64>(bytes.size()) << 56;
  for (std::size_t i = 8 * n_words; i < bytes.size(); ++i) {
    last |= static_cast<u64>(static_cast<unsigned char>(bytes[i])) << (8 * (i - 8 * n_words));
  }
  v3 ^= last, round(), v0 ^= last;
  v2 ^= 0xee;
  round(), round(), round();
  const u64 low = v0 ^ v1 ^ v2 ^ v3;
  v1 ^= 0xdd;
  round(), round(), round();
  return {v0 ^ v1 ^ v2 ^ v3, low};
}

}  // namespace tidegauge
