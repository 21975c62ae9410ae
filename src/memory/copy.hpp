// Copies between private memory and the arena that may race with writers: 64-bit relaxed atomic
// words, so that a race yields a stale value that validation throws away, and no undefined
// behaviour. Shared sides are 8-byte aligned; the last word may run up to 7 bytes past n, which
// blocks have room for (their sizes are multiples of 16).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace celeriac {

inline std::uint64_t relaxed_load(const std::uint64_t* p) {
  return std::atomic_ref(const_cast<std::uint64_t&>(*p)).load(std::memory_order_relaxed);
}

inline void copy_out(void* to, const void* shared, std::size_t n) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const std::uint64_t*>(shared);
  for (; n >= 8; n -= 8, out += 8, ++in) {
    const std::uint64_t w = relaxed_load(in);
    std::memcpy(out, &w, 8);
  }
  if (n > 0) {
    const std::uint64_t w = relaxed_load(in);
    std::memcpy(out, &w, n);
  }
}

inline void copy_in(void* shared, const void* from, std::size_t n) {
  auto* out = static_cast<std::uint64_t*>(shared);
  const auto* in = static_cast<const char*>(from);
  for (; n > 0; ++out) {
    std::uint64_t w = 0;
    const std::size_t step = n < 8 ? n : 8;
    std::memcpy(&w, in, step);
    std::atomic_ref(*out).store(w, std::memory_order_relaxed);
    in += step;
    n -= step;
  }
}

inline bool equal(const void* shared, const void* with, std::size_t n) {
  const auto* in = static_cast<const std::uint64_t*>(shared);
  const auto* other = static_cast<const char*>(with);
  for (; n > 0; ++in) {
    const std::size_t step = n < 8 ? n : 8;
    std::uint64_t expected = 0;
    std::memcpy(&expected, other, step);
    const std::uint64_t w = relaxed_load(in);
    if (std::memcmp(&w, &expected, step) != 0) return false;
    other += step;
    n -= step;
  }
  return true;
}

}  // namespace celeriac
