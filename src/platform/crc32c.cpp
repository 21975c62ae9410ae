#include "platform/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace celeriac {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1U) != 0 ? 0x82F63B78U ^ (c >> 1) : c >> 1;
    t[i] = c;
  }
  return t;
}

constexpr std::array<std::uint32_t, 256> kTable = make_table();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc32c_hardware(const void* data, std::size_t n,
                                                                std::uint32_t seed) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint64_t c = ~seed;
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);
    c = _mm_crc32_u64(c, word);
  }
  auto c32 = static_cast<std::uint32_t>(c);
  for (; n > 0; ++p, --n) c32 = _mm_crc32_u8(c32, *p);
  return ~c32;
}

bool has_hardware() { return static_cast<bool>(__builtin_cpu_supports("sse4.2")); }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) std::uint32_t crc32c_hardware(const void* data, std::size_t n,
                                                              std::uint32_t seed) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint32_t c = ~seed;
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);
    c = __builtin_aarch64_crc32cx(c, word);
  }
  for (; n > 0; ++p, --n) c = __builtin_aarch64_crc32cb(c, *p);
  return ~c;
}

bool has_hardware() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
std::uint32_t crc32c_hardware(const void* data, std::size_t n, std::uint32_t seed) {
  return crc32c_portable(data, n, seed);
}

bool has_hardware() { return false; }
#endif

const bool kHardware = has_hardware();  // found out at load time, see fork_guard.cpp

}  // namespace

std::uint32_t crc32c_portable(const void* data, std::size_t n, std::uint32_t seed) {
  const auto* p = static_cast<const unsigned char*>(data);
  std::uint32_t c = ~seed;
  for (; n > 0; ++p, --n) c = kTable[(c ^ *p) & 0xFFU] ^ (c >> 8);
  return ~c;
}

std::uint32_t crc32c(const void* data, std::size_t n, std::uint32_t seed) {
  return kHardware ? crc32c_hardware(data, n, seed) : crc32c_portable(data, n, seed);
}

}  // namespace celeriac
