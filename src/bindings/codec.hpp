// Python objects <-> stored values: None, bool, int, str and bytes each have a codec of their own,
// other plain data has the native one (codec_format.hpp), all else is pickled.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>
#include <vector>

#include "bindings/codec_buffer.hpp"
#include "bindings/handles.hpp"
#include "store/value.hpp"

namespace celeriac::bindings {

// An encoded value; its view leads into the object that was encoded, or into the other members.
struct Encoded {
  Value value;
  pybind11::object keep;
  Buffer buffer;
  char own[8];
};

// `pickle_all`: also what has a form of its own, ints excepted. Raises SerializationError.
// REQUIRES: the caller holds the object as long as it uses `to`.
void encode(pybind11::handle object, bool pickle_all, Encoded* to);
// Several encoded values at once, in one piece of memory but for what leads into Python objects.
class EncodedValues {
 public:
  // As encode(). REQUIRES: the caller holds the object as long as it uses the value.
  void add(pybind11::handle object, bool pickle_all);
  Value operator[](std::size_t i) const;

 private:
  struct One {
    Codec codec;
    const char* outside;  // nullptr: in bytes_, at `at`
    std::size_t at, size;
    pybind11::object keep;
  };
  std::vector<One> all_;
  std::string bytes_;
};

// Raises SerializationError when the bytes can't be read back.
pybind11::object decode(Codec codec, std::string_view bytes);
// The same for an entry of that cache. One that it mustn't read is an empty packed one.
pybind11::object decode(const CacheHandle& cache, const ValueBuffer& value);

// A key's bytes: str as UTF-8, bytes as they are; TypeError otherwise. Valid while `key` lives.
std::string_view key_bytes(pybind11::handle key);

// Seconds to an absolute expiry; None = never. TypeError, ValueError (not a number).
std::uint64_t expiry(pybind11::handle ttl);

}  // namespace celeriac::bindings
