// Entries as they lie in memory, in segments and in blocks of their own.
//
//   place 2 mod 4:   kind:2 | expiry:4 | key size:2 | value size:2 | key | value
//   place 0 mod 4:   expiry:4 | kind:2 | key size:2 | value size:2 | key | value
//
//   kind = {place of the namespace:7 | being written:1 | codec:8}; codec 0 is nobody's
//
// An entry begins at any even place: ten bytes of head, no padding but for an odd last byte. The
// expiry always stands where a 4-byte word may be, so that touch() is one store. An integer's value
// begins at the next place where an 8-byte word may be, so that increment() is one store. All else
// never changes once the entry can be found. Sizes are written when the place is reserved, before
// the segment's `used` counts them, so that a walk over a segment is whole at any instruction.
//
// While an entry of a segment is being written, its expiry is the writer's {owner slot | epoch}:
// its memory isn't anybody else's before the writer has said that it is complete, or has died.
//
// Value size 0xFFFF: the entry is alone in its block, and BlockHead.value_size says it.
//
// An expiry is a count of 1.024 us from the base of the segment (or block) as a small
// floating-point number {exponent:5 | mantissa:27}: exact to a microsecond for two minutes and to
// 2^-26 of the whole beyond, always rounded down. All ones: never.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "arena/layout.hpp"
#include "memory/copy.hpp"
#include "platform/clock.hpp"
#include "store/value.hpp"

namespace celeriac {

constexpr std::uint64_t kEntryHead = 10;
constexpr std::uint64_t kFirstInSegment = 8;  // place of the first entry of a segment
constexpr std::uint64_t kSinglePlace = 16;    // place of an entry that is alone in its block
constexpr std::uint32_t kSingleSize = 0xFFFF;

constexpr std::uint32_t kNeverExpires = 0xFFFFFFFF;

constexpr std::uint32_t encode_expiry(std::uint64_t expires, std::uint64_t base) {
  if (expires == kNever) return kNeverExpires;
  const std::uint64_t units = expires > base ? (expires - base) >> 10U : 0;
  const auto bits = static_cast<unsigned>(std::bit_width(units));
  const unsigned exponent = bits > 27 ? bits - 27 : 0;
  return exponent << 27U | static_cast<std::uint32_t>(units >> exponent);
}
constexpr std::uint64_t decode_expiry(std::uint32_t expiry, std::uint64_t base) {
  if (expiry == kNeverExpires) return kNever;
  const unsigned shift = (expiry >> 27U) + 10;
  const std::uint64_t units = expiry & 0x7FFFFFFU;
  if (shift > static_cast<unsigned>(std::countl_zero(units))) return kNever - 1;
  const std::uint64_t after = units << shift;
  return after < kNever - 1 - base ? base + after : kNever - 1;
}

// What the head says; `value_at` and `end` are places.
struct EntryHead {
  std::uint64_t expires = 0;
  std::uint64_t value_size = 0;
  std::uint64_t value_at = 0;
  std::uint64_t end = 0;
  std::uint16_t key_size = 0;
  std::uint16_t raw_value_size = 0;
  std::uint8_t space = 0;  // space_index() of its namespace
  Codec codec = Codec::kNone;

