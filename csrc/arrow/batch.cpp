#include "arrow/batch.hpp"

#include <cstring>

#include "errors.hpp"

namespace tidegauge {
namespace {

struct Format {
  Type type;
  std::string name;
  i64 ticks_per_second = 0;
  i64 width = 0;
};

Format timestamp_format(const std::string& format) {
  const char unit = format[2];
  const std::string zone = format.substr(4);
  const i64 ticks = unit == 's' ? 1 : unit == 'm' ? 1'000 : unit == 'u' ? 1'000'000 : 1'000'000'000;
  const std::string name = unit == 's' ? "s" : unit == 'm' ? "ms" : unit == 'u' ? "us" : "ns";
  return {Type::kTimestamp, "timestamp[" + name + (zone.empty() ? "" : ", " + zone) + "]", ticks, 0};
}

Format parse_format(const char* text) {
  const std::string format = text == nullptr ? "" : text;
  static const std::unordered_map<std::string, Format> kFixed = {
      {"n", {Type::kNull, "null"}},
      {"b", {Type::kBool, "bool"}},
      {"c", {Type::kInt8, "int8"}},
      {"C", {Type::kUInt8, "uint8"}},
      {"s", {Type::kInt16, "int16"}},
      {"S", {Type::kUInt16, "uint16"}},
      {"i", {Type::kInt32, "int32"}},
      {"I", {Type::kUInt32, "uint32"}},
      {"l", {Type::kInt64, "int64"}},
      {"L", {Type::kUInt64, "uint64"}},
      {"e", {Type::kFloat16, "float16"}},
      {"f", {Type::kFloat32, "float32"}},
      {"g", {Type::kFloat64, "float64"}},
      {"u", {Type::kText, "utf8"}},
      {"z", {Type::kText, "binary"}},
      {"U", {Type::kLargeText, "large_utf8"}},
      {"Z", {Type::kLargeText, "large_binary"}},
      {"vu", {Type::kTextView, "string_view"}},
      {"vz", {Type::kTextView, "binary_view"}},
      {"tdD", {Type::kDate32, "date32"}},
      {"tdm", {Type::kDate64, "date64"}},
  };
  if (const auto found = kFixed.find(format); found != kFixed.end()) return found->second;
  if (format.size() >= 4 && format.rfind("ts", 0) == 0 && format[3] == ':') return timestamp_format(format);
  if (format.rfind("w:", 0) == 0) {
    const i64 width = std::atoll(format.c_str() + 2);
    if (width > 0) return {Type::kFixedText, "fixed_size_binary[" + format.substr(2) + "]", 0, width};
  }
  if (format == "+l") return {Type::kList, "list"};
  if (format == "+L") return {Type::kLargeList, "large_list"};
  if (format.rfind("+w:", 0) == 0) {
    const i64 width = std::atoll(format.c_str() + 3);
    if (width > 0) return {Type::kVector, "fixed_size_list[" + format.substr(3) + "]", 0, width};
  }
  static const std::unordered_map<char, std::string> kNested = {
      {'w', "fixed_size_list"}, {'s', "struct"},          {'m', "map"},
      {'u', "union"},           {'r', "run_end_encoded"}, {'v', "list_view"}};
  if (format.size() > 1 && format[0] == '+') {
    if (const auto found = kNested.find(format[1]); found != kNested.end()) return {Type::kUnsupported, found->second};
  }
  if (format.rfind("d:", 0) == 0) return {Type::kUnsupported, "decimal(" + format.substr(2) + ")"};
  if (format.rfind("tt", 0) == 0) return {Type::kUnsupported, "time"};
  if (format.rfind("tD", 0) == 0) return {Type::kUnsupported, "duration"};
  if (format.rfind("ti", 0) == 0) return {Type::kUnsupported, "interval"};
  return {Type::kUnsupported, "arrow format '" + format + "'"};
}

i64 expected_buffers(Type type) {
  switch (type) {
    case Type::kNull: return 0;
    case Type::kVector: return 1;
    case Type::kText:
    case Type::kLargeText:
    case Type::kTextView: return 3;
    default: return 2;
  }
}

[[noreturn]] void broken(const std::string& column, const std::string& what) {
  throw DataError("column '" + column + "': broken Arrow array, " + what);
}

ColumnView make_view(const ArrowSchema& schema, const ArrowArray& array, const std::string& column, i64 start,
                     i64 length);

// Offsets must not decrease, so that no text or list has a negative length.
template <typename Offset>
void check_offsets(const ColumnView& view, const std::string& column) {
  const auto* offsets = static_cast<const Offset*>(view.values) + view.offset;
  bool ascending = offsets[0] >= 0;
  for (i64 row = 0; row < view.length; ++row) ascending &= offsets[row] <= offsets[row + 1];
  if (!ascending) broken(column, "its offsets decrease");
  if (view.members && offsets[view.length] > view.members->length) broken(column, "its offsets pass its members");
}

// Every long view must lie inside one of the character buffers, whose sizes come last.
void check_views(const ColumnView& view, const ArrowArray& array, const std::string& column) {
  const i64 n_texts = array.n_buffers - 3;
  const auto* sizes = static_cast<const std::int64_t*>(array.buffers[array.n_buffers - 1]);
  for (i64 row = 0; row < view.length; ++row) {
    if (!view.is_valid(row)) continue;
    std::int32_t entry[4];  // size, prefix, buffer, offset
    std::memcpy(entry, static_cast<const char*>(view.values) + (view.offset + row) * 16, 16);
    if (entry[0] >= 0 && entry[0] <= 12) continue;
    const bool inside = entry[0] >= 0 && entry[2] >= 0 && entry[2] < n_texts && sizes != nullptr && entry[3] >= 0 &&
                        static_cast<std::int64_t>(entry[3]) + entry[0] <= sizes[entry[2]];
    if (!inside) broken(column, "a text view points outside its buffers");
  }
}

void check_entries(const ColumnView& view, const ArrowArray& array, const std::string& column) {
  if (view.type == Type::kText || view.type == Type::kList) check_offsets<std::int32_t>(view, column);
  if (view.type == Type::kLargeText || view.type == Type::kLargeList) check_offsets<std::int64_t>(view, column);
  if (view.type == Type::kTextView) check_views(view, array, column);
}

// Whether a list can be a vector: of floats, and not through a dictionary.
bool holds_floats(const ArrowSchema& schema) {
  if (schema.dictionary != nullptr || schema.n_children != 1 || schema.children == nullptr) return false;
  const ArrowSchema* members = schema.children[0];
  return members != nullptr && members->dictionary == nullptr && is_float(parse_format(members->format).type);
}

// Members of a fixed-size list begin with those of its first row; those of a list lie where its offsets say.
std::shared_ptr<const ColumnView> make_members(const ArrowSchema& schema, const ArrowArray& array,
                                               const ColumnView& view, const std::string& column) {
  if (array.n_children != 1 || array.children == nullptr || array.children[0] == nullptr)
    broken(column, "its members are missing");
  const ArrowArray& members = *array.children[0];
  i64 first = 0, n = members.length;
  if (view.type == Type::kVector &&
      (__builtin_mul_overflow(view.offset, view.width, &first) || __builtin_mul_overflow(view.length, view.width, &n)))
    broken(column, "it is too long");
  return std::make_shared<const ColumnView>(make_view(*schema.children[0], members, column, first, n));
}

std::shared_ptr<const ColumnView> make_dictionary(const ArrowSchema& schema, const ArrowArray& array,
                                                  const std::string& column) {
  if (array.dictionary == nullptr) broken(column, "its dictionary is missing");
  return std::make_shared<const ColumnView>(
      make_view(*schema.dictionary, *array.dictionary, column, 0, array.dictionary->length));
}

ColumnView make_view(const ArrowSchema& schema, const ArrowArray& array, const std::string& column, i64 start,
                     i64 length) {
  const Format format = parse_format(schema.format);
  if (array.length < 0 || array.offset < 0) broken(column, "its length or offset is negative");
  if (start > array.length || array.length - start < length) broken(column, "it is shorter than its batch");
  ColumnView view;
  view.type = format.type;
  view.length = length;
  view.offset = array.offset + start;
  view.ticks_per_second = format.ticks_per_second;
  view.width = format.width;
  if (is_vector(view.type) && !holds_floats(schema)) view.type = Type::kUnsupported;
  if (view.type == Type::kUnsupported || view.type == Type::kNull) return view;
  // Views carry one more buffer, of sizes, after any number of character buffers.
  if (array.n_buffers < expected_buffers(view.type) || array.buffers == nullptr) broken(column, "buffers are missing");
  if (array.null_count != 0) view.validity = static_cast<const std::uint8_t*>(array.buffers[0]);
  if (is_vector(view.type)) view.members = make_members(schema, array, view, column);
  if (view.type == Type::kVector) return view;
  view.values = array.buffers[1];
  view.texts = array.buffers + 2;
  if (length > 0 && view.values == nullptr) broken(column, "its values are missing");
  if (schema.dictionary != nullptr) {
    if (!is_integer(view.type)) broken(column, "its dictionary has no integer indices");
    if (schema.dictionary->dictionary != nullptr) return {};  // dictionaries of dictionaries, and of vectors
    view.dictionary = make_dictionary(schema, array, column);
    if (is_vector(view.dictionary->type)) return {};
  }
  if (length > 0) check_entries(view, array, column);
  return view;
}

std::string type_name(const ArrowSchema& schema) {
  const Format format = parse_format(schema.format);
  const std::string& name = format.name;
  if (is_vector(format.type) && holds_floats(schema))
    return name + "<" + parse_format(schema.children[0]->format).name + ">";
  if (schema.dictionary == nullptr) return name;
  return "dictionary<" + name + ", " + parse_format(schema.dictionary->format).name + ">";
}

std::string stream_failure(ArrowArrayStream& stream) {
  const char* message = stream.get_last_error ? stream.get_last_error(&stream) : nullptr;
  return message == nullptr ? "no reason given" : message;
}

}  // namespace

Batch::Batch(ArrowArrayStream* stream) {
  if (stream->release == nullptr) throw DataError("the Arrow stream has been read already; give a new one");
  ArrowArrayStream source = *stream;
  stream->release = nullptr;
  try {
    if (source.get_schema(&source, &schema_) != 0)
      throw DataError("the Arrow stream has no schema: " + stream_failure(source));
    read_schema();
    for (;;) {
      ArrowArray array{};
      if (source.get_next(&source, &array) != 0) throw DataError("the Arrow stream failed: " + stream_failure(source));
      if (array.release == nullptr) break;
      arrays_.push_back(array);
      add_chunk(array);
    }
  } catch (...) {
    release();
    source.release(&source);
    throw;
  }
  source.release(&source);
}

Batch::Batch(ArrowSchema* schema, ArrowArray* array) {
  if (schema->release == nullptr || array->release == nullptr)
    throw DataError("the Arrow array has been read already; give a new one");
  schema_ = *schema;
  schema->release = nullptr;
  arrays_.push_back(*array);
  array->release = nullptr;
  try {
    read_schema();
    add_chunk(arrays_.back());
  } catch (...) {
    release();
    throw;
  }
}

Batch::~Batch() { release(); }

void Batch::release() noexcept {
  for (auto& array : arrays_) {
    if (array.release) array.release(&array);
  }
  arrays_.clear();
  if (schema_.release) schema_.release(&schema_);
}

i64 Batch::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? -1 : found->second;
}

