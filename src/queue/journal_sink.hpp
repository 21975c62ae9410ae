// What queues tell the journal of a file:// store, before they do it. A store without a journal has
// no sink, and its queues and messages have no number in one.
//
//   put     the record is written before the message is published: a message that anybody sees is
//           in the journal. Its number stands in MessageHead.journal from then on.
//   ended   written while the slot is kReclaim, before it is free: whoever finishes for the dead
//           writes it again, which changes nothing.
//   moved   written before the word says what became of the message, by who has it: so no record
//           about what comes after it is written before. Who dies in between leaves a message that
//           is ready again, and who repairs tells that, too.
// To wait until it is on the disk, where the durability asks for it, is the engine's, when the
// operation is over (engine/local/durable.hpp).
//
// Queues that are bound to an owner vanish with it and aren't in the journal, nor is what is in
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "platform/status.hpp"

namespace celeriac {

// Times are of the now_ns() clock, as in queues.
struct SinkMessage {
  std::uint64_t queue = 0;  // its number
  std::uint64_t id = 0;     // what put() returns
  std::string_view headers;
  std::string_view body;
  std::uint8_t priority = 0;
  std::uint64_t due = 0;
  std::uint64_t expires = 0;
  std::string_view key{};    // of deduplication; empty = none
  std::uint64_t key_ns = 0;  // its window
  std::uint8_t end = 0;      // as in SinkChange
  std::uint8_t end_deliveries = 0;
};

enum class SinkState : std::uint8_t { kReady = 0, kDelayed = 1, kDead = 2, kDone = 3 };

struct SinkChange {
  SinkState state = SinkState::kReady;
  std::uint64_t at = 0;     // kDelayed: until when; kDead, kDone: since when
  std::uint64_t queue = 0;  // 0 = the same as before
  bool behind = false;      // it is the last of its queue now, and never expires
  std::uint32_t deliveries = 0;
  std::uint8_t end = 0;  // of Slot.meta
  std::uint8_t end_deliveries = 0;
  std::string_view reason;
};

class JournalSink {
 public:
  virtual ~JournalSink() = default;
  // All or none, numbered one after the other; returns the first number. `told` hears it before
  // anything is written: the numbers are to stand with the messages by then, so that who repairs
  // after a death in here can end them.
  virtual Result<std::uint64_t> put(std::span<const SinkMessage> messages,
                                    const std::function<void(std::uint64_t)>& told) = 0;
  // A failure is remembered for the calling thread as well, and told when the operation is over: so
  // who can go back does that, and who can't goes on.
  virtual Status ended(std::uint64_t message) = 0;
  virtual Status moved(std::uint64_t message, const SinkChange& change) = 0;
  // Made (`number` 0) or configured anew; returns its number.
  virtual Result<std::uint64_t> queue(std::uint64_t number, std::string_view name,
                                      std::string_view settings) = 0;
  virtual void queue_gone(std::uint64_t number) = 0;
};

}  // namespace celeriac
