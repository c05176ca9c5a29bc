#include "window/fill.hpp"

#include <algorithm>
#include <cmath>

#include "arrow/read.hpp"
#include "parallel.hpp"

namespace tidegauge {
namespace {

constexpr i64 kBlock = 4096;

struct Run {
  i32 cell;
  std::uint16_t begin, end;  // into the block's order
};

// For one set of segments: which rows of each block go to which cell.
struct SetPlan {
  std::vector<std::uint16_t> order;  // [n_rows] row within its block, grouped by cell; unused where whole
  std::vector<Run> runs;
  std::vector<std::size_t> first_run;  // [n_blocks + 1]
  std::vector<char> whole;             // [n_blocks] every row goes to one cell
};

SetPlan make_plan(std::span<const i32> cells, std::vector<i32>& seen) {
  const i64 n_rows = static_cast<i64>(cells.size());
  SetPlan plan;
  plan.order.resize(cells.size());
  plan.first_run.push_back(0);
  std::vector<std::uint16_t> run_of(std::min<std::size_t>(kBlock, cells.size()));
  std::vector<std::uint16_t> ends;
  for (i64 start = 0; start < n_rows; start += kBlock) {
    const auto block =
        cells.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(std::min(kBlock, n_rows - start)));
    const auto n = block.size();
    const std::size_t first = plan.runs.size();
    const bool whole =
        block[0] >= 0 && std::all_of(block.begin(), block.end(), [&](i32 cell) { return cell == block[0]; });
    if (whole) {
      plan.runs.push_back({block[0], 0, static_cast<std::uint16_t>(n)});
    } else {
      ends.clear();
      for (std::size_t row = 0; row < n; ++row) {
        if (block[row] < 0) continue;
        i32& run = seen[static_cast<std::size_t>(block[row])];
        if (run < 0) {
          run = static_cast<i32>(ends.size());
          ends.push_back(0);
          plan.runs.push_back({block[row], 0, 0});
        }
        run_of[row] = static_cast<std::uint16_t>(run);
        ++ends[static_cast<std::size_t>(run)];
      }
      std::uint16_t position = 0;
      for (std::size_t run = 0; run < ends.size(); ++run) {
        Run& entry = plan.runs[first + run];
        seen[static_cast<std::size_t>(entry.cell)] = -1;
        entry.begin = entry.end = position;
        position = static_cast<std::uint16_t>(position + ends[run]);
      }
      for (std::size_t row = 0; row < n; ++row) {
        if (block[row] >= 0)
          plan.order[static_cast<std::size_t>(start) + plan.runs[first + run_of[row]].end++] =
              static_cast<std::uint16_t>(row);
      }
    }
    plan.whole.push_back(whole ? 1 : 0);
    plan.first_run.push_back(plan.runs.size());
  }
  return plan;
}

// A block of one column: its slots and, where it holds numbers, its values.
struct Block {
  std::span<std::uint16_t> slots;
  std::span<const f64> values;  // empty where there are no numbers; finite unless the slot says otherwise
  bool has_hidden = false;      // some values stand for nothing: null, sentinel, or of a wrong type
};

// Encodes blocks of one column of the batch.
class BlockEncoder {
 public:
  BlockEncoder(const Batch& batch, const FillColumn& column, i64 n_rows)
      : batch_(batch), column_(column), slots_(static_cast<std::size_t>(std::min(kBlock, n_rows))) {
    if (column.content == Content::kNumbers || column.content == Content::kTimes) {
      numbers_.resize(slots_.size());
      return;
    }
    codes_.resize(slots_.size());
    if (column.source < 0) return;
    for (const ColumnView& view : batch.chunks(column.source))
      readers_.emplace_back(view, *column.categories, Growth::kFixed);
  }

  [[nodiscard]] Block encode_block(i64 start, std::size_t n) {
    Block block{std::span(slots_).first(n), {}};
    if (column_.source < 0) {
      std::fill(block.slots.begin(), block.slots.end(), static_cast<std::uint16_t>(kAbsent));
      return block;
    }
    const auto& views = batch_.chunks(column_.source);
    batch_.for_each_piece(
        column_.source, start, start + static_cast<i64>(n), [&](const ColumnView& view, i64 first, i64 size, i64 row) {
          const Piece piece{view, first, static_cast<std::size_t>(row - start), static_cast<std::size_t>(size)};
          if (column_.content == Content::kCategories) {
            encode_categories(readers_[static_cast<std::size_t>(&view - views.data())], view, first,
                              block.slots.subspan(piece.offset, piece.size));
          } else {
            encode_numbers(piece, block);
          }
        });
    return block;
  }

