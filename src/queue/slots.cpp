#include "queue/slots.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kChunkBytes = sizeof(layout::Slot) * layout::kSlotsPerChunk;

}  // namespace

layout::Slot* Slots::chunk(std::uint32_t c) {
  if (c >= layout::kMaxSlotChunks) return nullptr;
  const std::uint64_t block = directory_.offsets[c].load(std::memory_order_acquire);
  if (block == 0) return nullptr;
  return base_.arena.at<layout::Slot>(aligned_object(block), kChunkBytes);
}

layout::Slot* Slots::at(std::uint32_t index) {
  layout::Slot* s = chunk(index / layout::kSlotsPerChunk);
  return s == nullptr ? nullptr : s + index % layout::kSlotsPerChunk;
}

SlotRef Slots::scan(std::uint32_t from, std::uint32_t steps, std::uint32_t n, OwnerTag me) {
  std::uint32_t i = from;
  for (std::uint32_t k = 0; k < steps; ++k) {
    i = i + 1 < n ? i + 1 : 0;
    layout::Slot* s = at(i);
    if (s == nullptr) continue;  // its chunk was lost
    const TaggedWord w = load(s->word);
    if (w.state() != kSlotFree) continue;
    if (!change(s->word, w, TaggedWord::make(kSlotWriting, me, w.generation() + 1))) continue;
    CELERIAC_CRASH_POINT("queue.put.acquired");
    directory_.used.fetch_add(1, std::memory_order_relaxed);
    cursor_.store(i, std::memory_order_relaxed);
    return {i, s};
  }
  return {};
}

Result<SlotRef> Slots::acquire(OwnerTag me) {
  for (;;) {
    const std::uint32_t n = count();
    // A hint: a few off after a death, and even below zero for a moment.
    const auto used = static_cast<std::int64_t>(directory_.used.load(std::memory_order_relaxed));
    // With an eighth free, a free slot is about eight steps away. When fewer are free and none is
    // near, more slots are cheaper than a long search; without memory for more, search them all.
    const std::uint32_t from = cursor_.load(std::memory_order_relaxed);
    SlotRef found = scan(from, std::min(n, 256U), n, me);
    if (found.slot == nullptr && used < std::int64_t{n - n / 8}) found = scan(from, n, n, me);
    if (found.slot != nullptr) return found;
    Status added = add_chunk(n / layout::kSlotsPerChunk, me);
    if (added) {
      cursor_.store(n == 0 ? 0 : n - 1, std::memory_order_relaxed);  // the new ones begin at n
      continue;
    }
    found = scan(from, n, n, me);
    if (found.slot != nullptr) return found;
    return added;
  }
}