  bool is_word() const { return codec == Codec::kInt && value_size == 8; }
};

// A block's payload and a place in it. The payload is mapped for `room` bytes.
struct EntryPlace {
  char* payload = nullptr;
  std::uint64_t room = 0;
  std::uint64_t base = 0;
  std::uint64_t at = 0;
};

inline void lay_out(std::uint64_t at, EntryHead* h) {
  h->value_at = at + kEntryHead + h->key_size;
  if (h->is_word()) h->value_at = layout::align_up(h->value_at, 8);
  h->end = layout::align_up(h->value_at + h->value_size, 2);
}

inline std::uint64_t kind_at(const EntryPlace& p) { return (p.at & 2U) != 0 ? 0 : 4; }
inline std::uint32_t& expiry_word(const EntryPlace& p) {
  return *reinterpret_cast<std::uint32_t*>(p.payload + p.at + (p.at & 2U));
}
inline std::uint16_t& half(const EntryPlace& p, std::uint64_t by) {
  return *reinterpret_cast<std::uint16_t*>(p.payload + p.at + by);
}
inline std::uint16_t relaxed_half(const EntryPlace& p, std::uint64_t by) {
  return std::atomic_ref(half(p, by)).load(std::memory_order_relaxed);
}

constexpr std::uint16_t kBeingWritten = 1U << 8U;
constexpr std::uint16_t kCodecBits = kBeingWritten - 1;
static_assert(layout::kMaxNamespaces <= 1U << 7U, "an entry's head has 7 bits for a namespace");

// False when no entry can begin there or what it says doesn't fit into the payload.
inline bool read_head(const EntryPlace& p, EntryHead* h) {
  if (p.room < kEntryHead || p.at > p.room - kEntryHead || p.at % 2 != 0) return false;
  const std::uint16_t kind = relaxed_half(p, kind_at(p));
  h->codec = static_cast<Codec>(kind & kCodecBits);
  h->space = static_cast<std::uint8_t>(kind >> 9U);
  h->key_size = relaxed_half(p, 6);
  h->raw_value_size = relaxed_half(p, 8);
  h->value_size = h->raw_value_size;
  if (h->raw_value_size == kSingleSize) {
    if (p.at != kSinglePlace) return false;
    h->value_size =
        reinterpret_cast<layout::BlockHead*>(p.payload)->value_size.load(std::memory_order_relaxed);
    if (h->value_size > p.room) return false;
  }
  h->expires =
      decode_expiry(std::atomic_ref(expiry_word(p)).load(std::memory_order_relaxed), p.base);
  lay_out(p.at, h);
  return h->end <= p.room;
}

// Expiry and kind: the entry is complete. REQUIRES: the place is the caller's.
// Crash-safe: nobody finds the entry yet.
inline void complete_head(const EntryPlace& p, const EntryHead& h) {
  std::atomic_ref(expiry_word(p))
      .store(encode_expiry(h.expires, p.base), std::memory_order_relaxed);
  const auto kind = static_cast<std::uint16_t>(h.space << 9U | static_cast<unsigned>(h.codec));
  // release pairs with the acquire in being_written(): the writer is done with this memory
  std::atomic_ref(half(p, kind_at(p))).store(kind, std::memory_order_release);
}
// Who is writing it; 0 = nobody, it is complete.
inline std::uint32_t being_written(const EntryPlace& p) {
  const std::uint16_t kind = std::atomic_ref(half(p, kind_at(p))).load(std::memory_order_acquire);
  if ((kind & kBeingWritten) == 0) return 0;
  return std::atomic_ref(expiry_word(p)).load(std::memory_order_relaxed);
}

// The head of an entry that `writer` is about to write. REQUIRES: the place is the caller's.
// Crash-safe: nobody finds the entry yet.
inline void write_head(const EntryPlace& p, const EntryHead& h, std::uint32_t writer) {
  std::atomic_ref(expiry_word(p)).store(writer, std::memory_order_relaxed);
  const auto kind =
      static_cast<std::uint16_t>(h.space << 9U | kBeingWritten | static_cast<unsigned>(h.codec));
  std::atomic_ref(half(p, kind_at(p))).store(kind, std::memory_order_relaxed);
  std::atomic_ref(half(p, 6)).store(h.key_size, std::memory_order_relaxed);
  std::atomic_ref(half(p, 8)).store(h.raw_value_size, std::memory_order_relaxed);
}

// Bytes of memory that an entry costs, itself and its word in the index: wherever it lies.
inline std::uint64_t entry_cost(const EntryHead& h) {
  const std::uint64_t entry = layout::align_up(kEntryHead + h.key_size + h.value_size, 2);
  const bool single = h.raw_value_size == kSingleSize;
  return entry + sizeof(layout::Word) + (single ? kSinglePlace + sizeof(layout::BlockHeader) : 0);
}

}  // namespace celeriac
