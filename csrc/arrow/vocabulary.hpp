// A list of distinct texts and the code of each: categories of a feature, segment values, model versions.
// Costs about 20 ns a look-up; grows to a stated limit and no further.
// Deterministic: codes are given in the order in which texts are first met.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "portable.hpp"

namespace tidegauge {

enum class Growth { kFixed, kGrow };

class Vocabulary {
 public:
  Vocabulary(std::vector<std::string> texts, i64 limit);
  [[nodiscard]] i32 find(std::string_view text) const;   // code, or kUnseenCode
  [[nodiscard]] i32 find_or_add(std::string_view text);  // code, or kUnseenCode when full
  [[nodiscard]] const std::vector<std::string>& texts() const noexcept { return texts_; }
  [[nodiscard]] i64 size() const noexcept { return static_cast<i64>(texts_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };
  std::vector<std::string> texts_;
  std::unordered_map<std::string, i32, Hash, std::equal_to<>> codes_;
  i64 limit_;
};

}  // namespace tidegauge
