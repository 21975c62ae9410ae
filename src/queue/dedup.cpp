#include "queue/dedup.hpp"

#include <bit>
#include <vector>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;  // entries are the mutex holder's
constexpr std::uint64_t kLeast = 64;
constexpr std::uint64_t kSizes = 16;  // so many doublings

constexpr std::uint64_t block_of(std::uint64_t word) { return word & ~(kSizes - 1); }
constexpr std::uint64_t capacity_of(std::uint64_t word) { return kLeast << (word & (kSizes - 1)); }

// Of a key without the bits that say "nobody's".
constexpr std::uint64_t mark(DedupKey key) { return key.first | 1; }

}  // namespace

Dedup::Table Dedup::table(const layout::QueueRecord& q) {
  const std::uint64_t word = q.dedup.block.load(std::memory_order_acquire);
  if (word == 0) return {};
  const std::uint64_t capacity = capacity_of(word);
  char* p = base_.heap.payload(block_of(word), capacity * sizeof(layout::DedupEntry));
  if (p == nullptr) return {};
  return {reinterpret_cast<layout::DedupEntry*>(p), capacity};
}

bool Dedup::alive(std::uint64_t id) {
  const layout::Slot* s = slots_.at(hint_index(id));
  for (int i = 0; s != nullptr && i < 1000; ++i) {
    const TaggedWord w = load(s->word);
    const std::uint32_t put = put_generation(*s);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(s->word) != w) continue;  // on its way from one state to another
    const bool there = w.state() == kSlotReady || w.state() == kSlotDelayed ||
                       w.state() == kSlotReserved || w.state() == kSlotReturning;
    return there && put == hint_generation(id);
  }
  return s != nullptr;  // changes all the time: somebody has it
}

bool Dedup::taken(const layout::DedupEntry& e) {
  const std::uint64_t until = e.until.load(kRelaxed);
  return until != 0 ? now_ns() < until : alive(e.message.load(kRelaxed));
}

// The key's entry; without one, null, or `to_write` where it may be.
layout::DedupEntry* Dedup::entry(const Table& t, DedupKey key, bool to_write) {
  layout::DedupEntry* free = nullptr;
  for (std::uint64_t i = 0; i < t.capacity; ++i) {
    layout::DedupEntry& e = t.entries[(key.second + i) & (t.capacity - 1)];
    const std::uint64_t first = e.first.load(kRelaxed);
    if (first == mark(key) && e.second.load(kRelaxed) == key.second) return &e;
    if (to_write && free == nullptr && (first == 0 || !taken(e))) free = &e;
    if (first == 0) break;
  }
  return free;
}

void Dedup::settle(layout::QueueRecord& q, OwnerTag me) {
  layout::Word* pending = q.dedup.mutex.pending;
  const std::uint64_t now = block_of(q.dedup.block.load(kRelaxed));
  for (layout::Word* p = pending; p < pending + 2; ++p) {
    const std::uint64_t left = base_.heap.still_live(p->load(std::memory_order_acquire));
    if (left != 0 && left != now) base_.heap.release(left, me);
    p->store(0, std::memory_order_release);
  }
}

