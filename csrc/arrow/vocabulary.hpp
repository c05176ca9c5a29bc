// A list of distinct texts and the code of each: categories of a feature, segment values, model versions.
// Costs about 5 ns a look-up of a short text; grows to a stated limit and no further.
// Deterministic: codes are given in the order in which texts are first met.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "arrow/text_hash.hpp"
#include "portable.hpp"

namespace tidegauge {

enum class Growth { kFixed, kGrow };

class Vocabulary {
 public:
  Vocabulary(std::vector<std::string> texts, i64 limit);
  [[nodiscard]] i32 find(std::string_view text) const {  // code, or kUnseenCode
    const i32 code = places_[place_of(text, hash_text(text, seed_))].code;
    return code >= 0 ? code : find_as_utf8(text);
  }
  [[nodiscard]] i32 find_or_add(std::string_view text);  // code, or kUnseenCode when full
  [[nodiscard]] const std::vector<std::string>& texts() const noexcept { return texts_; }
  [[nodiscard]] i64 size() const noexcept { return static_cast<i64>(texts_.size()); }

 private:
  struct Place {
    u32 hash = 0;
    i32 code = -1;  // free
  };
  // Where the text is, or the free place that it would take.
  [[nodiscard]] std::size_t place_of(std::string_view text, u64 hash) const noexcept {
    const std::size_t mask = places_.size() - 1;
    for (std::size_t place = hash & mask;; place = (place + 1) & mask) {
      const Place& found = places_[place];
      if (found.code < 0) return place;
      if (found.hash == static_cast<u32>(hash >> 32) && same_text(texts_[static_cast<std::size_t>(found.code)], text))
        return place;
    }
  }
  [[nodiscard]] i32 find_as_utf8(std::string_view text) const;
  void add(std::string_view text);
  void place_all(std::size_t n_places);

  std::vector<std::string> texts_;
  std::vector<Place> places_;  // open addressing; a power of two, at most a quarter of them taken
  u64 seed_;
  i64 limit_;
};

}  // namespace tidegauge
