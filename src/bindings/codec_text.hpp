// Text as bytes, without keeping them in the str as CPython's own calls do.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace celeriac::bindings {

// memcpy() of up to 32 bytes, which is a call's length too long for them.
inline void copy_short(char* to, const char* from, std::size_t n) {
  const auto ends = [&](auto word) {
    std::memcpy(&word, from, sizeof word);
    auto last = word;
    std::memcpy(&last, from + n - sizeof word, sizeof word);
    std::memcpy(to, &word, sizeof word);
    std::memcpy(to + n - sizeof word, &last, sizeof word);
  };
  struct Half {
    std::uint64_t a, b;
  };
  if (n >= 16) {
    ends(Half{});
  } else if (n >= 8) {
    ends(std::uint64_t{});
  } else if (n >= 4) {
    ends(std::uint32_t{});
  } else if (n >= 2) {
    ends(std::uint16_t{});
  } else if (n == 1) {
    *to = *from;
  }
}

inline bool is_ascii(const char* p, std::size_t n) {
  std::uint64_t all = 0;
  std::uint64_t w = 0;
  for (; n >= 8; p += 8, n -= 8) {
    std::memcpy(&w, p, 8);
    all |= w;
  }
  w = 0;
  std::memcpy(&w, p, n);
  return ((all | w) & 0x8080808080808080ULL) == 0;
}

// UTF-8 of n characters; the size, and when `to` isn't null, the bytes. 0 for a lone
// surrogate, which has none.
template <class Character>
std::size_t utf8(const Character* text, std::size_t n, char* to) {
  std::size_t size = 0;
  const auto put = [&](std::uint32_t byte) {
    if (to != nullptr) to[size] = static_cast<char>(byte);
    ++size;
  };
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t c = text[i];
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xC0U | c >> 6U);
      put(0x80U | (c & 0x3FU));
    } else if (c < 0x10000) {
      if (c >= 0xD800 && c < 0xE000) return 0;
      put(0xE0U | c >> 12U);
      put(0x80U | (c >> 6U & 0x3FU));
      put(0x80U | (c & 0x3FU));
    } else {
      put(0xF0U | c >> 18U);
      put(0x80U | (c >> 12U & 0x3FU));
      put(0x80U | (c >> 6U & 0x3FU));
      put(0x80U | (c & 0x3FU));
    }
  }
  return size;
}

inline std::size_t utf8_of(PyObject* text, char* to) {
  const auto n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(text));
  switch (PyUnicode_KIND(text)) {
    case PyUnicode_1BYTE_KIND:
      return utf8(PyUnicode_1BYTE_DATA(text), n, to);
    case PyUnicode_2BYTE_KIND:
      return utf8(PyUnicode_2BYTE_DATA(text), n, to);
    default:
      return utf8(PyUnicode_4BYTE_DATA(text), n, to);
  }
}

}  // namespace celeriac::bindings
