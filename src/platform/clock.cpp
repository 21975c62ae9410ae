#include "platform/clock.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstddef>
#include <ctime>

namespace celeriac {
namespace {

std::uint64_t read_clock(clockid_t which) {
  timespec t{};
  clock_gettime(which, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * kSecond + static_cast<std::uint64_t>(t.tv_nsec);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::uint64_t now_ns() { return read_clock(CLOCK_MONOTONIC); }

std::uint64_t wall_ns() { return read_clock(CLOCK_REALTIME); }

std::uint64_t deadline_after(double seconds) {
  const std::uint64_t now = now_ns();
  if (!(seconds > 0)) return now;
  if (seconds > 9e9) return kNever;
  return now + static_cast<std::uint64_t>(seconds * 1e9);
}

std::array<std::uint8_t, 16> boot_id() {
  std::array<std::uint8_t, 16> id{};
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return id;
  std::array<char, 64> text{};
  const ssize_t n = read(fd, text.data(), text.size());
  close(fd);
  std::size_t nibble = 0;
  for (ssize_t i = 0; i < n && nibble < 32; ++i) {
    const int d = hex_digit(text[static_cast<std::size_t>(i)]);
    if (d < 0) continue;
    id[nibble / 2] = static_cast<std::uint8_t>(id[nibble / 2] | (nibble % 2 != 0 ? d : d << 4));
    ++nibble;
  }
  return id;
}

void pause_ms(unsigned ms) {
  const timespec t{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1'000'000};
  nanosleep(&t, nullptr);
}

void random_bytes(void* to, std::size_t n) {
  auto* p = static_cast<char*>(to);
  while (n > 0) {
    const ssize_t got = getrandom(p, n, 0);
    if (got <= 0) continue;  // EINTR; the generator is ready long before any user program
    p += got;
    n -= static_cast<std::size_t>(got);
  }
}

}  // namespace celeriac
