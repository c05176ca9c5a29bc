#include "arrow/vocabulary.hpp"

#include "arrow/read.hpp"
#include "errors.hpp"

namespace tidegauge {

Vocabulary::Vocabulary(std::vector<std::string> texts, i64 limit) : texts_(std::move(texts)), limit_(limit) {
  for (std::size_t code = 0; code < texts_.size(); ++code) {
    if (!codes_.emplace(texts_[code], static_cast<i32>(code)).second) {
      throw SchemaError("category '" + texts_[code] + "' is listed twice");
    }
  }
}

i32 Vocabulary::find(std::string_view text) const {
  const auto found = codes_.find(text);
  return found == codes_.end() ? kUnseenCode : found->second;
}

i32 Vocabulary::find_or_add(std::string_view text) {
  const i32 code = find(text);
  if (code != kUnseenCode || size() >= limit_) return code;
  texts_.emplace_back(text);
  codes_.emplace(texts_.back(), static_cast<i32>(size() - 1));
  return static_cast<i32>(size() - 1);
}

}  // namespace tidegauge
