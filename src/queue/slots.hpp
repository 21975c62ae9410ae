// Slots: the truth about messages. A message is one slot; its tagged word says what state it is in
// and, while somebody works on it, whose it is.
//
//            acquire           publish                    reserve            ack
//   kFree ------------> kWriting(o) ----> kReady / kDelayed ----> kReserved(o) ----> kReclaim(o)
//     ^                                      ^   ^    | due              |                |
//     |                                      |   '----'                  | nack           |
//     |                                      '---------------------------'                |
//     '-----------------------------------------------------------------------------------'
//   kReserved(o) -> kDead when the delivery limit is reached;
//   kReady, kDelayed, kDead -> kReclaim(o) by purge, expiry or dropping.
//
// Invariants
//   Q1  Every transition is one CAS from the exact word seen; taking writes the owner in it.
//   Q2  The generation rises when a slot is acquired and at each reservation. deliveries =
//       generation - Slot.first. An ack carries the word of its reservation: after a redelivery it
//       fails.
//   Q3  Slot.body is non-zero only from kWriting on and zero again before kFree; the block that it
//       names belongs to this slot alone.
//   Q4  A published message (put() returned) is in kReady, kDelayed, kReserved or kDead until it is
//       acknowledged, purged, dropped by its queue's own bound, or expired.
// Killed at any instruction: kWriting(dead) and kReclaim(dead) are finished to kFree, since put()
// didn't return or ack() was decided; kReserved(dead) goes back to kReady, in front.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "memory/base.hpp"
#include "queue/journal_sink.hpp"

namespace celeriac {

constexpr unsigned kSlotFree = 0;
constexpr unsigned kSlotWriting = 1;
constexpr unsigned kSlotReady = 2;
constexpr unsigned kSlotDelayed = 3;
constexpr unsigned kSlotReserved = 4;
constexpr unsigned kSlotDead = 5;
constexpr unsigned kSlotReclaim = 6;

// Whose message and how urgent; written while kWriting, constant until kFree.
struct SlotMeta {
  std::uint64_t bits = 0;
  static constexpr SlotMeta make(std::uint32_t queue, std::uint16_t generation,
                                 std::uint8_t priority) {
    return {static_cast<std::uint64_t>(generation) << 48U |
            static_cast<std::uint64_t>(queue & 0xFFFFU) << 32U |
            static_cast<std::uint64_t>(priority) << 16U};
  }
  constexpr std::uint32_t queue() const {
    return static_cast<std::uint32_t>(bits >> 32U & 0xFFFFU);
  }
  // Whether it belongs to this queue. Of the queue's generation it has the low half: enough, since
  // the messages of a deleted queue are gone long before its place was used 65,536 times more.
  constexpr bool of(std::uint32_t index, std::uint32_t generation) const {
    return queue() == (index & 0xFFFFU) && bits >> 48U == (generation & 0xFFFFU);
  }
  constexpr std::uint8_t priority() const { return static_cast<std::uint8_t>(bits >> 16U); }
};

constexpr layout::Hint make_hint(std::uint32_t index, std::uint32_t generation) {
  return static_cast<std::uint64_t>(generation) << 32U | index;
}
constexpr std::uint32_t hint_index(layout::Hint h) { return static_cast<std::uint32_t>(h); }
constexpr std::uint32_t hint_generation(layout::Hint h) {
  return static_cast<std::uint32_t>(h >> 32U);
}

struct SlotRef {
  std::uint32_t index = 0;
  layout::Slot* slot = nullptr;
};

class Slots {
 public:
  explicit Slots(Base& base)
      : base_(base), directory_(*base.arena.fixed<layout::SlotDirectory>(layout::kSlots)) {}

  layout::Slot* at(std::uint32_t index);
  std::uint32_t count() const { return chunks() * layout::kSlotsPerChunk; }

  // A slot in kWriting(me). kQueueFull when there is none and no memory for more.
  // Thread-safe. Crash-safe: Q1.
  Result<SlotRef> acquire(OwnerTag me);
  // kReclaim(owner) -> kFree, giving the body back. `freer` frees the block afterwards; invalid
  // when the caller repairs for the dead: then the sweep does.
  // Crash-safe: Q3; whoever repairs after a death in here does the rest.
  void reclaim(layout::Slot& slot, TaggedWord word, OwnerTag freer);

  // Null for a store without a journal. REQUIRES: it outlives this; set before anything is used.
  void set_sink(JournalSink* sink) { sink_ = sink; }
  JournalSink* sink() const { return sink_; }

  // Chunks and bodies that are hidden in the heap: messages that are damaged, or gone.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);

  // Counts the slots in use anew, after a death: a hint again.
  // Crash-safe: one store.
  void recount_used();

  // Visits all slots that aren't free. A moment's view of each slot.
  template <class Visit>
  void each(Visit visit) {
    const std::uint32_t n = chunks();
    for (std::uint32_t c = 0; c < n; ++c) {
      layout::Slot* s = chunk(c);
      for (std::uint32_t i = 0; s != nullptr && i < layout::kSlotsPerChunk; ++i) {
        const TaggedWord w = load(s[i].word);
        if (w.state() != kSlotFree) visit(c * layout::kSlotsPerChunk + i, s[i], w);
      }
    }
  }

 private:
  std::uint32_t chunks() const {
    return std::min(directory_.chunks.load(std::memory_order_acquire), layout::kMaxSlotChunks);
  }
  layout::Slot* chunk(std::uint32_t c);
  SlotRef scan(std::uint32_t from, std::uint32_t steps, std::uint32_t n, OwnerTag me);
  Status add_chunk(std::uint32_t seen, OwnerTag me);
  void link(std::uint64_t block, std::uint32_t first, std::uint32_t n);
  void settle(OwnerTag me);

  Base& base_;
  layout::SlotDirectory& directory_;
  JournalSink* sink_ = nullptr;
  std::atomic<std::uint32_t> cursor_{0};
};

}  // namespace celeriac