// Room for one more entry: D3.
Status Dedup::make_room(layout::QueueRecord& q, OwnerTag me) {
  const Table old = table(q);
  if ((q.dedup.used.load(kRelaxed) + 1) * 2 <= old.capacity) return Status::ok();
  std::vector<const layout::DedupEntry*> kept;
  for (std::uint64_t i = 0; i < old.capacity; ++i) {
    const layout::DedupEntry& e = old.entries[i];
    if (e.first.load(kRelaxed) != 0 && taken(e)) kept.push_back(&e);
  }
  std::uint64_t log2 = 0;
  while ((kLeast << log2) < (kept.size() + 1) * 4) ++log2;
  if (log2 >= kSizes) return {Code::kQueueFull, "the queue remembers a million dedup keys already"};
  const std::uint64_t capacity = kLeast << log2;
  Result<std::uint64_t> block = base_.allocate(capacity * sizeof(layout::DedupEntry), me);
  if (!block) {
    return {Code::kQueueFull, "no memory for another dedup key: " + block.status().message()};
  }
  char* p = base_.heap.payload(block.value(), capacity * sizeof(layout::DedupEntry));
  if (p == nullptr) return {Code::kCorrupt, "the heap gave a block that isn't one"};
  const Table fresh{reinterpret_cast<layout::DedupEntry*>(p), capacity};
  for (std::uint64_t i = 0; i < capacity; ++i) fresh.entries[i].first.store(0, kRelaxed);
  for (const layout::DedupEntry* e : kept) {
    const DedupKey key{e->first.load(kRelaxed), e->second.load(kRelaxed)};
    layout::DedupEntry& to = *entry(fresh, key, true);
    to.second.store(key.second, kRelaxed);
    to.message.store(e->message.load(kRelaxed), kRelaxed);
    to.until.store(e->until.load(kRelaxed), kRelaxed);
    to.first.store(key.first, kRelaxed);
  }
  const std::uint64_t was = block_of(q.dedup.block.load(kRelaxed));
  layout::Word* pending = q.dedup.mutex.pending;
  pending[0].store(base_.heap.ticket(block.value()), std::memory_order_release);
  pending[1].store(base_.heap.ticket(was), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("queue.dedup.live");
  // release: the table is whole before it is found
  q.dedup.block.store(block.value() | log2, std::memory_order_release);
  q.dedup.used.store(kept.size(), kRelaxed);
  CELERIAC_CRASH_POINT("queue.dedup.linked");
  settle(q, me);
  return Status::ok();
}

Result<std::uint64_t> Dedup::find(const QueueRef& queue, DedupKey key, OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  OwnerMutex mutex(q.dedup.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the table of dedup keys");
  if (guard.recovered()) settle(q, me);
  const layout::DedupEntry* e = entry(table(q), key, false);
  return e != nullptr && taken(*e) ? e->message.load(kRelaxed) : 0;
}

Result<std::uint64_t> Dedup::put(const QueueRef& queue, DedupKey key, std::uint64_t window_ns,
                                 std::uint64_t id, const std::function<Status()>& publish,
                                 OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  OwnerMutex mutex(q.dedup.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the table of dedup keys");
  if (guard.recovered()) settle(q, me);
  layout::DedupEntry* e = entry(table(q), key, false);
  if (e != nullptr && taken(*e)) return e->message.load(kRelaxed);
  if (e == nullptr) {
    Status room = make_room(q, me);
    if (!room) return room;
    e = entry(table(q), key, true);
    if (e == nullptr) return Status(Code::kCorrupt, "the table of dedup keys is damaged");
    if (e->first.load(kRelaxed) == 0) q.dedup.used.fetch_add(1, kRelaxed);
    e->first.store(mark({}), kRelaxed);  // D2: nobody's, and still used
  }
  e->message.store(id, kRelaxed);
  e->until.store(0, kRelaxed);
  e->second.store(key.second, kRelaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);  // in this order, for who takes over
  e->first.store(mark(key), std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.dedup.named");
  Status published = publish();
  if (!published) return published;  // D1: the entry is free
  CELERIAC_CRASH_POINT("queue.dedup.published");
  if (window_ns != 0) e->until.store(now_ns() + window_ns, std::memory_order_release);
  return id;
}

void Dedup::clear(layout::QueueRecord& q, OwnerTag me) {
  const auto zero = [](const layout::Word& w) { return w.load(std::memory_order_acquire) == 0; };
  const layout::Word* pending = q.dedup.mutex.pending;
  if (zero(q.dedup.block) && zero(pending[0]) && zero(pending[1])) return;
  OwnerMutex mutex(q.dedup.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return;
  settle(q, me);
  const std::uint64_t was = block_of(q.dedup.block.load(kRelaxed));
  if (was == 0) return;
  q.dedup.mutex.pending[1].store(base_.heap.ticket(was), std::memory_order_release);
  q.dedup.block.store(0, std::memory_order_release);
  q.dedup.used.store(0, kRelaxed);
  CELERIAC_CRASH_POINT("queue.dedup.cleared");
  settle(q, me);
}

void Dedup::forget(layout::QueueRecord& q, const LiveBlocks& live) {
  const std::uint64_t word = q.dedup.block.load(kRelaxed);
  if (word != 0 && !live.has(block_of(word))) q.dedup.block.store(0, std::memory_order_release);
}

}  // namespace celeriac
