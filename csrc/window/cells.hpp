// The matrix of sums: one row a cell (pane, segment), one block of counts a column, exact sums and extremes beside.
// Costs one hash look-up per change of cell when rows are added; memory follows the rows until blocks turn dense.
// Deterministic: rows add as integers, extremes by comparison; the order in which cells were met never shows.
#pragma once

#include <array>
#include <limits>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "window/count_block.hpp"
#include "window/exact_sum.hpp"
#include "window/panes.hpp"

namespace tidegauge {

struct CellKey {
  i64 pane = 0;     // start of the pane, microseconds
  i64 segment = 0;  // code of (version, segment)
  friend bool operator==(const CellKey&, const CellKey&) = default;
};

struct CellKeyHash {
  std::size_t operator()(const CellKey& key) const noexcept {
    u64 x = static_cast<u64>(key.pane) * 0x9e3779b97f4a7c15ULL ^ static_cast<u64>(key.segment);
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
    return x ^ x >> 32;
  }
};

struct Extremes {
  f64 minimum = std::numeric_limits<f64>::infinity();
  f64 maximum = -std::numeric_limits<f64>::infinity();

  void add(f64 x) noexcept {  // a NaN changes nothing, and both zeros are one
    x += 0.0;
    minimum = x < minimum ? x : minimum;
    maximum = x > maximum ? x : maximum;
  }
  void merge(const Extremes& other) noexcept {
    minimum = other.minimum < minimum ? other.minimum : minimum;
    maximum = other.maximum > maximum ? other.maximum : maximum;
  }
};

struct Cell {
  CellKey key;
  std::vector<CountBlock> blocks;             // [n_blocks]
  std::vector<Extremes> extremes;             // [n_blocks]; of finite values
  std::vector<std::array<i64, kLimbs>> sums;  // [n_sums]; empty until one is added
};

struct CellLayout {
  std::vector<i32> n_slots;  // [n_blocks]
  i32 n_sums = 0;
};

class Cells {
 public:
  explicit Cells(CellLayout layout);

  // Index of the cell of (pane, segment), made when new.
  [[nodiscard]] i32 locate(CellKey key);
  // Cells of rows: times[n] in their panes, segments[n_groups * n_sets] by groups[n]. out[n_sets * n]
  void locate(std::span<const i64> times, std::span<const i32> groups, std::span<const i64> segments,
              struct Located out);
  // Adds cells whose pane has become part of a wider one into that, and forgets those that are kept no longer.
  void roll(const Panes& panes);

  [[nodiscard]] Cell& operator[](i32 cell) noexcept { return *cells_[static_cast<std::size_t>(cell)]; }
  [[nodiscard]] const Cell& operator[](i32 cell) const noexcept { return *cells_[static_cast<std::size_t>(cell)]; }
  [[nodiscard]] i32 size() const noexcept { return static_cast<i32>(cells_.size()); }
  [[nodiscard]] const CellLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] i32 n_slots(i32 block) const noexcept { return layout_.n_slots[static_cast<std::size_t>(block)]; }

  // One int a cell, -1 before and after use: room to group rows by cell without allocating a call.
  [[nodiscard]] std::vector<i32>& run_of_cell() {
    run_of_cell_.resize(cells_.size(), -1);
    return run_of_cell_;
  }

  void widen(i32 block, i32 n_slots);  // new categories take new slots at the end
  void count(i32 cell, i32 block, i32 slot, i64 amount) {
    (*this)[cell].blocks[static_cast<std::size_t>(block)].add(slot, amount, n_slots(block));
  }
  // Memory held, with what the allocator and the index add to each piece.
  [[nodiscard]] i64 n_bytes() const noexcept;

 private:
  void merge(Cell& cell, const Cell& other);

  CellLayout layout_;
  std::vector<std::unique_ptr<Cell>> cells_;
  std::unordered_map<CellKey, i32, CellKeyHash> index_;
  std::vector<i32> run_of_cell_;
};

struct Located {
  Panes panes;
  i32 n_sets;
  std::span<i32> cells;  // [n_sets * n]
};

}  // namespace tidegauge
