#include "queue/slots.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"

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

SlotRef Slots::acquire_at(std::uint32_t index, std::uint32_t generation, OwnerTag me) {
  while (index >= count()) {
    if (index / layout::kSlotsPerChunk >= layout::kMaxSlotChunks) return {};
    if (!add_chunk(chunks(), me)) return {};
  }
  layout::Slot* s = at(index);
  if (s == nullptr) return {};
  const TaggedWord w = load(s->word);
  if (w.state() != kSlotFree ||
      !change(s->word, w, TaggedWord::make(kSlotWriting, me, generation))) {
    return {};
  }
  directory_.used.fetch_add(1, std::memory_order_relaxed);
  return {index, s};
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

// Generations of slots that were lost and made anew don't begin where they did: what was the id of
// a message that is gone is not soon another's.
void Slots::begin_anywhere(layout::Word* words, std::uint64_t n) {
  std::uint32_t from = 0;
  random_bytes(&from, sizeof from);
  for (std::uint64_t i = 0; i < n; ++i) {
    words[i * sizeof(layout::Slot) / sizeof(layout::Word)].store(
        TaggedWord::make(kSlotFree, {}, from).bits, std::memory_order_relaxed);
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
                                  " messages, the most that any store can have, whatever its "
                                  "memory=: consume some, or use another store"};
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
  if (sink_ != nullptr) begin_anywhere(words, n * layout::kSlotsPerChunk);
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
  each([&](std::uint32_t, layout::Slot& s, TaggedWord) {
    const std::uint64_t reason = reason_block(s);
    if (reason != 0 && !live.has(reason)) *reason_of(s) = 0;
  });
}

layout::MessageHead* Slots::head(const layout::Slot& slot) {
  char* p =
      base_.heap.payload(slot.body.load(std::memory_order_acquire), sizeof(layout::MessageHead));
  return reinterpret_cast<layout::MessageHead*>(p);
}

std::uint64_t* Slots::reason_of(const layout::Slot& slot) {
  layout::MessageHead* h = head(slot);
  return h == nullptr ? nullptr : &h->reason;
}

std::uint64_t Slots::number(const layout::Slot& slot) {
  layout::MessageHead* h = sink_ == nullptr ? nullptr : head(slot);
  return h == nullptr ? 0 : std::atomic_ref(h->journal).load(std::memory_order_relaxed);
}

void Slots::set_number(const layout::Slot& slot, std::uint64_t number) {
  layout::MessageHead* h = head(slot);
  if (h != nullptr) std::atomic_ref(h->journal).store(number, std::memory_order_relaxed);
}

std::uint64_t Slots::reason_block(const layout::Slot& slot) {
  if (!SlotMeta{slot.meta.load(std::memory_order_acquire)}.reasoned()) return 0;
  const std::uint64_t* named = reason_of(slot);
  if (named == nullptr) return 0;
  return base_.heap.still_live(
      std::atomic_ref(const_cast<std::uint64_t&>(*named)).load(std::memory_order_relaxed));
}

void Slots::set_reason(layout::Slot& slot, std::string_view text, OwnerTag me) {
  const SlotMeta meta{slot.meta.load(std::memory_order_relaxed)};
  std::uint64_t* named = reason_of(slot);
  const std::uint64_t old = reason_block(slot);
  if (named == nullptr) return;
  const std::uint64_t size = std::min(text.size(), kMaxReasonBytes);
  Result<std::uint64_t> block = base_.allocate(sizeof(std::uint64_t) + size, me);
  if (!block) return;
  char* p = base_.heap.payload(block.value(), sizeof size + size);
  if (p == nullptr) return;
  copy_in(p, &size, sizeof size);
  copy_in(p + sizeof size, text.data(), size);
  // The old one first: whoever dies between here and there leaves no reason, and no block.
  if (old != 0) base_.heap.condemn(old, me);
  std::atomic_ref(*named).store(base_.heap.ticket(block.value()), std::memory_order_relaxed);
  slot.meta.store(meta.with_reason().bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.reason.named");
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("queue.reason.live");
  if (old != 0) base_.heap.free(old, me);
}

std::string Slots::reason(const layout::Slot& slot) {
  const std::uint64_t block = reason_block(slot);
  std::uint64_t size = 0;
  const char* p = block == 0 ? nullptr : base_.heap.payload(block, sizeof size);
  if (p == nullptr) return {};
  copy_out(&size, p, sizeof size);
  size = std::min<std::uint64_t>(size, kMaxReasonBytes);
  if (base_.heap.payload(block, sizeof size + size) == nullptr) return {};
  std::string text(size, '\0');
  copy_out(text.data(), p + sizeof size, size);
  return text;
}

void Slots::recount_used() {
  std::uint64_t used = 0;
  each([&](std::uint32_t, const layout::Slot&, TaggedWord) { ++used; });
  directory_.used.store(used, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("queue.repair.recounted");
}

Status Slots::tell_end(const layout::Slot& slot) {
  const std::uint64_t known = number(slot);
  if (known == 0) return Status::ok();
  Status told = sink_->ended(known);
  CELERIAC_CRASH_POINT("queue.reclaim.told");
  if (told) set_number(slot, 0);
  return told;
}

void Slots::reclaim(layout::Slot& slot, TaggedWord word, OwnerTag freer) {
  static_cast<void>(tell_end(slot));
  // Before the body, which leads to it. A ticket of what is garbage leads nowhere.
  const std::uint64_t reason = reason_block(slot);
  if (reason != 0) base_.heap.condemn(reason, word.owner());
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
  for (const std::uint64_t block : {body, reason}) {
    if (block == 0) continue;
    if (freer.valid()) {
      base_.heap.free(block, freer);
    } else {
      base_.heap.mark_dirty();
    }
  }
}

}  // namespace celeriac
