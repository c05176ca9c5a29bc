#include "wire/packed.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "errors.hpp"

namespace tidegauge {
namespace {

// A message of protocol buffers, field by field.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  // Goes to the next field; false at the end.
  [[nodiscard]] bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    number_ = tag >> 3;
    switch (tag & 7) {
      case 0: value_ = varint(); break;
      case 1: bytes_ = take(8); break;
      case 2: bytes_ = take(varint()); break;
      case 5: bytes_ = take(4); break;
      default: fail();
    }
    if (number_ == 0) fail();
    kind_ = tag & 7;
    return true;
  }

  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  [[nodiscard]] std::uint64_t value() const {
    if (kind_ != 0) fail();
    return value_;
  }
  [[nodiscard]] std::string_view bytes() const {
    if (kind_ != 2) fail();
    return bytes_;
  }

 private:
  [[noreturn]] static void fail() { throw DataError("columns: no ColumnBatch, the message is broken"); }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view take(std::uint64_t n) {
    if (n > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return taken;
  }

  std::string_view rest_;
  std::string_view bytes_;
  std::uint64_t number_ = 0, value_ = 0, kind_ = 0;
};

// Column of batch.proto.
struct Wire {
  std::string_view name, data, offsets, validity;
  std::uint64_t type = 0, width = 0;
  std::vector<std::string_view> dictionary;
};

Wire read_column(std::string_view bytes) {
  Wire column;
  for (Message message(bytes); message.next();) {
    switch (message.number()) {
      case 1: column.name = message.bytes(); break;
      case 2: column.type = message.value(); break;
      case 3: column.data = message.bytes(); break;
      case 4: column.offsets = message.bytes(); break;
      case 5: column.validity = message.bytes(); break;
      case 6: column.dictionary.push_back(message.bytes()); break;
      case 7: column.width = message.value(); break;
      default: break;  // of a later version
    }
  }
  return column;
}

struct Fixed {
  const char* format;
  i64 width;
};

// Arrow format and bytes a value, by the numbers of DataType.
constexpr Fixed kFixed[] = {{nullptr, 0}, {nullptr, 0}, {"c", 1}, {"s", 2}, {"i", 4}, {"l", 8}, {"C", 1},
                            {"S", 2},     {"I", 4},     {"L", 8}, {"e", 2}, {"f", 4}, {"g", 8}};
constexpr std::uint64_t kBool = 1, kString = 13, kBinary = 14, kCategory = 15, kTimestamp = 16, kVector = 17;

[[noreturn]] void broken(std::string_view name, const std::string& problem) {
  throw DataError("column '" + std::string(name) + "': " + problem);
}

void check_length(std::string_view name, const char* part, i64 came, i64 wanted, i64 n_rows) {
  if (came == wanted) return;
  broken(name, std::string(part) + " has " + std::to_string(came) + " bytes; " + std::to_string(n_rows) +
                   " rows need exactly " + std::to_string(wanted));
}

// Table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing past U+10FFFF.
bool is_utf8(std::string_view text) noexcept {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = at + text.size();
  while (at < end) {
    std::uint64_t word;
    if (end - at >= 8) {
      std::memcpy(&word, at, 8);
      if ((word & 0x8080808080808080ULL) == 0) {
        at += 8;
        continue;
      }
    }
    const unsigned char lead = *at;
    if (lead < 0x80) {
      ++at;
      continue;
    }
    const int more = lead >= 0xC2 && lead <= 0xDF   ? 1
                     : lead >= 0xE0 && lead <= 0xEF ? 2
                     : lead >= 0xF0 && lead <= 0xF4 ? 3
                                                    : 0;
    if (more == 0 || end - at <= more) return false;
    const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < low || at[1] > high) return false;
    for (int i = 2; i <= more; ++i)
      if ((at[i] & 0xC0) != 0x80) return false;
    at += more + 1;
  }
  return true;
}

bool is_set(const void* bits, i64 row) noexcept {
  return bits == nullptr || ((static_cast<const unsigned char*>(bits)[row >> 3] >> (row & 7)) & 1) != 0;
}

