// Bytes that are read from the front, and never beyond their end.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace celeriac::bindings {

// What can't be read sets a ValueError, and gives false or nullptr.
class Reader {
 protected:
  explicit Reader(std::string_view bytes)
      : begin_(bytes.data()), p_(begin_), end_(begin_ + bytes.size()) {}

  [[gnu::noinline]] PyObject* damaged(const char* what) {
    PyErr_Format(PyExc_ValueError, "damaged at byte %zd of %zd: %s", p_ - begin_, end_ - begin_,
                 what);
    return nullptr;
  }

  std::size_t left() const { return static_cast<std::size_t>(end_ - p_); }

  // Takes n bytes; nullptr with the error set when there are less.
  const char* take(std::size_t n) {
    if (n > left()) {
      damaged("it ends too early");
      return nullptr;
    }
    const char* at = p_;
    p_ += n;
    return at;
  }

  template <class T>
  bool fixed(T* to) {
    const char* at = take(sizeof(T));
    if (at != nullptr) std::memcpy(to, at, sizeof(T));
    return at != nullptr;
  }

  bool varint(std::size_t* to) {
    std::uint64_t n = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
      const char* at = take(1);
      if (at == nullptr) return false;
      const auto byte = static_cast<unsigned char>(*at);
      n |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) {
        *to = n;
        return true;
      }
    }
    damaged("a size without an end");
    return false;
  }

  // A size and so many bytes.
  const char* sized(std::size_t* n) { return varint(n) ? take(*n) : nullptr; }

  // How many items follow, of so many bytes at least.
  bool count(std::size_t* n, std::size_t least) {
    if (!varint(n)) return false;
    if (*n > left() / least) damaged("more items than bytes");
    return *n <= left() / least;
  }

  const char* begin_;
  const char* p_;
  const char* end_;
};

}  // namespace celeriac::bindings