Status Slots::add_chunk(std::uint32_t seen, OwnerTag me) {
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of slots");
  layout::Word& pending = directory_.mutex.pending[0];
  if (guard.recovered()) settle(me);
  const std::uint32_t chunks = this->chunks();
  if (chunks != seen) return Status::ok();  // another was first
  if (chunks == layout::kMaxSlotChunks) {
    return {Code::kQueueFull, "the store holds " +
                                  std::to_string(layout::kMaxSlotChunks * layout::kSlotsPerChunk) +
                                  " messages and room for no more: consume some"};
  }
  // Slots are for ever. Many at a time, when there are many, so that they lie in few places.
  const std::uint64_t most = std::min<std::uint64_t>(base_.arena.capacity() / 16 / kChunkBytes, 64);
  std::uint64_t n = std::clamp<std::uint64_t>(chunks / 2, 1, std::max<std::uint64_t>(most, 1));
  n = std::min<std::uint64_t>(n, layout::kMaxSlotChunks - chunks);
  Result<std::uint64_t> block = base_.allocate(aligned_bytes(n * kChunkBytes), me);
  if (!block && n > 1) block = base_.allocate(aligned_bytes((n = 1) * kChunkBytes), me);
  if (!block) {
    return {Code::kQueueFull, "no memory for more messages: " + block.status().message()};
  }
  auto* words = base_.arena.at<layout::Word>(aligned_object(block.value()), n * kChunkBytes);
  if (words == nullptr) return {Code::kCorrupt, "the heap gave a block that isn't one"};
  for (std::uint64_t i = 0; i < n * kChunkBytes / sizeof(layout::Word); ++i) {
    words[i].store(0, std::memory_order_relaxed);
  }
  pending.store(base_.heap.ticket(block.value()), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("queue.slots.live");
  link(block.value(), chunks, static_cast<std::uint32_t>(n));
  pending.store(0, std::memory_order_release);
  return Status::ok();
}

// Makes the chunks in a block, from its first on, those from `first` on.
void Slots::link(std::uint64_t block, std::uint32_t first, std::uint32_t n) {
  for (std::uint32_t i = 0; i < n; ++i) {
    directory_.offsets[first + i].store(block + i * kChunkBytes, std::memory_order_release);
    CELERIAC_CRASH_POINT("queue.slots.linked");
  }
  // release pairs with the acquire in count(): the slots are zeroed before they count
  directory_.chunks.store(first + n, std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.slots.counted");
}

// What one who died with the mutex left: a block that isn't linked, or not yet wholly, or is.
void Slots::settle(OwnerTag me) {
  layout::Word& pending = directory_.mutex.pending[0];
  const std::uint64_t block = base_.heap.still_live(pending.load(std::memory_order_acquire));
  const std::uint32_t chunks = this->chunks();
  const auto in_block = static_cast<std::uint32_t>(base_.heap.room(block) / kChunkBytes);
  const auto leads_to_it = [&](std::uint32_t c) {
    return c < layout::kMaxSlotChunks &&
           directory_.offsets[c].load(std::memory_order_relaxed) == block;
  };
  if (block != 0 && leads_to_it(chunks)) {
    link(block, chunks, std::min(in_block, layout::kMaxSlotChunks - chunks));
  } else if (block != 0 && (chunks < in_block || !leads_to_it(chunks - in_block))) {
    base_.heap.release(block, me);
  }
  pending.store(0, std::memory_order_release);
}

void Slots::forget(const LiveBlocks& live) {
  const auto lost = [this](layout::Word& leads_there) {
    leads_there.store(0, std::memory_order_release);
    base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
  };
  for (std::uint32_t c = 0; c < chunks(); ++c) {
    layout::Word& at = directory_.offsets[c];
    const std::uint64_t block = at.load(std::memory_order_relaxed);
    if (block != 0 && !live.holds(aligned_object(block), kChunkBytes)) lost(at);
  }
  each([&](std::uint32_t, layout::Slot& s, TaggedWord w) {
    const std::uint64_t body = s.body.load(std::memory_order_relaxed);
    if (body == 0 || live.has(body)) return;
    // Of one that a dead process was writing or giving back, the sweep has taken the body.
    const bool unfinished = w.state() == kSlotWriting || w.state() == kSlotReclaim;
    if (unfinished) s.body.store(0, std::memory_order_release);
    if (!unfinished) lost(s.body);
  });
}

void Slots::recount_used() {
  std::uint64_t used = 0;
  each([&](std::uint32_t, const layout::Slot&, TaggedWord) { ++used; });
  directory_.used.store(used, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("queue.repair.recounted");
}

void Slots::reclaim(layout::Slot& slot, TaggedWord word, OwnerTag freer) {
  if (const std::uint64_t number = slot.journal.load(std::memory_order_acquire); number != 0) {
    if (sink_ != nullptr) sink_->ended(number);
    CELERIAC_CRASH_POINT("queue.reclaim.told");
    slot.journal.store(0, std::memory_order_release);
  }
  const std::uint64_t body = slot.body.load(std::memory_order_acquire);
  if (body != 0) {
    base_.heap.condemn(body, word.owner());  // stays that owner's until it is freed or reaped
    CELERIAC_CRASH_POINT("queue.reclaim.condemned");
    slot.body.store(0, std::memory_order_release);
  }
  CELERIAC_CRASH_POINT("queue.reclaim.bodyless");
  if (change(slot.word, word, TaggedWord::make(kSlotFree, {}, word.generation()))) {
    directory_.used.fetch_sub(1, std::memory_order_relaxed);
  }
  CELERIAC_CRASH_POINT("queue.reclaim.freed");
  if (body == 0) return;
  if (freer.valid()) {
    base_.heap.free(body, freer);
  } else {
    base_.heap.mark_dirty();
  }
}

}  // namespace celeriac
