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

// Both in whole words first: a copy of a size that isn't constant would be a call for each.
inline void copy_in(void* shared, const void* from, std::size_t n) {
  auto* out = static_cast<std::uint64_t*>(shared);
  const auto* in = static_cast<const char*>(from);
  for (; n >= 8; n -= 8, in += 8, ++out) {
    std::uint64_t w = 0;
    std::memcpy(&w, in, 8);
    std::atomic_ref(*out).store(w, std::memory_order_relaxed);
  }
  if (n > 0) {
    std::uint64_t w = 0;
    std::memcpy(&w, in, n);
    std::atomic_ref(*out).store(w, std::memory_order_relaxed);
  }
}

inline bool equal(const void* shared, const void* with, std::size_t n) {
  const auto* in = static_cast<const std::uint64_t*>(shared);
  const auto* other = static_cast<const char*>(with);
  for (; n >= 8; n -= 8, other += 8, ++in) {
    std::uint64_t expected = 0;
    std::memcpy(&expected, other, 8);
    if (relaxed_load(in) != expected) return false;
  }
  if (n == 0) return true;
  const std::uint64_t w = relaxed_load(in);
  return std::memcmp(&w, other, n) == 0;
}

// The same for shared sides at any address: entries are packed. Reads take the aligned words
// around, up to 7 bytes before and behind; writes touch no byte that isn't theirs, since neighbours
// may be written meanwhile.

inline void copy_out_packed(void* to, const char* shared, std::size_t n) {
  const auto address = reinterpret_cast<std::uintptr_t>(shared);
  const unsigned shift = static_cast<unsigned>(address & 7U) * 8;
  const auto* in = reinterpret_cast<const std::uint64_t*>(shared - (address & 7U));
  if (shift == 0) return copy_out(to, in, n);
  if (n == 0) return;
  auto* out = static_cast<char*>(to);
  std::uint64_t low = relaxed_load(in++);
  for (; n >= 8; n -= 8, out += 8) {
    const std::uint64_t high = relaxed_load(in++);
    const std::uint64_t w = low >> shift | high << (64 - shift);
    std::memcpy(out, &w, 8);
    low = high;
  }
  if (n == 0) return;
  std::uint64_t w = low >> shift;
  if (n * 8 > 64 - shift) w |= relaxed_load(in) << (64 - shift);
  std::memcpy(out, &w, n);
}

inline void copy_in_packed(char* shared, const void* from, std::size_t n) {
  const auto* in = static_cast<const char*>(from);
  const auto bytes = [&](std::size_t count) {
    for (n -= count; count > 0; --count) {
      std::atomic_ref(*shared++).store(*in++, std::memory_order_relaxed);
    }
  };
  const std::size_t before = (8 - reinterpret_cast<std::uintptr_t>(shared) % 8) % 8;
  bytes(before < n ? before : n);
  for (; n >= 8; n -= 8, in += 8, shared += 8) {
    std::uint64_t w = 0;
    std::memcpy(&w, in, 8);
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(shared)).store(w, std::memory_order_relaxed);
  }
  bytes(n);
}

inline bool equal_packed(const char* shared, const char* with, std::size_t n) {
  std::uint64_t buffer[8];
  while (n > 0) {
    const std::size_t step = n < sizeof buffer ? n : sizeof buffer;
    copy_out_packed(buffer, shared, step);
    if (std::memcmp(buffer, with, step) != 0) return false;
    shared += step, with += step, n -= step;
  }
  return true;
}

}  // namespace celeriac
