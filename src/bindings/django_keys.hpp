// Which bytes of a key make Django warn: those up to the space, and DEL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace celeriac::bindings {

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

}  // namespace celeriac::bindings
