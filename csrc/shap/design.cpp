#include "shap/design.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "shap/coalition.hpp"

namespace tidegauge {
namespace {

using Mask = std::vector<u64>;

struct SizeClass {
  i32 size;
  f64 weight;   // of the Shapley kernel, both sides together
  f64 n_pairs;  // how many there are; beyond 2^53 only its magnitude matters
  i64 n_drawn = 0;
};

std::vector<SizeClass> size_classes(i32 n_players) {
  std::vector<SizeClass> classes;
  f64 total = 0, n_subsets = 1;
  for (i32 size = 1; size <= n_players / 2; ++size) {
    n_subsets = std::round(n_subsets * (n_players - size + 1) / size);
    const f64 sides = 2 * size < n_players ? 2 : 1;
    classes.push_back({size, sides / (static_cast<f64>(size) * (n_players - size)), n_subsets * sides / 2});
    total += classes.back().weight;
  }
  for (auto& one : classes) one.weight /= total;
  return classes;
}

// Pairs for each size in proportion to the root of its weight, none beyond what there is; largest remainders round up.
void share_out(std::vector<SizeClass>& classes, i64 n_pairs) {
  std::vector<SizeClass*> open;
  for (auto& one : classes) open.push_back(&one);
  i64 left = n_pairs;
  for (bool filled = true; filled && !open.empty();) {
    f64 total = 0;
    for (const auto* one : open) total += std::sqrt(one->weight);
    const f64 scale = static_cast<f64>(left) / total;
    const auto full = [&](const SizeClass* one) { return scale * std::sqrt(one->weight) >= one->n_pairs; };
    const auto first = std::stable_partition(open.begin(), open.end(), [&](const auto* one) { return !full(one); });
    filled = first != open.end();
    for (auto one = first; one != open.end(); ++one) {
      (*one)->n_drawn = static_cast<i64>((*one)->n_pairs);
      left -= (*one)->n_drawn;
    }
    open.erase(first, open.end());
    if (filled) continue;
    std::vector<std::pair<f64, SizeClass*>> remainders;
    i64 given = 0;
    for (auto* one : open) {
      const f64 wanted = scale * std::sqrt(one->weight);
      one->n_drawn = static_cast<i64>(wanted);
      given += one->n_drawn;
      remainders.emplace_back(static_cast<f64>(one->n_drawn) - wanted, one);
    }
    std::stable_sort(remainders.begin(), remainders.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (i64 i = 0; i < left - given; ++i) ++remainders[static_cast<std::size_t>(i)].second->n_drawn;
  }
}

Mask mask_of(const i32* labels, i32 size, i32 n_players) {
  Mask mask(static_cast<std::size_t>(mask_words(n_players)));
  for (i32 i = 0; i < size; ++i) mask[static_cast<std::size_t>(labels[i] >> 6)] |= u64{1} << (labels[i] & 63);
  return mask;
}

// Of two halves the one that holds player 0 stands for the pair.
void choose_side(Mask& mask, i32 size, i32 n_players) {
  if (2 * size != n_players || holds(mask.data(), 0)) return;
  for (auto& word : mask) word = ~word;
  if (n_players % 64 != 0) mask.back() &= (u64{1} << n_players % 64) - 1;
}

std::set<Mask> enumerate(i32 size, i32 n_players) {
  std::set<Mask> masks;
  std::vector<i32> labels(static_cast<std::size_t>(size));
  std::iota(labels.begin(), labels.end(), 0);
  while (true) {
    Mask mask = mask_of(labels.data(), size, n_players);
    choose_side(mask, size, n_players);
    masks.insert(std::move(mask));
    i32 at = size - 1;
    while (at >= 0 && labels[static_cast<std::size_t>(at)] == n_players - size + at) --at;
    if (at < 0) return masks;
    ++labels[static_cast<std::size_t>(at)];
    for (++at; at < size; ++at) labels[static_cast<std::size_t>(at)] = labels[static_cast<std::size_t>(at - 1)] + 1;
  }
}

std::set<Mask> draw(const SizeClass& one, const DesignOptions& options) {
  std::set<Mask> masks;
  std::vector<i32> labels(static_cast<std::size_t>(options.n_players));
  const u64 class_stream = options.stream << 32 | static_cast<u64>(one.size) << 20;
  for (u64 attempt = 0; std::ssize(masks) < one.n_drawn; ++attempt) {
    shuffle_labels(options.seed ^ attempt << 32, class_stream, one.size, options.n_players, labels.data());
    Mask mask = mask_of(labels.data() + options.n_players - one.size, one.size, options.n_players);
    choose_side(mask, one.size, options.n_players);
    masks.insert(std::move(mask));
  }
  return masks;
}

}  // namespace

Design draw_design(const DesignOptions& options) {
  auto classes = size_classes(options.n_players);
  share_out(classes, options.n_pairs);
  std::vector<const Mask*> found;
  std::vector<const SizeClass*> class_of;
  std::vector<std::set<Mask>> kept;
  for (const auto& one : classes) {
    const bool complete = static_cast<f64>(one.n_drawn) >= one.n_pairs;
    kept.push_back(complete ? enumerate(one.size, options.n_players) : draw(one, options));
  }
  for (std::size_t c = 0; c < classes.size(); ++c) {
    for (const auto& mask : kept[c]) {
      found.push_back(&mask);
      class_of.push_back(&classes[c]);
    }
  }
  std::vector<i32> order(found.size());
  const auto n_found = static_cast<i32>(found.size());
  shuffle_labels(options.seed, options.stream << 32 | 0xFFFFF, n_found, n_found, order.data());
  Design design;
  for (const i32 k : order) {
    const auto& one = *class_of[static_cast<std::size_t>(k)];
    design.masks.insert(design.masks.end(), found[static_cast<std::size_t>(k)]->begin(),
                        found[static_cast<std::size_t>(k)]->end());
    design.weights.push_back(one.weight / static_cast<f64>(one.n_drawn));
    design.shares.push_back(static_cast<f64>(one.n_drawn) / one.n_pairs);
  }
  return design;
}

}  // namespace tidegauge