void release_schema(ArrowSchema* schema) { schema->release = nullptr; }
void release_array(ArrowArray* array) { array->release = nullptr; }

}  // namespace

PackedBatch::PackedBatch(std::string_view wire, PackedLimits limits) : limits_(limits) {
  std::vector<std::string_view> columns;
  std::uint64_t n_rows = 0;
  for (Message message(wire); message.next();) {
    if (message.number() == 1) n_rows = message.value();
    if (message.number() == 2) columns.push_back(message.bytes());
    if (std::ssize(columns) > limits_.columns)
      throw DataError("columns: more than " + std::to_string(limits_.columns) + " columns");
  }
  const auto n_columns = static_cast<std::uint64_t>(std::max<std::size_t>(columns.size(), 1));
  if (n_rows > static_cast<std::uint64_t>(limits_.cells) / n_columns)
    throw DataError("columns: " + std::to_string(n_rows) + " rows of " + std::to_string(columns.size()) +
                    " columns; allowed are " + std::to_string(limits_.cells) +
                    " values in one request, send fewer rows");
  n_rows_ = static_cast<i64>(n_rows);
  for (const std::string_view column : columns) add_column(column);
  std::unordered_set<std::string_view> seen;
  for (const Field& field : columns_)
    if (!seen.insert(field.name).second) broken(field.name, "is there twice; each name once");
}

void* PackedBatch::hold(std::string_view bytes) {
  constexpr std::size_t kAlignment = 64;
  auto& memory = memory_.emplace_back(new std::byte[bytes.size() + kAlignment]);
  void* place = memory.get();
  std::size_t room = bytes.size() + kAlignment;
  place = std::align(kAlignment, bytes.size(), place, room);
  if (!bytes.empty()) std::memcpy(place, bytes.data(), bytes.size());
  return place;
}

PackedBatch::Field& PackedBatch::add_field(std::string name, std::string format, i64 length) {
  Field& field = columns_.emplace_back();
  field.name = std::move(name);
  field.format = std::move(format);
  field.schema.format = field.format.c_str();
  field.schema.name = field.name.c_str();
  field.schema.flags = ARROW_FLAG_NULLABLE;
  field.schema.release = release_schema;
  field.array.length = length;
  field.array.null_count = 0;
  field.array.n_buffers = 2;
  field.array.buffers = field.buffers;
  field.array.release = release_array;
  return field;
}

// Offsets and characters of texts, as an Arrow array of its own.
void PackedBatch::hold_texts(Field& field, const std::vector<std::string_view>& texts) {
  std::string offsets((texts.size() + 1) * 4, '\0');
  std::string characters;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    characters += texts[i];
    const auto end = static_cast<std::int32_t>(characters.size());
    std::memcpy(offsets.data() + 4 * (i + 1), &end, 4);
    field.longest_text = std::max(field.longest_text, static_cast<i64>(texts[i].size()));
  }
  Field& entries = inner_.emplace_back();
  entries.format = "u";
  entries.schema = {entries.format.c_str(), "",     nullptr, ARROW_FLAG_NULLABLE, 0, nullptr, nullptr,
                    release_schema,         nullptr};
  entries.buffers[1] = hold(offsets);
  entries.buffers[2] = hold(characters);
  entries.array = {
      static_cast<i64>(texts.size()), 0, 0, 3, 0, entries.buffers, nullptr, nullptr, release_array, nullptr};
  field.schema.dictionary = &entries.schema;
  field.array.dictionary = &entries.array;
}

void PackedBatch::add_constant(std::string name, std::string_view text) {
  Field& field = add_field(std::move(name), "i", n_rows_);
  const std::string codes(static_cast<std::size_t>(n_rows_) * 4, '\0');
  field.buffers[1] = hold(codes);
  hold_texts(field, {text});
}

