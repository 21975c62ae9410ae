// The tagged word: truth about one thing that can be owned, in 64 bits.
//
//   {state:4 | owner slot + 1:12 | owner epoch:16 | generation:32}
//
// Verbs
//   take     CAS from an unowned state to an owned one, writing the owner in the same store
//   finish   CAS from exactly the word that was taken, generation included
// Invariants
//   T1  An owned state names its owner; there is no moment between having and being recorded.
//   T2  The generation rises with every take, so a finish with an old word fails (no ABA within
//       2^32 takes of one word).
// Killed between two verbs: the word says who held it; recovery moves it on by CAS from that
// exact word.
#pragma once

#include <atomic>
#include <cstdint>

#include "arena/owners.hpp"

namespace celeriac {

struct TaggedWord {
  std::uint64_t bits = 0;

  static constexpr TaggedWord make(unsigned state, OwnerTag owner, std::uint32_t generation) {
    const std::uint64_t who = owner.epoch == 0 ? 0 : owner.slot + 1ULL;
    return {static_cast<std::uint64_t>(state) << 60U | who << 48U |
            static_cast<std::uint64_t>(owner.epoch) << 32U | generation};
  }
  constexpr unsigned state() const { return static_cast<unsigned>(bits >> 60U); }
  constexpr OwnerTag owner() const {
    const std::uint64_t who = bits >> 48U & 0xFFFU;
    if (who == 0) return {};
    return {static_cast<std::uint16_t>(who - 1), static_cast<std::uint16_t>(bits >> 32U)};
  }
  constexpr std::uint32_t generation() const { return static_cast<std::uint32_t>(bits); }
  constexpr bool operator==(const TaggedWord&) const = default;
};
static_assert(TaggedWord::make(15, {1023, 65535}, 7).state() == 15);
static_assert(TaggedWord::make(3, {1023, 9}, 7).owner() == OwnerTag{1023, 9});
static_assert(TaggedWord::make(3, {}, 0xFFFFFFFF).generation() == 0xFFFFFFFF);

inline TaggedWord load(const layout::Word& w) { return {w.load(std::memory_order_acquire)}; }

// acq_rel: what the winner does afterwards comes after what the previous holder did before.
inline bool change(layout::Word& w, TaggedWord from, TaggedWord to) {
  return w.compare_exchange_strong(from.bits, to.bits, std::memory_order_acq_rel,
                                   std::memory_order_acquire);
}

}  // namespace celeriac
