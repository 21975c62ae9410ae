// The key in the store, made of Django's key as its default_key_func() makes it, and validated as
// its memcache_key_warnings() does.
#pragma once

#include <pybind11/pybind11.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "bindings/codec_text.hpp"

namespace celeriac::bindings {

constexpr std::size_t kMaxCharacters = 250;                 // Django's MEMCACHE_MAX_KEY_LENGTH
constexpr std::size_t kMaxBytes = 4 * kMaxCharacters + 64;  // as UTF-8, and room for a version

// What stands before a key: "prefix:version:".
struct Head {
  // From "prefix:" and "version:", both str. False when no key after them is short enough.
  bool set(PyObject* prefix, PyObject* version) {
    Py_ssize_t before_size = 0;
    Py_ssize_t after_size = 0;
    const char* before = PyUnicode_AsUTF8AndSize(prefix, &before_size);
    const char* after = before == nullptr ? nullptr : PyUnicode_AsUTF8AndSize(version, &after_size);
    if (after == nullptr) throw pybind11::error_already_set();
    prefix_size = static_cast<std::size_t>(before_size);
    prefix_characters = static_cast<std::size_t>(PyUnicode_GET_LENGTH(prefix));
    size = prefix_size + static_cast<std::size_t>(after_size);
    characters = prefix_characters + static_cast<std::size_t>(PyUnicode_GET_LENGTH(version));
    if (characters > kMaxCharacters) return false;
    std::memcpy(bytes, before, prefix_size);
    std::memcpy(bytes + prefix_size, after, static_cast<std::size_t>(after_size));
    return true;
  }

  std::size_t prefix_size, prefix_characters, size, characters;
  char bytes[kMaxBytes];
};

// Copies n bytes; false when one of them makes Django warn.
inline bool copy_plain(char* to, const char* from, std::size_t n) {
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
  std::uint64_t wrong = 0;
  const auto look = [&](std::uint64_t w) {
    const std::uint64_t is_del = w ^ kOnes * 0x7F;
    wrong |= (w - kOnes * 0x21) & ~w;     // a byte below 0x21
    wrong |= (is_del - kOnes) & ~is_del;  // a byte that is zero now
  };
  std::uint64_t w = 0;
  for (; n >= 8; to += 8, from += 8, n -= 8) {
    std::memcpy(&w, from, 8);
    std::memcpy(to, &w, 8);
    look(w);
  }
  if (n > 0) {
    w = kOnes * 'a';
    std::memcpy(&w, from, n);
    std::memcpy(to, &w, n);
    look(w);
  }
  return (wrong & kOnes * 0x80) == 0;
}

class FullKey {
 public:
  // False when this isn't for us. `version`: nullptr or None means the object's own.
  bool make(const Head& head, PyObject* key, PyObject* version) {
    std::size_t characters = head.characters;
    size_ = head.size;
    std::memcpy(bytes_, head.bytes, head.size);
    if (version != nullptr && version != Py_None && !is_own_version(head, version)) return false;
    if (!PyUnicode_CheckExact(key)) return false;
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(key) != 0) {
      PyErr_Clear();
      return false;
    }
#endif
    characters += static_cast<std::size_t>(PyUnicode_GET_LENGTH(key));
    if (characters > kMaxCharacters) return false;
    std::size_t n = 0;
    if (PyUnicode_IS_COMPACT_ASCII(key)) {
      n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(key));
      if (!copy_plain(bytes_ + size_, reinterpret_cast<char*>(PyUnicode_1BYTE_DATA(key)), n)) {
        return false;
      }
    } else {
      char text[4 * kMaxCharacters];
      n = utf8_of(key, text);
      if (n == 0 || !copy_plain(bytes_ + size_, text, n)) return false;
    }
    size_ += n;
    return true;
  }

  std::string_view view() const { return {bytes_, size_}; }

 private:
  // Another version's entries are in another cache.
  static bool is_own_version(const Head& head, PyObject* version) {
    if (!PyLong_CheckExact(version)) return false;
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(version, &overflow);
    char text[24];
    char* end = std::to_chars(text, text + sizeof text - 1, number).ptr;
    *end++ = ':';
    const std::string_view own(head.bytes + head.prefix_size, head.size - head.prefix_size);
    return overflow == 0 && own == std::string_view(text, static_cast<std::size_t>(end - text));
  }

  std::size_t size_ = 0;
  char bytes_[kMaxBytes];
};

}  // namespace celeriac::bindings