void Batch::read_schema() {
  if (schema_.format == nullptr || std::strcmp(schema_.format, "+s") != 0) {
    throw DataError("a table is wanted, got a single Arrow array of type " + type_name(schema_) +
                    "; wrap it in a table with named columns");
  }
  for (i64 child = 0; child < schema_.n_children; ++child) {
    const ArrowSchema& column = *schema_.children[child];
    names_.emplace_back(column.name == nullptr ? "" : column.name);
    types_.push_back(type_name(column));
    if (!index_.emplace(names_.back(), child).second) {
      throw DataError("column '" + names_.back() + "' appears twice; rename one of them");
    }
  }
  columns_.resize(names_.size());
}

void Batch::add_chunk(const ArrowArray& array) {
  if (array.n_children != schema_.n_children) throw DataError("the Arrow stream changed its number of columns");
  if (array.length < 0 || array.offset < 0) throw DataError("broken Arrow batch, its length or offset is negative");
  const bool has_validity =
      array.null_count != 0 && array.n_buffers > 0 && array.buffers != nullptr && array.buffers[0] != nullptr;
  if (has_validity) {
    const auto* bits = static_cast<const std::uint8_t*>(array.buffers[0]);
    for (i64 row = array.offset; row < array.offset + array.length; ++row) {
      if ((bits[row >> 3] >> (row & 7) & 1) == 0)
        throw DataError("row " + std::to_string(row - array.offset) + " is null as a whole; give null columns instead");
    }
  }
  for (i64 child = 0; child < schema_.n_children; ++child) {
    const auto column = static_cast<std::size_t>(child);
    if (array.children == nullptr || array.children[child] == nullptr) broken(names_[column], "its array is missing");
    columns_[column].push_back(
        make_view(*schema_.children[child], *array.children[child], names_[column], array.offset, array.length));
  }
  chunk_starts_.push_back(chunk_starts_.back() + array.length);
}

}  // namespace tidegauge
