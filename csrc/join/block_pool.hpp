// Memory in blocks of one size, recycled and never given back: new memory costs ten times what used memory does.
// Costs nothing a block once it has been used; slabs double, in huge pages where the system allows.
// Deterministic: what is in a block never depends on where it lies.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "portable.hpp"

namespace tidegauge {

class BlockPool {
 public:
  explicit BlockPool(std::size_t block_bytes) : block_bytes_(block_bytes) {}

  [[nodiscard]] std::byte* take();  // its bytes hold anything
  void give(std::byte* block) { free_.push_back(block); }
  [[nodiscard]] i64 n_bytes() const noexcept { return static_cast<i64>(n_touched_ * block_bytes_); }

 private:
  struct Release {
    std::size_t alignment;
    void operator()(std::byte* slab) const noexcept;
  };
  void grow();

  std::size_t block_bytes_;
  std::size_t n_touched_ = 0;  // blocks ever handed out
  std::size_t n_blocks_ = 0;   // blocks in all slabs
  std::vector<std::unique_ptr<std::byte[], Release>> slabs_;
  std::byte* next_ = nullptr;  // first block of the newest slab that was never handed out
  std::size_t n_left_ = 0;     // of these
  std::vector<std::byte*> free_;
};

}  // namespace tidegauge
