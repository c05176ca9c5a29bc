// The two failures a caller can cause: a schema that does not fit, and data that does not fit the schema.
// No cost until thrown, and thrown only at the entry of a call, before any state changes.
// Deterministic: the first offending column and row, in order, is the one reported.
#pragma once

#include <stdexcept>
#include <string>

namespace tidegauge {

class SchemaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class DataError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace tidegauge
