// Places vectors among learnt centroids: which is nearest, how far, what the learnt directions leave over, the norm.
// Costs a multiplication and an addition a member for each centroid and direction, and a block of rows in memory.
// Deterministic: products are rounded and added in the order of the members, squares over 16 lanes in a fixed order.
#pragma once

#include <span>
#include <vector>

#include "arrow/batch.hpp"

namespace tidegauge {

constexpr i64 kPanel = 16;  // columns of the table that are multiplied together

class Embedding {
 public:
  // center[width], centroids[n_centroids * width], components[n_components * width]: orthonormal directions
  Embedding(std::vector<float> center, std::span<const float> centroids, std::span<const float> components);

  [[nodiscard]] i64 width() const noexcept { return static_cast<i64>(center_.size()); }
  [[nodiscard]] i64 n_centroids() const noexcept { return n_centroids_; }

  // What is learnt of some rows. rows[n * width], used as scratch
  struct Places {
    std::span<i32> clusters;  // index of the nearest centroid, the lowest of equals
    std::span<f64> distances;
    std::span<f64> errors;  // distance from the plane of the components
    std::span<f64> norms;
  };
  void place(std::span<float> rows, const Places& places) const;

 private:
  i64 n_centroids_;
  i64 n_components_;
  std::vector<float> center_;
  std::vector<float> centroids_;   // [n_centroids * width], around the center
  std::vector<float> half_norms_;  // [padded n_centroids] half of the squared norm of a centroid; infinite in padding
  std::vector<float> panels_;      // [n_panels * width * kPanel]: centroids, then components
};

// Places rows [start, start + n) of a column; rows without a usable vector get the codes of read_vectors as clusters.
struct EmbedOptions {
  i64 start = 0;
  i32 n_threads = 1;
};
void embed(const Embedding& embedding, const Batch& batch, i64 column, const EmbedOptions& options,
           const Embedding::Places& places);

}  // namespace tidegauge
