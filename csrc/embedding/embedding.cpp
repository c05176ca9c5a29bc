#include "embedding/embedding.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "arrow/read.hpp"
#include "arrow/vectors.hpp"
#include "embedding/project.hpp"
#include "histogram/encode.hpp"
#include "parallel.hpp"

namespace tidegauge {

namespace scalar {
constexpr int kLanes = 4;
#include "embedding/project_loop.hpp"
}  // namespace scalar

namespace {

constexpr i64 kRowStep = 12;           // what the loops take at once
constexpr i64 kBlockMembers = 65'536;  // of rows that are placed at once: 256 KB, half a second cache

const ProjectLoops& loops() noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
  const std::string_view name = instruction_set();
  if (name == "avx512") return avx512::kProjectLoops;
  if (name == "avx2") return avx2::kProjectLoops;
#endif
  return scalar::kProjectLoops;
}

i64 padded(i64 n, i64 step) noexcept { return (n + step - 1) / step * step; }

std::size_t index(i64 i) noexcept { return static_cast<std::size_t>(i); }

i64 rows_of_block(i64 width) noexcept { return std::max(kRowStep, kBlockMembers / width / kRowStep * kRowStep); }

}  // namespace

Embedding::Embedding(std::vector<float> center, std::span<const float> centroids, std::span<const float> components)
    : n_centroids_(static_cast<i64>(centroids.size() / center.size())),
      n_components_(static_cast<i64>(components.size() / center.size())),
      center_(std::move(center)),
      centroids_(centroids.begin(), centroids.end()),
      half_norms_(index(padded(n_centroids_, kPanel)), std::numeric_limits<float>::infinity()),
      panels_(index((padded(n_centroids_, kPanel) + padded(n_components_, kPanel)) * width())) {
  const auto set_column = [&](i64 column, const float* values) {
    float* panel = panels_.data() + column / kPanel * width() * kPanel;
    for (i64 k = 0; k < width(); ++k) panel[k * kPanel + column % kPanel] = values[k];
  };
  for (i64 j = 0; j < n_centroids_; ++j) {
    float* centroid = centroids_.data() + j * width();
    f64 squares = 0;
    for (i64 k = 0; k < width(); ++k) {
      centroid[k] -= center_[index(k)];
      squares += static_cast<f64>(centroid[k]) * static_cast<f64>(centroid[k]);
    }
    half_norms_[index(j)] = static_cast<float>(squares / 2);
    set_column(j, centroid);
  }
  for (i64 j = 0; j < n_components_; ++j) set_column(padded(n_centroids_, kPanel) + j, components.data() + j * width());
}

void Embedding::place(std::span<float> rows, const Places& places) const {
  const ProjectLoops& run = loops();
  const i64 n_rows = static_cast<i64>(rows.size()) / width();
  const i64 n_candidates = static_cast<i64>(half_norms_.size());
  const i64 stride = static_cast<i64>(panels_.size()) / width();
  std::vector<float> scores(index(n_rows * stride)), norms(index(n_rows)), centered(index(n_rows));
  for (i64 row = 0; row < n_rows; ++row)
    run.center(rows.data() + row * width(), center_.data(), width(), &norms[index(row)], &centered[index(row)]);
  for (i64 column = 0; column < stride; column += kPanel)
    run.project(rows.data(), n_rows, width(), panels_.data() + column * width(), scores.data() + column, stride);
  for (i64 row = 0; row < static_cast<i64>(places.clusters.size()); ++row) {
    const float* of_row = scores.data() + row * stride;
    const i32 cluster = run.nearest(of_row, half_norms_.data(), n_candidates);
    f64 left = static_cast<f64>(centered[index(row)]);
    for (i64 j = n_candidates; j < n_candidates + n_components_; ++j) {
      const f64 coordinate = static_cast<f64>(of_row[j]);
      left -= coordinate * coordinate;
    }
    const float* centroid = centroids_.data() + static_cast<i64>(cluster) * width();
    const float squared = run.squared_distance(rows.data() + row * width(), centroid, width());
    places.clusters[index(row)] = cluster;
    places.distances[index(row)] = std::sqrt(static_cast<f64>(squared));
    places.errors[index(row)] = std::sqrt(std::max(left, 0.0));
    places.norms[index(row)] = std::sqrt(static_cast<f64>(norms[index(row)]));
  }
}

void embed(const Embedding& embedding, const Batch& batch, i64 column, const EmbedOptions& options,
           const Embedding::Places& places) {
  check_vectors(batch, column);
  const i64 n_rows = static_cast<i64>(places.clusters.size());
  const i64 width = embedding.width();
  const i64 block = rows_of_block(width);
  constexpr i64 kBlocks = 8;  // of a task
  const auto place_task = [&](i64 task) {
    std::vector<float> rows(index(std::min(block, padded(n_rows, kRowStep)) * width));
    std::vector<i32> states(index(block));
    const i64 stop = std::min(n_rows, (task + 1) * kBlocks * block);
    for (i64 first = task * kBlocks * block; first < stop; first += block) {
      const i64 n = std::min(block, stop - first);
      const auto taken = std::span(rows).first(index(padded(n, kRowStep) * width));
      std::fill(taken.begin() + n * width, taken.end(), 0.0F);
      const auto found = std::span(states).first(index(n));
      read_vectors(batch, column, options.start + first, taken.first(index(n * width)), found);
      const Embedding::Places here{
          places.clusters.subspan(index(first), index(n)), places.distances.subspan(index(first), index(n)),
          places.errors.subspan(index(first), index(n)), places.norms.subspan(index(first), index(n))};
      embedding.place(taken, here);
      for (i64 row = 0; row < n; ++row) {
        if (found[index(row)] == 0) continue;
        here.clusters[index(row)] = found[index(row)];
        here.distances[index(row)] = here.errors[index(row)] = here.norms[index(row)] =
            std::numeric_limits<f64>::quiet_NaN();
      }
    }
  };
  const i64 n_tasks = (n_rows + kBlocks * block - 1) / (kBlocks * block);
  parallel_for(n_tasks, n_tasks > 1 ? options.n_threads : 1, place_task);
}

}  // namespace tidegauge
