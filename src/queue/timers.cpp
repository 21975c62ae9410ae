#include "queue/timers.hpp"

#include <algorithm>
#include <cstring>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

bool later(const layout::TimerEntry& a, const layout::TimerEntry& b) { return a.due > b.due; }

}  // namespace

std::span<layout::TimerEntry> Timers::entries() {
  const std::uint64_t block = timers_.entries.load(std::memory_order_relaxed);
  const std::uint64_t capacity = timers_.capacity.load(std::memory_order_relaxed);
  constexpr std::uint64_t kMost = std::uint64_t{layout::kMaxSlotChunks} * layout::kSlotsPerChunk;
  if (block == 0 || capacity > 2 * kMost) return {};  // twice: ensure() doubles
  char* at = base_.heap.payload(block, capacity * sizeof(layout::TimerEntry));
  if (at == nullptr) return {};
  return {reinterpret_cast<layout::TimerEntry*>(at), capacity};
}

std::span<layout::TimerEntry> Timers::heap() {
  const std::span<layout::TimerEntry> room = entries();
  return room.first(std::min(room.size(), timers_.count.load(std::memory_order_relaxed)));
}

void Timers::publish_next() {
  const std::span<layout::TimerEntry> all = heap();
  // seq_cst: pairs with the consumer that reads it after it has said that it is about to sleep
  timers_.next_due.store(all.empty() ? kNever : all[0].due, std::memory_order_seq_cst);
}

