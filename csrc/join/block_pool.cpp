#include "join/block_pool.hpp"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tidegauge {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = 2 << 20;
constexpr std::size_t kLargestSlab = 64 << 20;
constexpr std::size_t kWorthHugePages = 16 << 20;  // smaller slabs stay sparse: only what is used becomes resident

}  // namespace

void BlockPool::Release::operator()(std::byte* slab) const noexcept {
  ::operator delete[](slab, std::align_val_t(alignment));
}

void BlockPool::grow() {
  const std::size_t wanted = std::min(n_blocks_ * block_bytes_, kLargestSlab);
  const std::size_t n = std::max<std::size_t>(1, wanted / block_bytes_);
  const std::size_t bytes = n * block_bytes_;
  const std::size_t alignment = bytes >= kWorthHugePages ? kHugePage : kLine;
  auto* slab = static_cast<std::byte*>(::operator new[](bytes, std::align_val_t(alignment)));
  slabs_.emplace_back(slab, Release{alignment});
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (alignment == kHugePage) madvise(slab, bytes, MADV_HUGEPAGE);  // a wish: nothing depends on it
#endif
  next_ = slab;
  n_left_ = n;
  n_blocks_ += n;
}

std::byte* BlockPool::take() {
  if (!free_.empty()) {
    std::byte* block = free_.back();
    free_.pop_back();
    return block;
  }
  if (n_left_ == 0) grow();
  std::byte* block = next_;
  next_ += block_bytes_;
  --n_left_;
  ++n_touched_;
  return block;
}

}  // namespace tidegauge
