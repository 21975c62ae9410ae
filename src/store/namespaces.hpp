// Namespaces: caches and tables by name. Each has a place, a record that entries name by its index.
// There are 128 places; names come and go, and a store doesn't run out of them in normal use:
//
//   - an empty cache gives its place to another name when there is no free one,
//   - names of the library itself ("celeriac.…") have 16 places that no other name can take,
//   - a cache opened with an overflow, whose keys tell it apart (Django's prefixes and versions),
//     has its entries in the overflow's place when there is none for it. Such caches take at most
//     56.
//
//   NamespaceRecord.word = {state:4 | flags:4 | incarnation:24 | generation:32}
//   space id             = {incarnation:24 | index:7}: what a name led to when it was looked up
//
// States of a record
//   kNever     never used
//   kUsed      its name leads to it
//   kVacant    nobody's, between two names
// Transitions, but for clear() all under the directory mutex
//   kNever -> kUsed                        open(), a new name
//   kUsed(i, g) -> kVacant(i + 1, g + 1)   open(), from an empty cache that isn't the library's
//   kVacant -> kUsed                       open(), once the record has its new name
//   kUsed(i, g) -> kUsed(i, g + 1)         clear(), by one CAS
//   kUsed(i, g) -> kUsed(i + 1, g + 1)     an overflow's clear(), or open() that finds it empty
//
// Invariants
//   N1  Within a record, incarnation and generation only rise; no entry has generation 0. A
//       record whose incarnation is at its end keeps its name.
//   N2  A space id is good while its record is kUsed in its incarnation. generation() of any
//       other is 0. Handles in any process keep ids, and nobody tells them: they look.
//   N3  Who reads compares an entry's generation with generation(id), which is one load: what
//       it takes is of its own name.
//   N4  Who writes looks under the shard's mutex for what is there, by a good id, and then links
//       with what generation(id) says, unless that is 0: so a late writer changes no other name's
//       entries, and what it links is of a generation that never comes back. A shard has one word
//       for a key of a place, whosever it is.
//   N5  A call that finds its id no longer good after it was done is done again by its handle,
//       with an id looked up anew. So what is lost, as if evicted at once, is only what was
//       linked between the look that found the namespace empty and the transition to kVacant.
//       Tables keep their places.
//   N6  An era of an overflow is one incarnation of it. Once a name has been sent there
//       (kFull), no name with that overflow gets a place of its own while the era lasts. The
//       era ends when the overflow is found empty, or is cleared. So all processes agree where
//       a name's entries are, and what a name has left in the overflow is gone before it gets
//       a place.
//   N7  Index words know 16 bits of a generation. No word is of a generation before `swept` of its
//       place, and the generation gets at most 2^15 ahead of `swept`, over all incarnations: so no
//       word is ever taken for one of another generation, nor of another name. A transition that
//       would go further isn't made; Eviction::drop_absent() sweeps all shards and raises `swept`
//       to the generation that it found before. This holds since a writer links with a generation
//       that it has asked for under the shard's mutex (N4), and who moves an entry has seen under
//       it that the entry's is the one of now.
//   N8  A namespace looks empty only when no entry of it is linked, but for one that is being
//       unlinked at that moment: who replaces or moves an entry counts the new place before it
//       discounts the old.
//   N9  `max_entries` belongs to the name, and is 0 when a name begins. It is set under the
//       directory mutex, with a good id. An overflow has none: it keeps the entries of caches that
//       would bound each other. The log of a place (store/segments.hpp) may still have entries of
//       an earlier name: they are absent, and are what leaves it first.
// Killed at any instruction: a record is kVacant, and the next to need a place takes it; or it is
// kUsed and complete, since the name is written before that state; or not yet counted by
// `namespace_high`.
//
// clear() raises the generation: entries of another generation are as good as absent, and their
// memory comes back as eviction or the next set meets them. Statistics begin anew with a name, in
// all rows (store/prefixes.hpp); calls that are under way in that moment may be counted for the
// wrong one. Entries that an earlier name has left are counted for nobody when they go.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "store/prefixes.hpp"

namespace celeriac {

constexpr std::uint32_t space_index(std::uint32_t space) { return space % layout::kMaxNamespaces; }

struct NamespaceName {
  std::uint32_t index = 0;
  bool pinned = false;
  std::string name;
};

struct NamespaceRequest {
  std::string_view name;
  bool pinned = false;             // a table: its entries are never evicted, its place is its own
  std::string_view overflow = {};  // the name of a cache, or empty
  bool create = true;              // false: kNotFound where the name has no place, and no entries
  std::uint32_t lead = 0;          // of the name, if it has one (store/prefixes.hpp)
};

class Namespaces {
 public:
  static constexpr std::uint32_t kReserved = 16;
  static constexpr std::uint32_t kMostWithOverflow = 56;
  static constexpr std::string_view kLibrary = "celeriac.";

  explicit Namespaces(Base& base) : base_(base), prefixes_(base) {}

  // The id of the namespace, or of its overflow; it is made on first use. kNotEnoughMemory when all
  // places are taken by tables and by caches with entries; kConfiguration for a name that is empty,
  // over 240 bytes, or a table's used as a cache or the other way round.
  // Thread-safe. Crash-safe: see above.
  Result<std::uint32_t> open(const NamespaceRequest& request, OwnerTag me);
  Result<std::uint32_t> open(std::string_view name, bool pinned, OwnerTag me) {
    return open(NamespaceRequest{name, pinned}, me);
  }

