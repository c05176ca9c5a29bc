#include "arrow/vocabulary.hpp"

#include <bit>
#include <cstring>
#include <random>

#include "arrow/read.hpp"
#include "errors.hpp"

namespace tidegauge {
namespace {

template <typename T>
u64 load(const char* bytes) noexcept {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

u64 mix(u64 a, u64 b) noexcept {
  __extension__ using u128 = unsigned __int128;
  const u128 product = static_cast<u128>(a) * b;
  return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
}

// Length of the UTF-8 sequence at the front of the text, 0 where there is none.
std::size_t sequence_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xc2 ? 0
                             : lead < 0xe0 ? 2
                             : lead < 0xf0 ? 3
                             : lead < 0xf5 ? 4
                                           : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool outside = (lead == 0xed && byte(1) >= 0xa0) || (lead == 0xf4 && byte(1) >= 0x90);
  return overlong || outside ? 0 : length;
}

bool is_utf8(std::string_view text) noexcept {
  while (text.size() >= 8 && (load<u64>(text.data()) & 0x8080808080808080ULL) == 0) text.remove_prefix(8);
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// The text with each byte that is part of no character replaced, so that it can be shown and stored.
std::string to_utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    out.append(length == 0 ? std::string_view("\xef\xbf\xbd") : text.substr(0, length));
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

}  // namespace

Vocabulary::Vocabulary(std::vector<std::string> texts, i64 limit) : seed_(std::random_device{}()), limit_(limit) {
  place_all(std::bit_ceil(2 * texts.size() + 16));
  for (const std::string& text : texts) {
    if (places_[place_of(text, hash(text))].code >= 0) throw SchemaError("category '" + text + "' is listed twice");
    add(text);
  }
}

u64 Vocabulary::hash(std::string_view text) const noexcept {
  constexpr u64 kFirst = 0x9e3779b97f4a7c15ULL, kSecond = 0xd6e8feb86659fd93ULL;
  const char* bytes = text.data();
  std::size_t n = text.size();
  u64 state = seed_ ^ n;
  for (; n > 8; bytes += 8, n -= 8) state = mix(state ^ load<u64>(bytes), kFirst);
  u64 last = 0;  // the last eight bytes or fewer
  if (n >= 4) {
    last = load<u32>(bytes) << 32 | load<u32>(bytes + n - 4);
  } else if (n > 0) {
    const auto byte = [&](std::size_t i) { return static_cast<u64>(static_cast<unsigned char>(bytes[i])); };
    last = byte(0) << 16 | byte(n / 2) << 8 | byte(n - 1);
  }
  return mix(state ^ last, kSecond);
}

std::size_t Vocabulary::place_of(std::string_view text, u64 hash) const noexcept {
  const std::size_t mask = places_.size() - 1;
  for (std::size_t place = hash & mask;; place = (place + 1) & mask) {
    const Place& found = places_[place];
    if (found.code < 0) return place;
    if (found.hash == static_cast<u32>(hash >> 32) && texts_[static_cast<std::size_t>(found.code)] == text)
      return place;
  }
}

void Vocabulary::place_all(std::size_t n_places) {
  places_.assign(n_places, {});
  for (std::size_t code = 0; code < texts_.size(); ++code) {
    const u64 key = hash(texts_[code]);
    places_[place_of(texts_[code], key)] = {static_cast<u32>(key >> 32), static_cast<i32>(code)};
  }
}

void Vocabulary::add(std::string_view text) {
  if (2 * (texts_.size() + 1) > places_.size()) place_all(2 * places_.size());
  const u64 key = hash(text);
  places_[place_of(text, key)] = {static_cast<u32>(key >> 32), static_cast<i32>(texts_.size())};
  texts_.emplace_back(text);
}

i32 Vocabulary::find(std::string_view text) const {
  const i32 code = places_[place_of(text, hash(text))].code;
  if (code >= 0) return code;
  return is_utf8(text) ? kUnseenCode : find(to_utf8(text));
}

i32 Vocabulary::find_or_add(std::string_view text) {
  const i32 code = find(text);
  if (code != kUnseenCode || size() >= limit_) return code;
  add(is_utf8(text) ? std::string(text) : to_utf8(text));
  return static_cast<i32>(size() - 1);
}

}  // namespace tidegauge