 private:
  struct Piece {  // rows [first, first + size) of a chunk, at `offset` in the block
    const ColumnView& view;
    i64 first;
    std::size_t offset, size;
  };

  void encode_numbers(const Piece& piece, Block& block) {
    const ColumnView& view = piece.view;
    const auto slots = block.slots.subspan(piece.offset, piece.size);
    const Type type = view.value_type();
    if (!(column_.content == Content::kTimes ? is_time(type) : is_number(type))) {
      std::fill(slots.begin(), slots.end(), static_cast<std::uint16_t>(kInvalid));
      block.has_hidden = true;
    } else if (view.type == Type::kFloat64 && !view.dictionary) {
      const std::span<const f64> source{static_cast<const f64*>(view.values) + view.offset + piece.first, piece.size};
      encode(*column_.bins, source, slots);
      keep(source, piece, block);
    } else {
      const auto numbers = std::span(numbers_).subspan(piece.offset, piece.size);
      read_numbers(view, piece.first, numbers);
      encode(*column_.bins, numbers, slots);
      keep(numbers, piece, block);
    }
    const auto mark_missing = [&](i64 row) {
      slots[static_cast<std::size_t>(row)] = kMissing;
      block.has_hidden = true;
    };
    for_each_null(view, piece.first, static_cast<i64>(piece.size), mark_missing);
    if (!view.dictionary) return;
    for (i64 row = 0; row < static_cast<i64>(piece.size); ++row) {
      if (!view.is_valid(piece.first + row)) continue;
      const i64 index = dictionary_index(view, piece.first + row);
      if (index < 0) slots[static_cast<std::size_t>(row)] = kInvalid;
      if (index >= 0 && !view.dictionary->is_valid(index)) mark_missing(row);
    }
  }

  // Where the whole block lies in one chunk its values stay where they are; otherwise they are gathered.
  void keep(std::span<const f64> source, const Piece& piece, Block& block) {
    block.has_hidden = block.has_hidden || !column_.bins->sentinels.empty();
    if (piece.size == block.slots.size()) {
      block.values = source;
      return;
    }
    if (source.data() != numbers_.data() + piece.offset)
      std::copy(source.begin(), source.end(), numbers_.begin() + static_cast<std::ptrdiff_t>(piece.offset));
    block.values = std::span<const f64>(numbers_).first(block.slots.size());
  }

  void encode_categories(CodeReader& reader, const ColumnView& view, i64 first, std::span<std::uint16_t> slots) {
    const auto codes = std::span(codes_).first(slots.size());
    reader.read(first, codes);
    for (std::size_t row = 0; row < slots.size(); ++row)
      slots[row] = static_cast<std::uint16_t>(codes[row] + kSpecials + 1);
    if (column_.sentinels == nullptr || column_.sentinels->size() == 0) return;
    std::array<char, 32> buffer;
    for (std::size_t row = 0; row < slots.size(); ++row) {
      if (codes[row] != kUnseenCode) continue;
      if (column_.sentinels->find(text_at(view, first + static_cast<i64>(row), buffer)) >= 0) slots[row] = kSentinel;
    }
  }

  const Batch& batch_;
  const FillColumn& column_;
  std::vector<CodeReader> readers_;  // one a chunk
  std::vector<std::uint16_t> slots_;
  std::vector<f64> numbers_;
  std::vector<i32> codes_;
};

// Counts of whole blocks on their way to one cell: four partial histograms keep repeated slots apart.
class Tally {
 public:
  explicit Tally(i32 n_slots) : n_slots_(static_cast<std::size_t>(n_slots)) {}

  void add(CountBlock* target, std::span<const std::uint16_t> slots) {
    if (target != target_ || n_rows_ > 1'000'000'000) {
      flush();
      target_ = target;
      parts_.resize(4 * n_slots_);  // allocated by the first block that comes
      total_.resize(n_slots_);
    }
    u32* parts = parts_.data();
    const std::size_t n = n_slots_;
    std::size_t i = 0;
    for (; i + 4 <= slots.size(); i += 4) {
      ++parts[slots[i]];
      ++parts[n + slots[i + 1]];
      ++parts[2 * n + slots[i + 2]];
      ++parts[3 * n + slots[i + 3]];
    }
    for (; i < slots.size(); ++i) ++parts[slots[i]];
    n_rows_ += static_cast<i64>(slots.size());
  }

