// Slots: the truth about messages. A message is one slot; its tagged word says what state it is in
// and, while somebody works on it, whose it is.
//
//            acquire           publish                    reserve            ack
//   kFree ------------> kWriting(o) ----> kReady / kDelayed ----> kReserved(o) ----> kReclaim(o)
//     ^                                      ^   ^    | due              |                |
//     |                                      |   '----'                  | nack           |
//     |                                      '---------------------------'                |
//     '-----------------------------------------------------------------------------------'
//   kReserved(o) -> kDone, when done messages are kept;
//   kReserved(o) -> kReturning(p) -> kReady, kDelayed, kDead, when more than the word changes; p is
//     the owner that gives it back, or who ends the reservation of one that hangs or is dead;
//   kDead -> kReturning(o) -> kReady by retry_dead();
//   kReady, kDelayed, kDead, kDone -> kReclaim(o) by purge, expiry, dropping or cancelling.
//
// Invariants
//   Q1  Every transition is one CAS from the exact word seen; taking writes the owner in it.
//   Q2  The generation rises when a slot is acquired and at each reservation. deliveries =
//       generation - the high half of Slot.first. An ack carries the word of its reservation: after
//       a redelivery it fails.
//   Q3  Slot.body is non-zero only from kWriting on and zero again before kFree; the block that it
//       names belongs to this slot alone.
//   Q4  A published message (put() returned) is in kReady, kDelayed, kReserved, kReturning or kDead
//       until it is acknowledged, purged, cancelled, dropped by its queue's own bound, or expired.
//   Q5  What is more than the word is written by the owner in kWriting, kReturning or kReclaim
//       alone; but for Slot.due in kReserved, which says itself whether it holds, by its
//       generation, and Slot.expires in kDone and kDead, which is the retained_mutex's. A message
//       with an end (SlotMeta) never expires, since Slot.expires may be what a list left there.
// Killed at any instruction: kWriting(dead) and kReclaim(dead) are finished to kFree, since put()
// didn't return or ack() was decided; kReserved(dead) and kReturning(dead) go back to kReady, in
// front, in the queue that Slot.meta names: one word, so that a message on its way to a dead letter
// queue is in the one or the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

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
constexpr unsigned kSlotDone = 7;
constexpr unsigned kSlotReturning = 8;
constexpr unsigned kSlotStates = 9;

// Why a message ended, or came into a dead letter queue.
enum class End : std::uint8_t { kNone, kGivenBack, kOwnerDied, kDamaged, kExpired, kHung };

// Whose message and how urgent; written while kWriting or kReturning, constant otherwise.
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
  // Of the same queue and priority.
  constexpr bool same_lane(SlotMeta other) const {
    return ((bits ^ other.bits) & 0xFFFFFFFF00FF0000ULL) == 0;
  }
  // Does MessageHead.reason mean anything?
  constexpr bool reasoned() const { return (bits >> 24U & 1U) != 0; }
  constexpr SlotMeta with_reason() const { return {bits | 1ULL << 24U}; }
  constexpr End end() const { return static_cast<End>(bits >> 8U & 0xFFU); }
  constexpr unsigned end_deliveries() const { return static_cast<unsigned>(bits & 0xFFU); }
  constexpr SlotMeta with_end(End end, std::uint32_t deliveries) const {
    return {(bits & ~0xFFFFULL) | static_cast<std::uint64_t>(end) << 8U |
            std::min<std::uint32_t>(deliveries, 255)};
  }
  // The same message in another queue.
  constexpr SlotMeta moved(std::uint32_t queue, std::uint16_t generation) const {
    return {make(queue, generation, 0).bits | (bits & 0xFFFFFFFFULL)};
  }
};

// Slot.first: the generation when it was put, and the one from which deliveries count.
constexpr std::uint64_t make_first(std::uint32_t put, std::uint32_t counted_from) {
  return static_cast<std::uint64_t>(counted_from) << 32U | put;
}
inline std::uint32_t put_generation(const layout::Slot& s) {
  return static_cast<std::uint32_t>(s.first.load(std::memory_order_relaxed));
}
inline std::uint32_t deliveries_of(const layout::Slot& s, TaggedWord w) {
  return w.generation() -
         static_cast<std::uint32_t>(s.first.load(std::memory_order_relaxed) >> 32U);
}

