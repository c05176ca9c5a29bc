// The key by which a prediction and its labels find each other; its low half decides where in the index it stands.
// No cost: two integers.
// Deterministic: a function of the id and the secret.
#pragma once

#include "portable.hpp"

namespace tidegauge {

struct Key {
  u64 high = 0;  // of an integer: 1 when it is negative
  u64 low = 0;
  friend bool operator==(const Key&, const Key&) = default;
};

}  // namespace tidegauge
