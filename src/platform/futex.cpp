#include "platform/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

#include "platform/blocking.hpp"
#include "platform/clock.hpp"

namespace celeriac {
namespace {

BlockingHooks g_hooks;

}  // namespace

void set_blocking_hooks(BlockingHooks hooks) { g_hooks = hooks; }

bool blocking_interrupted() { return g_hooks.interrupted != nullptr && g_hooks.interrupted(); }

BlockingRegion::BlockingRegion() {
  if (g_hooks.before != nullptr) token_ = g_hooks.before();
}

BlockingRegion::~BlockingRegion() {
  if (g_hooks.after != nullptr) g_hooks.after(token_);
}

bool futex_wait(const std::atomic<std::uint32_t>* word, std::uint32_t expected,
                std::uint64_t deadline_ns) {
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
  timespec until{};
  const timespec* limit = nullptr;
  if (deadline_ns != kNever) {
    until.tv_sec = static_cast<time_t>(deadline_ns / kSecond);
    until.tv_nsec = static_cast<long>(deadline_ns % kSecond);
    limit = &until;
  }
  BlockingRegion sleeping;
  // WAIT_BITSET takes an absolute CLOCK_MONOTONIC time; without FUTEX_PRIVATE the kernel keys the
  // word by inode and offset, so that every process that maps the file meets here.
  const long r =
      syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, limit, nullptr, FUTEX_BITSET_MATCH_ANY);
  return !(r < 0 && errno == ETIMEDOUT);
}

int futex_wake(const std::atomic<std::uint32_t>* word, int n) {
  const long r = syscall(SYS_futex, word, FUTEX_WAKE, n, nullptr, nullptr, 0);
  return r < 0 ? 0 : static_cast<int>(r);
}

}  // namespace celeriac
