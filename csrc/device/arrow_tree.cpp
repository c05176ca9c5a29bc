#include "device/arrow_tree.hpp"

#include <string>

#include "errors.hpp"

namespace tidegauge {
namespace {

std::string failure_of(ArrowDeviceArrayStream& stream) {
  const char* message = stream.get_last_error ? stream.get_last_error(&stream) : nullptr;
  return message == nullptr ? "no reason given" : message;
}

}  // namespace

DeviceArray::DeviceArray(ArrowDeviceArray* array) : device_(*array) {
  if (array->array.release == nullptr) throw DataError("the Arrow device array has been read already; give a new one");
  array->array.release = nullptr;
}

DeviceArray::~DeviceArray() {
  if (device_.array.release != nullptr) device_.array.release(&device_.array);
}

std::vector<ArrowDeviceArray> read_device_stream(ArrowDeviceArrayStream* stream, ArrowSchema* schema) {
  if (stream->release == nullptr) throw DataError("the Arrow device stream has been read already; give a new one");
  ArrowDeviceArrayStream source = *stream;
  stream->release = nullptr;
  std::vector<ArrowDeviceArray> arrays;
  const auto fail = [&](const std::string& what) {
    const std::string reason = what + failure_of(source);
    for (auto& array : arrays) array.array.release(&array.array);
    if (schema->release != nullptr) schema->release(schema);
    source.release(&source);
    throw DataError(reason);
  };
  if (source.get_schema(&source, schema) != 0) fail("the Arrow device stream has no schema: ");
  for (;;) {
    ArrowDeviceArray array{};
    if (source.get_next(&source, &array) != 0) fail("the Arrow device stream failed: ");
    if (array.array.release == nullptr) break;
    arrays.push_back(array);
  }
  source.release(&source);
  return arrays;
}

}  // namespace tidegauge