  void flush() {
    if (target_ == nullptr) return;
    for (std::size_t slot = 0; slot < n_slots_; ++slot) {
      total_[slot] = static_cast<i64>(parts_[slot]) + parts_[n_slots_ + slot] + parts_[2 * n_slots_ + slot] +
                     parts_[3 * n_slots_ + slot];
    }
    target_->add_counts(total_);
    std::fill(parts_.begin(), parts_.end(), 0U);
    target_ = nullptr;
    n_rows_ = 0;
  }

 private:
  std::size_t n_slots_;
  std::vector<u32> parts_;
  std::vector<i64> total_;
  CountBlock* target_ = nullptr;
  i64 n_rows_ = 0;
};

// Extremes of the values that count, among rows order[begin..end) of a block, or of all rows where there is no order.
Extremes extremes_of(const Block& block) {
  Extremes extremes;
  if (!block.has_hidden) {
    finite_range(block.values, extremes.minimum, extremes.maximum);
    return extremes;
  }
  for (std::size_t i = 0; i < block.slots.size(); ++i) {
    if (block.slots[i] >= kSpecials && std::isfinite(block.values[i])) extremes.add(block.values[i]);
  }
  return extremes;
}

Extremes extremes_of(const Block& block, std::span<const std::uint16_t> order) {
  Extremes extremes;
  for (const std::uint16_t row : order) {
    if (block.slots[row] >= kSpecials && std::isfinite(block.values[row])) extremes.add(block.values[row]);
  }
  return extremes;
}

void fill_column(Cells& cells, const Batch& batch, const FillColumn& column, const FillRows& rows,
                 std::span<const SetPlan> plans) {
  const auto index = static_cast<std::size_t>(column.block);
  const i32 n_slots = cells.n_slots(column.block);
  BlockEncoder encoder(batch, column, rows.n_rows);
  std::vector<std::uint16_t> sorted(static_cast<std::size_t>(std::min(kBlock, rows.n_rows)));
  std::vector<Tally> tallies(plans.size(), Tally(n_slots));
  for (i64 start = 0; start < rows.n_rows; start += kBlock) {
    const auto n = static_cast<std::size_t>(std::min(kBlock, rows.n_rows - start));
    const auto number = static_cast<std::size_t>(start / kBlock);
    const Block block = encoder.encode_block(rows.start + start, n);
    for (std::size_t set = 0; set < plans.size(); ++set) {
      const SetPlan& plan = plans[set];
      const auto runs =
          std::span(plan.runs).subspan(plan.first_run[number], plan.first_run[number + 1] - plan.first_run[number]);
      if (plan.whole[number]) {
        Cell& cell = cells[runs[0].cell];
        if (n < static_cast<std::size_t>(n_slots) / 2) {
          cell.blocks[index].add(block.slots, n_slots);
        } else {
          tallies[set].add(&cell.blocks[index], block.slots);
        }
        if (!block.values.empty()) cell.extremes[index].merge(extremes_of(block));
        continue;
      }
      const auto order = std::span(plan.order).subspan(static_cast<std::size_t>(start), n);
      for (const Run& run : runs) {
        Cell& cell = cells[run.cell];
        const auto members = order.subspan(run.begin, static_cast<std::size_t>(run.end - run.begin));
        for (std::size_t i = 0; i < members.size(); ++i) sorted[i] = block.slots[members[i]];
        cell.blocks[index].add(std::span<const std::uint16_t>(sorted).first(members.size()), n_slots);
        if (!block.values.empty()) cell.extremes[index].merge(extremes_of(block, members));
      }
    }
  }
  for (Tally& tally : tallies) tally.flush();
}

}  // namespace

void fill(Cells& cells, const Batch& batch, std::span<const FillColumn> columns, const FillRows& rows, i32 n_threads) {
  if (rows.n_rows == 0) return;
  std::vector<SetPlan> plans;
  for (i32 set = 0; set < rows.n_sets; ++set) {
    const auto begin = static_cast<std::size_t>(set) * static_cast<std::size_t>(rows.n_rows);
    plans.push_back(make_plan(rows.cells.subspan(begin, static_cast<std::size_t>(rows.n_rows)), cells.run_of_cell()));
  }
  if (rows.traffic_block >= 0) {
    for (const SetPlan& plan : plans) {
      for (const Run& run : plan.runs) cells.count(run.cell, rows.traffic_block, 0, run.end - run.begin);
    }
  }
  const bool worth_threads = rows.n_rows * static_cast<i64>(columns.size()) > 400'000;
  parallel_for(static_cast<i64>(columns.size()), worth_threads ? n_threads : 1,
               [&](i64 column) { fill_column(cells, batch, columns[static_cast<std::size_t>(column)], rows, plans); });
}

}  // namespace tidegauge