void PackedBatch::add_column(std::string_view bytes) {
  const Wire wire = read_column(bytes);
  const std::string_view name = wire.name;
  const i64 n = n_rows_, bits = (n + 7) / 8;
  const auto size = [](std::string_view part) { return static_cast<i64>(part.size()); };
  if (name.empty() || size(name) > limits_.name_bytes || !is_utf8(name))
    throw DataError("columns: a name is UTF-8 text of 1 to " + std::to_string(limits_.name_bytes) + " bytes");
  const bool is_fixed = wire.type > kBool && wire.type < std::size(kFixed);
  const bool known = is_fixed || wire.type == kBool || (wire.type >= kString && wire.type <= kVector);
  if (!known)
    broken(name,
           "type " + std::to_string(wire.type) + " cannot be counted; allowed are those of DataType but UNSPECIFIED");

  Field& field = add_field(std::string(name), "", n);
  if (!wire.validity.empty()) {
    check_length(name, "validity", size(wire.validity), bits, n);
    field.buffers[0] = hold(wire.validity);
    field.array.null_count = -1;
  }
  if (is_fixed || wire.type == kBool || wire.type == kTimestamp) {
    const bool is_bool = wire.type == kBool;
    field.format = is_bool ? "b" : wire.type == kTimestamp ? "tsu:UTC" : kFixed[wire.type].format;
    const i64 wanted = is_bool ? bits : n * (wire.type == kTimestamp ? 8 : kFixed[wire.type].width);
    check_length(name, "data", size(wire.data), wanted, n);
    field.buffers[1] = hold(wire.data);
  } else if (wire.type == kString || wire.type == kBinary) {
    field.format = wire.type == kString ? "u" : "z";
    check_length(name, "offsets", size(wire.offsets), 4 * (n + 1), n);
    const auto* offsets = static_cast<const std::int32_t*>(hold(wire.offsets));
    i64 before = offsets[0];
    for (i64 row = 0; row <= n; ++row) {
      const i64 here = offsets[row];
      if (here < before || here < 0 || here > size(wire.data))
        broken(name, "offset " + std::to_string(row) + " is " + std::to_string(here) + "; offsets rise from 0 to the " +
                         std::to_string(size(wire.data)) + " bytes of its data");
      field.longest_text = std::max(field.longest_text, here - before);
      if (row > 0 && wire.type == kString && is_set(field.buffers[0], row - 1) &&
          !is_utf8(wire.data.substr(static_cast<std::size_t>(before), static_cast<std::size_t>(here - before))))
        broken(name, "row " + std::to_string(row - 1) + " of " + std::to_string(n) + " is not UTF-8");
      before = here;
    }
    field.buffers[1] = offsets;
    field.buffers[2] = hold(wire.data);
    field.array.n_buffers = 3;
  } else if (wire.type == kCategory) {
    field.format = "i";
    if (std::ssize(wire.dictionary) > limits_.dictionary)
      broken(name, std::to_string(wire.dictionary.size()) + " entries in the dictionary; allowed are " +
                       std::to_string(limits_.dictionary) + ", send it as text");
    for (const std::string_view entry : wire.dictionary)
      if (!is_utf8(entry)) broken(name, "an entry of its dictionary is not UTF-8");
    check_length(name, "data", size(wire.data), 4 * n, n);
    const auto* codes = static_cast<const std::int32_t*>(hold(wire.data));
    for (i64 row = 0; row < n; ++row)
      if (is_set(field.buffers[0], row) && (codes[row] < 0 || codes[row] >= std::ssize(wire.dictionary)))
        broken(name, "row " + std::to_string(row) + " of " + std::to_string(n) + " has code " +
                         std::to_string(codes[row]) + "; the dictionary has " + std::to_string(wire.dictionary.size()) +
                         " entries");
    field.buffers[1] = codes;
    hold_texts(field, wire.dictionary);
  } else {
    if (wire.width < 1 || wire.width > static_cast<std::uint64_t>(limits_.vector_members))
      broken(name, "vectors of " + std::to_string(wire.width) + " members; allowed are 1 to " +
                       std::to_string(limits_.vector_members));
    const auto width = static_cast<i64>(wire.width);
    field.format = "+w:" + std::to_string(width);
    check_length(name, "data", size(wire.data), 4 * n * width, n);
    Field& members = inner_.emplace_back();
    members.format = "f";
    members.schema = {members.format.c_str(), "item", nullptr, ARROW_FLAG_NULLABLE, 0, nullptr, nullptr,
                      release_schema,         nullptr};
    members.buffers[1] = hold(wire.data);
    members.array = {n * width, 0, 0, 2, 0, members.buffers, nullptr, nullptr, release_array, nullptr};
    field.child_schema[0] = &members.schema;
    field.child_array[0] = &members.array;
    field.schema.n_children = field.array.n_children = 1;
    field.schema.children = field.child_schema;
    field.array.children = field.child_array;
    field.array.n_buffers = 1;
  }
  field.schema.format = field.format.c_str();
}

