// What queues tell the journal of a file:// store, before they do it. A store without a journal has
// no sink, and its queues and messages have no number in one.
//
//   put     the record is written before the message is published: a message that anybody sees is
//           in the journal. Its number stands in Slot.journal from then on.
//   ended   written while the slot is kReclaim, before it is free: whoever finishes for the dead
//           writes it again, which changes nothing.
//   moved   written while the message is still reserved by who gives it back: so no record about
//           what comes after it is written before. Who dies in between has given it back all the
//           same.
// To wait until it is on the disk, where the durability asks for it, is the engine's, when the
// operation is over (engine/local/durable.hpp).
//
// Queues that are bound to an owner vanish with it and aren't in the journal, nor is what is in
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "platform/status.hpp"

namespace celeriac {

struct SinkMessage {
  std::uint64_t queue = 0;  // its number
  std::string_view headers;
  std::string_view body;
  std::uint8_t priority = 0;
  std::uint64_t due = 0;  // now_ns() clock, as in queues
  std::uint64_t expires = 0;
};

enum class SinkState : std::uint8_t { kReady = 0, kDelayed = 1, kDead = 2 };

class JournalSink {
 public:
  virtual ~JournalSink() = default;
  // `told` hears the number before anything is written: it is to stand in the slot by then, so that
  // who repairs after a death in here can end the message.
  virtual Result<std::uint64_t> put(const SinkMessage& message,
                                    const std::function<void(std::uint64_t)>& told) = 0;
  // A failure is remembered for the calling thread, and told when the operation is over.
  virtual void ended(std::uint64_t message) = 0;
  virtual void moved(std::uint64_t message, SinkState state, std::uint64_t due,
                     std::uint32_t deliveries, std::string_view reason) = 0;
  // Made (`number` 0) or configured anew; returns its number.
  virtual Result<std::uint64_t> queue(std::uint64_t number, std::string_view name,
                                      std::string_view settings) = 0;
  virtual void queue_gone(std::uint64_t number) = 0;
};

}  // namespace celeriac
