#include "arrow/vocabulary.hpp"

#include <bit>
#include <random>

#include "arrow/read.hpp"
#include "errors.hpp"

namespace tidegauge {
namespace {

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
  while (text.size() >= 8 && (load_bytes<u64>(text.data()) & 0x8080808080808080ULL) == 0) text.remove_prefix(8);
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
  place_all(std::bit_ceil(4 * texts.size() + 16));
  for (const std::string& text : texts) {
    if (places_[place_of(text, hash_text(text, seed_))].code >= 0)
      throw SchemaError("category '" + text + "' is listed twice");
    add(text);
  }
}

void Vocabulary::place_all(std::size_t n_places) {
  places_.assign(n_places, {});
  for (std::size_t code = 0; code < texts_.size(); ++code) {
    const u64 key = hash_text(texts_[code], seed_);
    places_[place_of(texts_[code], key)] = {static_cast<u32>(key >> 32), static_cast<i32>(code)};
  }
}

void Vocabulary::add(std::string_view text) {
  if (4 * (texts_.size() + 1) > places_.size()) place_all(2 * places_.size());
  const u64 key = hash_text(text, seed_);
  places_[place_of(text, key)] = {static_cast<u32>(key >> 32), static_cast<i32>(texts_.size())};
  texts_.emplace_back(text);
}

// A text that is no UTF-8 is looked for as it would be stored.
i32 Vocabulary::find_as_utf8(std::string_view text) const { return is_utf8(text) ? kUnseenCode : find(to_utf8(text)); }

i32 Vocabulary::find_or_add(std::string_view text) {
  const i32 code = find(text);
  if (code != kUnseenCode || size() >= limit_) return code;
  add(is_utf8(text) ? std::string(text) : to_utf8(text));
  return static_cast<i32>(size() - 1);
}

}  // namespace tidegauge
