// Clocks. Everything in the arena that is a moment is CLOCK_MONOTONIC in nanoseconds: it is the
// same for all processes of one boot and never jumps; the wall clock is only for people to read.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

namespace celeriac {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kSecond = 1'000'000'000;

std::uint64_t now_ns();
std::uint64_t wall_ns();

// now + seconds as a deadline; saturates at kNever; not a number or below zero means now.
std::uint64_t deadline_after(double seconds);

// /proc/sys/kernel/random/boot_id as 16 bytes; zeros where it can't be read.
std::array<std::uint8_t, 16> boot_id();

void pause_ms(unsigned ms);

// n bytes from the kernel's random generator.
void random_bytes(void* to, std::size_t n);

}  // namespace celeriac
