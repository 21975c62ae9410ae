#include "queue/parking.hpp"

#include <bit>
#include <new>

#include "arena/crash_point.hpp"
#include "platform/futex.hpp"

namespace celeriac {
namespace {

bool any(const layout::Word* words) {
  for (std::uint32_t i = 0; i < layout::kOwnerWords; ++i) {
    if (words[i].load(std::memory_order_seq_cst) != 0) return true;
  }
  return false;
}

int wake_blocked_threads(layout::QueueRecord& q, int n) {
  q.signal.fetch_add(1, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.wake.signalled");
  return futex_wake(&q.signal, n);
}

}  // namespace

void Parking::wake_one(layout::QueueRecord& q) {
  if (any(q.blocked_owners)) {
    if (wake_blocked_threads(q, 1) > 0) return;
    // Nobody slept: they are on their way in and will see the new signal, or the mark is stale.
  }
  const unsigned start = turn_.fetch_add(1, std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < layout::kOwnerWords; ++i) {
    const std::uint32_t word = (i + start) % layout::kOwnerWords;
    std::uint64_t bits = q.parked_owners[word].load(std::memory_order_seq_cst);
    bits = std::rotr(bits, static_cast<int>(start % 64));
    while (bits != 0) {
      const unsigned bit = (static_cast<unsigned>(std::countr_zero(bits)) + start % 64) % 64;
      bits &= bits - 1;
      const auto slot = static_cast<std::uint16_t>(word * 64 + bit);
      std::uint32_t expected = kParked;
      if (base_.owners.record(slot).parked.compare_exchange_strong(expected, kSignalled,
                                                                   std::memory_order_seq_cst) &&
          writers_.signal(base_.arena.directory(), slot)) {
        return;
      }
    }
  }
}

void Parking::wake_all(layout::QueueRecord& q) {
  wake_blocked_threads(q, 1 << 30);
  for (std::uint32_t i = 0; i < layout::kMaxOwners; ++i) {
    if ((q.parked_owners[i / 64].load(std::memory_order_seq_cst) >> (i % 64) & 1U) == 0) continue;
    writers_.signal(base_.arena.directory(), i);
  }
}

void Parking::wake_blocked(layout::QueueRecord& q, OwnerTag me) {
  const std::uint64_t bits = q.blocked_owners[me.slot / 64].load(std::memory_order_seq_cst);
  if ((bits >> (me.slot % 64) & 1U) == 0) return;
  wake_blocked_threads(q, 1 << 30);
}

void Parking::mark(Counts& counts, layout::Word* words, const QueueRef& q, OwnerTag me) {
  const std::lock_guard lock(mutex_);
  if (counts[q.index]++ > 0) return;
  words[me.slot / 64].fetch_or(1ULL << (me.slot % 64), std::memory_order_seq_cst);
}

void Parking::unmark(Counts& counts, layout::Word* words, const QueueRef& q, OwnerTag me) {
  const std::lock_guard lock(mutex_);
  if (counts[q.index] == 0 || --counts[q.index] > 0) return;
  words[me.slot / 64].fetch_and(~(1ULL << (me.slot % 64)), std::memory_order_seq_cst);
}

void Parking::forget(layout::QueueRecord& q, OwnerTag dead) {
  const std::uint64_t keep = ~(1ULL << (dead.slot % 64));
  q.blocked_owners[dead.slot / 64].fetch_and(keep, std::memory_order_seq_cst);
  q.parked_owners[dead.slot / 64].fetch_and(keep, std::memory_order_seq_cst);
}

void Parking::after_fork_in_child() noexcept {
  new (&mutex_) std::mutex;
  blocked_.fill(0);
  parked_.fill(0);
}

}  // namespace celeriac