  // How many entries it may have, 0 = as many as memory holds.
  std::uint32_t max_entries(std::uint32_t space) const {
    return record(space).max_entries.load(std::memory_order_relaxed);
  }
  // False, and nothing happens, when the id isn't good any more or is an overflow's. kLockTimeout.
  // Thread-safe. Crash-safe: one store.
  Result<bool> limit(std::uint32_t space, std::uint32_t max_entries, OwnerTag me);

  bool good(std::uint32_t space) const { return generation(space) != 0; }
  // 0 when the id isn't good any more.
  std::uint32_t generation(std::uint32_t space) const {
    // acquire pairs with the release in take(): the record is complete
    const Bits b{record(space).word.load(std::memory_order_acquire)};
    return b.state() == kUsed && b.incarnation() == space / layout::kMaxNamespaces ? b.generation()
                                                                                   : 0;
  }
  // That of the place, whoever has it.
  std::uint32_t generation_now(std::uint32_t index) const {
    return Bits{record(index).word.load(std::memory_order_acquire)}.generation();
  }
  bool pinned(std::uint32_t space) const {
    return (Bits{record(space).word.load(std::memory_order_relaxed)}.flags() & kPinned) != 0;
  }
  // It keeps the entries of several names.
  bool is_overflow(std::uint32_t space) const {
    return (Bits{record(space).word.load(std::memory_order_relaxed)}.flags() & kOverflow) != 0;
  }
  // All entries become absent in one step. False, and nothing happens, when the id isn't good any
  // more or a sweep is due (N7); an overflow's isn't good afterwards.
  // Thread-safe. Crash-safe: one increment.
  bool clear(std::uint32_t space);
  // No new generation before the shards are swept (N7): of this one, of any.
  bool sweep_due(std::uint32_t space) const {
    // acquire pairs with the release in swept(): what was swept away is gone
    const std::uint32_t swept = record(space).swept.load(std::memory_order_acquire);
    return generation_now(space_index(space)) - swept >= kSweepEvery;
  }
  bool sweep_due() const;
  // All words of the place that are of generations before this one are gone.
  // Thread-safe. Crash-safe: one store.
  void swept(std::uint32_t index, std::uint32_t generation);
  // Under the directory mutex. Thread-safe. Crash-safe: changes nothing.
  Result<std::vector<NamespaceName>> list(OwnerTag me) const;

  layout::CellRecord& cell(std::uint32_t space, std::uint32_t shard) const {
    return base_.arena.fixed<layout::CellRecord>(
        layout::kCells)[space_index(space) * layout::kShardCount + shard];
  }
  Prefixes& prefixes() { return prefixes_; }
  const Prefixes& prefixes() const { return prefixes_; }
  // Where what happens to a key is counted. Thread-safe, lock-free. Crash-safe: as Prefixes::row().
  layout::CounterStripe& counters(std::uint32_t space, std::string_view key, OwnerTag who) {
    return prefixes_.row(space_index(space), key, who);
  }

 private:
  static constexpr std::uint32_t kSweepEvery = 1U << 15U;
  enum State : std::uint8_t { kNever = 0, kUsed = 1, kVacant = 2 };
  // Flags: a table; opened with an overflow; is one; names have been sent here in this incarnation.
  static constexpr unsigned kPinned = 1, kHasOverflow = 2, kOverflow = 4, kFull = 8;
  struct Bits {
    std::uint64_t bits = 0;
    static constexpr std::uint32_t kLastIncarnation = 0xFFFFFF;
    static constexpr Bits make(State state, unsigned flags, std::uint32_t incarnation,
                               std::uint32_t generation) {
      return {static_cast<std::uint64_t>(state) << 60U | static_cast<std::uint64_t>(flags) << 56U |
              static_cast<std::uint64_t>(incarnation) << 32U | generation};
    }
    constexpr unsigned state() const { return static_cast<unsigned>(bits >> 60U); }
    constexpr unsigned flags() const { return static_cast<unsigned>(bits >> 56U & 0xFU); }
    constexpr std::uint32_t incarnation() const {
      return static_cast<std::uint32_t>(bits >> 32U) & kLastIncarnation;
    }
    constexpr std::uint32_t generation() const { return static_cast<std::uint32_t>(bits); }
  };

  layout::NamespaceRecord& record(std::uint32_t space) const {
    return base_.arena.fixed<layout::NamespaceRecord>(layout::kNamespaces)[space_index(space)];
  }
  Bits bits(std::uint32_t index) const {
    return {record(index).word.load(std::memory_order_relaxed)};
  }
  static std::uint32_t id(Bits b, std::uint32_t index) {
    return b.incarnation() * layout::kMaxNamespaces + index;
  }
  std::string_view name(std::uint32_t index) const;
  std::uint32_t count() const;
  bool empty(std::uint32_t index) const;
  // A new incarnation, in that state; false when there is none left, or a sweep is due.
  bool begin_anew(std::uint32_t index, State state, unsigned flags);

  // REQUIRE the directory mutex.
  std::uint32_t find(std::string_view wanted) const;
  std::uint32_t free_place(const NamespaceRequest& request);
  void take(std::uint32_t index, std::string_view name, unsigned flags, std::uint32_t lead);
  Result<std::uint32_t> open_overflow(const NamespaceRequest& request);

  Base& base_;
  Prefixes prefixes_;
};

}  // namespace celeriac