Status Timers::ensure(std::uint64_t wanted, OwnerTag me) {
  const std::uint64_t old = timers_.entries.load(std::memory_order_relaxed);
  layout::Word* pending = timers_.mutex.pending;
  for (layout::Word* p = pending; p < pending + 2; ++p) {
    const std::uint64_t left = base_.heap.still_live(p->load(std::memory_order_acquire));
    if (left != 0 && left != old) base_.heap.release(left, me);
    p->store(0, std::memory_order_release);
  }
  const std::span<layout::TimerEntry> from = entries();
  if (wanted <= from.size()) return Status::ok();
  if (!from.empty() && wanted == heap().size() + 1) {
    compact();
    wanted = heap().size() + 1;
    if (wanted <= from.size() / 2) return Status::ok();
  }
  const std::uint64_t bigger = std::max<std::uint64_t>({wanted, from.size() * 2, 256});
  Result<std::uint64_t> block = base_.allocate(bigger * sizeof(layout::TimerEntry), me);
  if (!block) return block.status();
  char* to = base_.heap.payload(block.value(), bigger * sizeof(layout::TimerEntry));
  if (to == nullptr) return {Code::kCorrupt, "the heap gave a block that isn't one"};
  if (!from.empty()) std::memcpy(to, from.data(), from.size_bytes());
  pending[0].store(base_.heap.ticket(block.value()), std::memory_order_relaxed);
  pending[1].store(base_.heap.ticket(old), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("timers.grow.live");
  timers_.entries.store(block.value(), std::memory_order_release);
  // A death right here leaves the old capacity with the new block: smaller, and true.
  timers_.capacity.store(bigger, std::memory_order_release);
  CELERIAC_CRASH_POINT("timers.grow.linked");
  if (old != 0) base_.heap.release(old, me);
  pending[0].store(0, std::memory_order_release);
  pending[1].store(0, std::memory_order_release);
  return Status::ok();
}

// Will the entry do anything when it comes up?
bool Timers::stands(const layout::TimerEntry& e) {
  const layout::Slot* s = slots_.at(hint_index(e.hint));
  if (s == nullptr) return false;
  const TaggedWord w = load(s->word);
  return (w.state() == kSlotDelayed || w.state() == kSlotReserved) &&
         w.generation() == hint_generation(e.hint);
}

void Timers::compact() {
  const std::span<layout::TimerEntry> all = heap();
  const auto end = std::remove_if(all.begin(), all.end(),
                                  [this](const layout::TimerEntry& e) { return !stands(e); });
  std::make_heap(all.begin(), end, later);
  CELERIAC_CRASH_POINT("timers.compact.made");
  timers_.count.store(static_cast<std::uint64_t>(end - all.begin()), std::memory_order_relaxed);
  publish_next();
}

Status Timers::reserve(OwnerTag me) {
  OwnerMutex mutex(timers_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the timer heap");
  if (guard.recovered()) rebuild(me);
  // Other processes may use up the room before insert(): then it rebuilds later.
  return ensure(heap().size() + 1, me);
}

bool Timers::insert(std::uint64_t due, layout::Hint hint, OwnerTag me) {
  OwnerMutex mutex(timers_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) {
    distrust();
    return true;
  }
  if (guard.recovered()) rebuild(me);
  if (!ensure(heap().size() + 1, me)) {
    distrust();
    return true;
  }
  const std::uint64_t n = heap().size();
  layout::TimerEntry* e = entries().data();
  const std::uint64_t before = timers_.next_due.load(std::memory_order_relaxed);
  e[n] = {due, hint};
  std::push_heap(e, e + n + 1, later);
  CELERIAC_CRASH_POINT("timers.insert.pushed");
  timers_.count.store(n + 1, std::memory_order_relaxed);
  publish_next();
  return due < before;
}

std::vector<layout::Hint> Timers::due(std::uint64_t now, OwnerTag me) {
  std::vector<layout::Hint> ready;
  if (next_due() > now) return ready;
  OwnerMutex mutex(timers_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return ready;
  if (guard.recovered() || timers_.dirty.exchange(0, std::memory_order_acq_rel) != 0) rebuild(me);
  std::span<layout::TimerEntry> left = heap();
  while (!left.empty() && left[0].due <= now && ready.size() < 4096) {
    ready.push_back(left[0].hint);
    std::pop_heap(left.begin(), left.end(), later);
    left = left.first(left.size() - 1);
  }
  timers_.count.store(left.size(), std::memory_order_relaxed);
  publish_next();
  CELERIAC_CRASH_POINT("timers.due.taken");
  return ready;
}

void Timers::distrust() {
  timers_.dirty.store(1, std::memory_order_seq_cst);
  timers_.next_due.store(0, std::memory_order_seq_cst);
}

std::vector<layout::TimerEntry> Timers::waiting() {
  std::vector<layout::TimerEntry> found;
  slots_.each([&](std::uint32_t index, const layout::Slot& s, TaggedWord w) {
    if (w.state() != kSlotDelayed && w.state() != kSlotReserved) return;
    const std::uint64_t due = due_of(s.due.load(std::memory_order_relaxed), w.generation());
    if (due != 0 || w.state() == kSlotDelayed)
      found.push_back({due, make_hint(index, w.generation())});
  });
  std::make_heap(found.begin(), found.end(), later);
  return found;
}

void Timers::fill(const std::vector<layout::TimerEntry>& found) {
  std::copy(found.begin(), found.end(), entries().begin());
  timers_.count.store(found.size(), std::memory_order_relaxed);
  publish_next();
}

void Timers::rebuild(OwnerTag me) {
  const std::vector<layout::TimerEntry> found = waiting();
  timers_.count.store(0, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("timers.rebuild.emptied");
  if (ensure(found.size(), me)) {
    fill(found);
  } else {
    distrust();  // try again when somebody looks next
  }
}

void Timers::forget(const LiveBlocks& live) {
  const std::uint64_t block = timers_.entries.load(std::memory_order_relaxed);
  if (block == 0 || live.has(block)) return;
  timers_.entries.store(0, std::memory_order_relaxed);
  timers_.capacity.store(0, std::memory_order_relaxed);
  timers_.count.store(0, std::memory_order_relaxed);
}

void Timers::rebuild_alone() {
  const std::vector<layout::TimerEntry> found = waiting();
  distrust();
  if (found.size() > entries().size()) return;  // needs memory: whoever looks next sees to it
  fill(found);
  timers_.dirty.store(0, std::memory_order_seq_cst);
}

}  // namespace celeriac