// Slot.due: until when a message of this generation is delayed, or reserved; 0 = it isn't.
constexpr std::uint64_t make_due(std::uint64_t deadline_ns, std::uint32_t generation) {
  const std::uint64_t ms = deadline_ns / kMillisecond + (deadline_ns % kMillisecond != 0 ? 1 : 0);
  return std::min<std::uint64_t>(ms, (1ULL << 40U) - 1) << 24U | (generation & 0xFFFFFFU);
}
constexpr std::uint64_t due_of(std::uint64_t due, std::uint32_t generation) {
  return (due & 0xFFFFFFU) == (generation & 0xFFFFFFU) ? (due >> 24U) * kMillisecond : 0;
}

constexpr layout::Hint make_hint(std::uint32_t index, std::uint32_t generation) {
  return static_cast<std::uint64_t>(generation) << 32U | index;
}
constexpr std::uint32_t hint_index(layout::Hint h) { return static_cast<std::uint32_t>(h); }
constexpr std::uint32_t hint_generation(layout::Hint h) {
  return static_cast<std::uint32_t>(h >> 32U);
}

// Of what is said when a message is given back.
constexpr std::size_t kMaxReasonBytes = 1024;

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
  // The same of that slot, with a generation of the caller's; null when it isn't to be had.
  // Thread-safe. Crash-safe: Q1.
  SlotRef acquire_at(std::uint32_t index, std::uint32_t generation, OwnerTag me);
  // kReclaim(owner) -> kFree, giving the body back. `freer` frees the block afterwards; invalid
  // when the caller repairs for the dead: then the sweep does.
  // Crash-safe: Q3; whoever repairs after a death in here does the rest.
  void reclaim(layout::Slot& slot, TaggedWord word, OwnerTag freer);

  // Tells the journal that the message is no more, if it knows of it. REQUIRES: kReclaim(me).
  // Crash-safe: told again by reclaim(), which changes nothing.
  Status tell_end(const layout::Slot& slot);

  // Keeps the text with the message, in place of what was said before; at most kMaxReasonBytes.
  // Without memory nothing is kept. REQUIRES: the word is kReturning(me), or kWriting(me).
  // Crash-safe: the block counts once it is live, and is named by a ticket: one life of it.
  void set_reason(layout::Slot& slot, std::string_view text, OwnerTag me);
  // What is kept; empty when there is nothing. REQUIRES: the caller looks at the slot's word again.
  std::string reason(const layout::Slot& slot);

  // Null for a store without a journal. REQUIRES: it outlives this; set before anything is used.
  void set_sink(JournalSink* sink) { sink_ = sink; }
  JournalSink* sink() const { return sink_; }
  // Of the message in the journal; 0 = it isn't there. REQUIRES: the slot is the caller's.
  std::uint64_t number(const layout::Slot& slot);
  // Crash-safe: one word, of a message that nobody else has.
  void set_number(const layout::Slot& slot, std::uint64_t number);

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
  layout::MessageHead* head(const layout::Slot& slot);
  std::uint64_t* reason_of(const layout::Slot& slot);
  std::uint64_t reason_block(const layout::Slot& slot);
  std::uint32_t chunks() const {
    return std::min(directory_.chunks.load(std::memory_order_acquire), layout::kMaxSlotChunks);
  }
  layout::Slot* chunk(std::uint32_t c);
  SlotRef scan(std::uint32_t from, std::uint32_t steps, std::uint32_t n, OwnerTag me);
  Status add_chunk(std::uint32_t seen, OwnerTag me);
  static void begin_anywhere(layout::Word* words, std::uint64_t n);
  void link(std::uint64_t block, std::uint32_t first, std::uint32_t n);
  void settle(OwnerTag me);

  Base& base_;
  layout::SlotDirectory& directory_;
  JournalSink* sink_ = nullptr;
  std::atomic<std::uint32_t> cursor_{0};
};

}  // namespace celeriac
