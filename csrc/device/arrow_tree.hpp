// Owns one array of the Arrow C device interface and tells where its buffers lie, without touching them.
// Costs nothing a row: addresses and lengths alone are read.
// Deterministic: a view of what the producer gave, in its order.
#pragma once

#include <vector>

#include "arrow/abi.hpp"
#include "portable.hpp"

namespace tidegauge {

class DeviceArray {
 public:
  explicit DeviceArray(ArrowDeviceArray* array);  // takes it over
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray();

  [[nodiscard]] const ArrowArray& array() const noexcept { return device_.array; }
  [[nodiscard]] i32 device_type() const noexcept { return device_.device_type; }
  [[nodiscard]] i64 device_id() const noexcept { return device_.device_id; }
  // Address of a cudaEvent_t to wait for before the buffers are read; 0 where there is none.
  [[nodiscard]] u64 sync_event() const noexcept { return reinterpret_cast<u64>(device_.sync_event); }

 private:
  ArrowDeviceArray device_;
};

// Drains and releases the stream; gives its schema to `schema`.
[[nodiscard]] std::vector<ArrowDeviceArray> read_device_stream(ArrowDeviceArrayStream* stream, ArrowSchema* schema);

}  // namespace tidegauge
