// The loops of project.hpp, included once by each translation unit that compiles them for an instruction set.
// Costs a multiplication and an addition a member and column; 12 vectors of sums stay in registers.
// Deterministic: see project.hpp. The including unit sets the namespace, the target and kLanes.

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4)));

// Twelve vectors of sums whatever their width: 12 rows of one, 6 of two, 3 of four.
void project(const float* rows, i64 n_rows, i64 width, const float* panel, float* out, i64 stride) {
  constexpr i64 kVectors = 16 / kLanes;
  constexpr i64 kRows = 12 / kVectors;
  for (i64 first = 0; first < n_rows; first += kRows) {
    const float* row = rows + first * width;
    Lanes sums[kRows][kVectors] = {};
    for (i64 k = 0; k < width; ++k) {
      Lanes columns[kVectors];
      for (i64 v = 0; v < kVectors; ++v) columns[v] = *reinterpret_cast<const Lanes*>(panel + k * 16 + v * kLanes);
#pragma GCC unroll 12
      for (i64 r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (i64 v = 0; v < kVectors; ++v) sums[r][v] += row[r * width + k] * columns[v];
      }
    }
    for (i64 r = 0; r < kRows; ++r) {
      for (i64 v = 0; v < kVectors; ++v)
        *reinterpret_cast<Lanes*>(out + (first + r) * stride + v * kLanes) = sums[r][v];
    }
  }
}

// Sixteen sums, in as many vectors as the instruction set needs for them.
struct Sums {
  Lanes lanes[16 / kLanes] = {};
  float total() const {
    float sums[16];
    for (int v = 0; v < 16 / kLanes; ++v) *reinterpret_cast<Lanes*>(sums + v * kLanes) = lanes[v];
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
    }
    return sums[0];
  }
};

const Lanes& lanes_at(const float* values) { return *reinterpret_cast<const Lanes*>(values); }

void center(float* row, const float* center, i64 width, float* before, float* after) {
  Sums norm, centered;
  i64 k = 0;
  for (; k + 16 <= width; k += 16) {
    for (int v = 0; v < 16 / kLanes; ++v) {
      const Lanes member = lanes_at(row + k + v * kLanes), moved = member - lanes_at(center + k + v * kLanes);
      norm.lanes[v] += member * member;
      centered.lanes[v] += moved * moved;
      *reinterpret_cast<Lanes*>(row + k + v * kLanes) = moved;
    }
  }
  for (int lane = 0; k < width; ++k, ++lane) {
    const float member = row[k], moved = member - center[k];
    norm.lanes[lane / kLanes][lane % kLanes] += member * member;
    centered.lanes[lane / kLanes][lane % kLanes] += moved * moved;
    row[k] = moved;
  }
  *before = norm.total();
  *after = centered.total();
}

float squared_distance(const float* a, const float* b, i64 width) {
  Sums sum;
  i64 k = 0;
  for (; k + 16 <= width; k += 16) {
    for (int v = 0; v < 16 / kLanes; ++v) {
      const Lanes gap = lanes_at(a + k + v * kLanes) - lanes_at(b + k + v * kLanes);
      sum.lanes[v] += gap * gap;
    }
  }
  for (int lane = 0; k < width; ++k, ++lane) sum.lanes[lane / kLanes][lane % kLanes] += (a[k] - b[k]) * (a[k] - b[k]);
  return sum.total();
}

i32 nearest(const float* scores, const float* half_norms, i64 n) {
  Lanes smallest = lanes_at(half_norms) - lanes_at(scores);
  for (i64 j = kLanes; j < n; j += kLanes) {
    const Lanes value = lanes_at(half_norms + j) - lanes_at(scores + j);
    smallest = value < smallest ? value : smallest;
  }
  float least = smallest[0];
  for (int lane = 1; lane < kLanes; ++lane) least = smallest[lane] < least ? smallest[lane] : least;
  for (i64 j = 0; j < n; j += 16) {
    unsigned found = 0;
    for (i64 lane = 0; lane < 16; ++lane) found |= (half_norms[j + lane] - scores[j + lane] == least ? 1U : 0U) << lane;
    if (found != 0) return static_cast<i32>(j + __builtin_ctz(found));
  }
  return 0;
}

const ProjectLoops kProjectLoops{project, center, squared_distance, nearest};
