#include "arrow/vocabulary.hpp"

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

Vocabulary::Vocabulary(std::vector<std::string> texts, i64 limit) : texts_(std::move(texts)), limit_(limit) {
  for (std::size_t code = 0; code < texts_.size(); ++code) {
    if (!codes_.emplace(texts_[code], static_cast<i32>(code)).second) {
      throw SchemaError("category '" + texts_[code] + "' is listed twice");
    }
  }
}

i32 Vocabulary::find(std::string_view text) const {
  auto found = codes_.find(text);
  if (found == codes_.end() && !is_utf8(text)) found = codes_.find(to_utf8(text));
  return found == codes_.end() ? kUnseenCode : found->second;
}

i32 Vocabulary::find_or_add(std::string_view text) {
  const i32 code = find(text);
  if (code != kUnseenCode || size() >= limit_) return code;
  texts_.push_back(is_utf8(text) ? std::string(text) : to_utf8(text));
  codes_.emplace(texts_.back(), static_cast<i32>(size() - 1));
  return static_cast<i32>(size() - 1);
}

}  // namespace tidegauge