std::vector<std::string> PackedBatch::names() const {
  std::vector<std::string> names;
  for (const Field& field : columns_) names.push_back(field.name);
  return names;
}

i64 PackedBatch::longest_text(const std::string& name) const {
  for (const Field& field : columns_)
    if (field.name == name) return field.longest_text;
  return 0;
}

bool PackedBatch::same_shape(const PackedBatch& other) const noexcept {
  return std::equal(columns_.begin(), columns_.end(), other.columns_.begin(), other.columns_.end(),
                    [](const Field& one, const Field& two) {
                      return one.name == two.name && one.format == two.format &&
                             (one.schema.dictionary == nullptr) == (two.schema.dictionary == nullptr);
                    });
}

namespace {

// Batches as an Arrow stream. Its arrays are read once, by Batch; what they point to belongs to others.
struct Parts {
  std::vector<ArrowSchema*> schemas;
  std::vector<std::vector<ArrowArray*>> arrays;
  std::vector<i64> n_rows;
  const void* no_validity[1]{};
  std::size_t next = 0;
};

}  // namespace

std::unique_ptr<Batch> PackedBatch::join(const std::vector<const PackedBatch*>& parts) {
  if (parts.empty()) throw DataError("columns: no batch at all");
  auto* all = new Parts;  // released with the schema, which Batch holds until its end
  const auto address = [](const auto& value) { return const_cast<std::remove_cvref_t<decltype(value)>*>(&value); };
  for (const Field& field : parts.front()->columns_) all->schemas.push_back(address(field.schema));
  for (const PackedBatch* part : parts) {
    if (!part->same_shape(*parts.front())) {
      delete all;
      throw DataError("columns: batches of several shapes cannot be joined");
    }
    auto& arrays = all->arrays.emplace_back();
    for (const Field& field : part->columns_) arrays.push_back(address(field.array));
    all->n_rows.push_back(part->n_rows_);
  }
  ArrowArrayStream stream{};
  stream.private_data = all;
  stream.get_schema = [](ArrowArrayStream* self, ArrowSchema* out) {
    auto* own = static_cast<Parts*>(self->private_data);
    *out = {"+s",
            "",
            nullptr,
            0,
            std::ssize(own->schemas),
            own->schemas.data(),
            nullptr,
            [](ArrowSchema* schema) {
              delete static_cast<Parts*>(schema->private_data);
              schema->release = nullptr;
            },
            own};
    return 0;
  };
  stream.get_next = [](ArrowArrayStream* self, ArrowArray* out) {
    auto* own = static_cast<Parts*>(self->private_data);
    *out = {};
    if (own->next == own->arrays.size()) return 0;
    auto& arrays = own->arrays[own->next];
    *out = {own->n_rows[own->next], 0,      0, 1, std::ssize(arrays), own->no_validity, arrays.data(), nullptr,
            release_array,          nullptr};
    ++own->next;
    return 0;
  };
  stream.release = [](ArrowArrayStream* self) { self->release = nullptr; };
  return std::make_unique<Batch>(&stream);
}

}  // namespace tidegauge
