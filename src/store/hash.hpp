// A keyed 64-bit hash of short strings: multiply-and-fold of 16 bytes a step. The key is random for
// each arena, so that nobody outside can choose keys that collide.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace celeriac {

inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide p = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(p) ^ static_cast<std::uint64_t>(p >> 64U);
}

inline std::uint64_t hash_key(std::string_view key, std::uint64_t seed) {
  constexpr std::uint64_t kA = 0xA0761D6478BD642FULL;
  constexpr std::uint64_t kB = 0xE7037ED1A0B428DBULL;
  const auto word = [](const char* p, std::size_t n) {
    std::uint64_t w = 0;
    std::memcpy(&w, p, n);
    return w;
  };
  const char* p = key.data();
  std::size_t n = key.size();
  std::uint64_t h = fold(seed ^ kA, n ^ kB);
  for (; n >= 16; p += 16, n -= 16) h = fold(word(p, 8) ^ h ^ kA, word(p + 8, 8) ^ seed ^ kB);
  const std::uint64_t low = n >= 8 ? word(p, 8) : word(p, n);
  const std::uint64_t high = n > 8 ? word(p + 8, n - 8) : 0;
  return fold(fold(low ^ h ^ kB, high ^ seed ^ kA), h ^ kA);
}

}  // namespace celeriac
