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

SetPlan make_plan(std::span<const i32> cells, i32 n_cells) {
  const i64 n_rows = static_cast<i64>(cells.size());
  SetPlan plan;
  plan.order.resize(cells.size());
  plan.first_run.push_back(0);
  std::vector<i32> seen(static_cast<std::size_t>(n_cells), -1);  // run of a cell within the block
  std::vector<std::uint16_t> run_of(kBlock);
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

// Encodes blocks of one column of the batch.
class BlockEncoder {
 public:
  BlockEncoder(const Batch& batch, const FillColumn& column)
      : batch_(batch), column_(column), numbers_(kBlock), codes_(kBlock) {
    if (column.source < 0) return;
    if (column.content == Content::kCategories) {
      for (const ColumnView& view : batch.chunks(column.source))
        readers_.emplace_back(view, *column.categories, Growth::kFixed);
    }
  }

  // Slots and, where the column holds numbers, values[n] with NaN for all that is not a finite number.
  void encode_block(i64 start, std::span<std::uint16_t> slots, std::span<f64> values) {
    if (column_.source < 0) {
      std::fill(slots.begin(), slots.end(), static_cast<std::uint16_t>(kAbsent));
      return;
    }
    const auto& views = batch_.chunks(column_.source);
    batch_.for_each_piece(column_.source, start, start + static_cast<i64>(slots.size()),
                          [&](const ColumnView& view, i64 first, i64 n, i64 row) {
                            const auto offset = static_cast<std::size_t>(row - start);
                            const auto piece = slots.subspan(offset, static_cast<std::size_t>(n));
                            if (column_.content == Content::kCategories) {
                              encode_categories(readers_[static_cast<std::size_t>(&view - views.data())], view, first,
                                                piece);
                            } else {
                              encode_numbers(view, first, piece, values.subspan(offset, static_cast<std::size_t>(n)));
                            }
                          });
  }

 private:
  void encode_numbers(const ColumnView& view, i64 first, std::span<std::uint16_t> slots, std::span<f64> values) {
    const Type type = view.value_type();
    const bool readable = column_.content == Content::kTimes ? is_time(type) : is_number(type);
    if (!readable) {
      std::fill(slots.begin(), slots.end(), static_cast<std::uint16_t>(kInvalid));
      std::fill(values.begin(), values.end(), std::numeric_limits<f64>::quiet_NaN());
    } else {
      std::span<const f64> source = values;
      if (view.type == Type::kFloat64 && !view.dictionary) {
        source = {static_cast<const f64*>(view.values) + view.offset + first, slots.size()};
      } else {
        read_numbers(view, first, values);
      }
      encode(*column_.bins, source, slots);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const f64 x = source[i];
        const bool finite = std::abs(x) <= std::numeric_limits<f64>::max();
        values[i] = finite ? x : std::numeric_limits<f64>::quiet_NaN();
      }
      if (!column_.bins->sentinels.empty()) {
        for (std::size_t i = 0; i < values.size(); ++i) {
          if (slots[i] == kSentinel) values[i] = std::numeric_limits<f64>::quiet_NaN();
        }
      }
    }
    const auto mark_missing = [&](i64 row) {
      slots[static_cast<std::size_t>(row)] = kMissing;
      values[static_cast<std::size_t>(row)] = std::numeric_limits<f64>::quiet_NaN();
    };
    for_each_null(view, first, static_cast<i64>(slots.size()), mark_missing);
    if (view.dictionary) {
      for (i64 row = 0; row < static_cast<i64>(slots.size()); ++row) {
        if (!view.is_valid(first + row)) continue;
        const i64 index = dictionary_index(view, first + row);
        if (index < 0) slots[static_cast<std::size_t>(row)] = kInvalid;
        if (index >= 0 && !view.dictionary->is_valid(index)) mark_missing(row);
      }
    }
  }

  void encode_categories(CodeReader& reader, const ColumnView& view, i64 first, std::span<std::uint16_t> slots) {
    const auto codes = std::span(codes_).first(slots.size());
    reader.read(first, codes);
    static constexpr std::uint16_t kSpecialSlots[] = {kMissing, kSpecials, kNan, kInvalid};
    for (std::size_t row = 0; row < slots.size(); ++row) {
      const i32 code = codes[row];
      slots[row] = code >= 0 ? static_cast<std::uint16_t>(kSpecials + 1 + code) : kSpecialSlots[-code - 1];
    }
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
  std::vector<f64> numbers_;
  std::vector<i32> codes_;
};

// Counts of whole blocks on their way to one cell: four partial histograms keep repeated slots apart.
class Tally {
 public:
  explicit Tally(i32 n_slots) : n_slots_(static_cast<std::size_t>(n_slots)), parts_(4 * n_slots_), total_(n_slots_) {}

  void add(CountBlock* target, std::span<const std::uint16_t> slots) {
    if (target != target_ || n_rows_ > 1'000'000'000) {
      flush();
      target_ = target;
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

void fill_column(Cells& cells, const Batch& batch, const FillColumn& column, const FillRows& rows,
                 std::span<const SetPlan> plans) {
  const auto block_index = static_cast<std::size_t>(column.block);
  const i32 n_slots = cells.n_slots(column.block);
  const bool has_values = column.content != Content::kCategories && column.source >= 0;
  BlockEncoder encoder(batch, column);
  std::vector<std::uint16_t> slots(kBlock), sorted(kBlock);
  std::vector<f64> values(kBlock);
  std::vector<Tally> tallies(plans.size(), Tally(n_slots));
  for (i64 start = 0; start < rows.n_rows; start += kBlock) {
    const auto n = static_cast<std::size_t>(std::min(kBlock, rows.n_rows - start));
    const auto block = static_cast<std::size_t>(start / kBlock);
    encoder.encode_block(rows.start + start, std::span(slots).first(n), std::span(values).first(n));
    for (std::size_t set = 0; set < plans.size(); ++set) {
      const SetPlan& plan = plans[set];
      const auto runs =
          std::span(plan.runs).subspan(plan.first_run[block], plan.first_run[block + 1] - plan.first_run[block]);
      if (plan.whole[block]) {
        Cell& cell = cells[runs[0].cell];
        CountBlock& target = cell.blocks[block_index];
        if (n < static_cast<std::size_t>(n_slots) / 2) {
          target.add(std::span<const std::uint16_t>(slots).first(n), n_slots);
        } else {
          tallies[set].add(&target, std::span(slots).first(n));
        }
        if (has_values) {
          Extremes extremes[8];
          for (std::size_t i = 0; i + 8 <= n; i += 8) {
            for (std::size_t lane = 0; lane < 8; ++lane) extremes[lane].add(values[i + lane]);
          }
          for (std::size_t i = n - n % 8; i < n; ++i) extremes[0].add(values[i]);
          for (const Extremes& part : extremes) cell.extremes[block_index].merge(part);
        }
        continue;
      }
      const auto order = std::span(plan.order).subspan(static_cast<std::size_t>(start), n);
      for (const Run& run : runs) {
        Cell& cell = cells[run.cell];
        for (std::size_t i = run.begin; i < run.end; ++i) sorted[i] = slots[order[i]];
        cell.blocks[block_index].add(
            std::span<const std::uint16_t>(sorted).subspan(run.begin, static_cast<std::size_t>(run.end - run.begin)),
            n_slots);
        if (!has_values) continue;
        Extremes& extremes = cell.extremes[block_index];
        for (std::size_t i = run.begin; i < run.end; ++i) extremes.add(values[order[i]]);
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
    plans.push_back(make_plan(rows.cells.subspan(begin, static_cast<std::size_t>(rows.n_rows)), cells.size()));
  }
  const bool worth_threads = rows.n_rows * static_cast<i64>(columns.size()) > 400'000;
  parallel_for(static_cast<i64>(columns.size()), worth_threads ? n_threads : 1,
               [&](i64 column) { fill_column(cells, batch, columns[static_cast<std::size_t>(column)], rows, plans); });
}

}  // namespace tidegauge
