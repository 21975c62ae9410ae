// Statistics by prefix: what was counted of a cache, in rows, by what its keys begin with.
//
// Each count of an operation goes into one row of the cache, and what a cache has counted in all is
// the sum of its rows: so the sum is exact by construction, and a row costs a call no second count.
//
//   prefix of a key   what stands before its first ':'. Where the cache has a lead (Django's
//                     "prefix:version:", which all keys of a cache have), behind that: the first
//                     `lead` bytes are skipped in keys whose lead-th byte is a ':'.
//   row ""            of each place: keys without a ':', or with nothing before it
//   row of a prefix   one of 80 for all places, at most 48 of one; for prefixes of 1 to 40 bytes
//   row "(other)"     of each place: prefixes that are longer, or came when there was no row left
//
// A row is a few stripes of counters by owner, each a cache line, so that processes don't contend
// for one. Which row is a prefix's says a table of 16 buckets of five words:
//
//   prefix word = {named:1 | used:1 | hash of place and prefix:55 | place:7}; 0 = nobody's
//
// The hash is keyed by the arena's seed, and a prefix is in one of two buckets, which both follow
// from it. The text of the prefix stands in a record beside the word, for people.
//
// Transitions of a prefix word
//   0 -> {h, p}              claim, by one CAS, of the first free word of the two buckets
//   {h, p} -> {named, h, p}  by one CAS, once the text is written: by any who counts there
//   any -> 0                 forget(), by one store, when the place is another name's
//
// Invariants
//   P1  A row is a prefix's from the claim on, named or not: who finds the word counts there.
//       Killed between claim and name, the next who counts that prefix writes its text (several who
//       do so at a time write the same); until then the row is shown as "(other)".
//   P2  Two who claim for one prefix try the same words in the same order, and who fails looks
//       again: so it has one row. Where forget() came between their looks it may have two, which
//       are shown as one.
//   P3  A text is believed only when its hash is the word's. So one that was torn, by damage or by
//       a writer that slept through forget(), is "(other)", and its counts stay in the sum.
//   P4  Rows begin at zero with a name (store/namespaces.hpp): forget() comes before the name. What
//       a call that is under way in that moment counts may be found with whoever has the row then.
//       clear() keeps them.
//   P5  Nobody waits here, and nothing is allocated.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "store/hash.hpp"
#include "store/value.hpp"

namespace celeriac {

// A short string as a number: fewer than 8 bytes, the first one lowest.
inline std::uint64_t short_word(const char* p, std::size_t n) {
  if (n >= 4) {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + n - 4, 4);
    return low | static_cast<std::uint64_t>(high) << 8 * (n - 4);
  }
  if (n == 0) return 0;
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint64_t>(static_cast<std::uint8_t>(p[i])) << 8 * i;
  };
  return byte(0) | byte(n / 2) | byte(n - 1);
}

class Prefixes {
 public:
  static constexpr char kSeparator = ':';
  static constexpr std::string_view kOther = "(other)";
  static constexpr std::uint32_t kMostOfOne = 48;
  static constexpr std::uint32_t kMostLead = 240;
  // A lead beyond that: keys aren't told apart.
  static constexpr std::uint32_t kNotApart = kMostLead + 1;

  explicit Prefixes(Base& base)
      : records_(base.arena.fixed<layout::NamespaceRecord>(layout::kNamespaces)),
        table_(base.arena.fixed<layout::PrefixTable>(layout::kPrefixTable)),
        plain_(base.arena.fixed<layout::CounterStripe>(layout::kCounters)),
        other_(base.arena.fixed<layout::CounterStripe>(layout::kOtherCounters)),
        counted_(base.arena.fixed<layout::CounterStripe>(layout::kPrefixCounters)),
        seed_(base.arena.header().fixed.hash_seed) {}

  // Where what happens to a key of the place is counted.
  // Thread-safe, lock-free. Crash-safe: P1.
  layout::CounterStripe& row(std::uint32_t place, std::string_view key, OwnerTag who) {
    const std::uint32_t lead = record(place).lead.load(std::memory_order_relaxed);
    const char* p = key.data();
    std::size_t n = key.size();
    if (lead > 0) {
      if (lead > kMostLead) [[unlikely]]
        return plain(place, who);
      if (n >= lead && p[lead - 1] == kSeparator) p += lead, n -= lead;
    }
    const Found found = find(place, p, n);
    if (found.hash != 0) return of_prefix(place, found.hash, {p, found.size}, who);
    return found.longer ? other(place, who) : plain(place, who);
  }

  // The lead and the rows of a place, "" and "(other)" among them. Thread-safe.
  PrefixRows list(std::uint32_t place) const;
  // The sum of all rows. Thread-safe.
  void add_up(std::uint32_t place, CacheCounts* to) const;
  // All rows of the place are zero, and those of prefixes nobody's.
  // REQUIRES: the directory mutex. Crash-safe: idempotent, and done anew by the next.
  void forget(std::uint32_t place);

 private:
  static constexpr std::uint32_t kWays = 5;
  static constexpr std::uint32_t kBuckets = layout::kPrefixes / kWays;
  static constexpr std::uint64_t kNamed = 1ULL << 63U;
  static constexpr std::size_t kLongest = sizeof(layout::PrefixRecord::text);
  static_assert(kWays * kBuckets == layout::kPrefixes && layout::kMaxNamespaces <= 1U << 7U);

  struct Found {
    std::uint64_t hash = 0;  // 0: no row of a prefix
    std::size_t size = 0;
    bool longer = false;  // it has a prefix
  };
  // The prefix of what stands behind the lead, and its hash, in words of eight bytes.
  Found find(std::uint32_t place, const char* p, std::size_t n) const {
    constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
    constexpr std::uint64_t kA = 0xA0761D6478BD642FULL;
    std::uint64_t h = seed_ ^ (place + 1) * 0x9E3779B97F4A7C15ULL;
    for (std::size_t at = 0; at <= kLongest; at += 8) {
      std::uint64_t w = 0;
      const std::size_t left = n - at;
      if (left >= 8) {
        std::memcpy(&w, p + at, 8);
      } else {
        w = short_word(p + at, left);
      }
      const std::uint64_t x = w ^ kOnes * kSeparator;  // a separator is zero here
      const std::uint64_t zero = (x - kOnes) & ~x & kOnes * 0x80;
      if (zero != 0) {  // the lowest one is true
        const auto bits = static_cast<unsigned>(std::countr_zero(zero)) & ~7U;
        const std::size_t size = at + bits / 8;
        if (size == 0 || size > kLongest) [[unlikely]]
          return {0, 0, size != 0};
        h = fold(h ^ (w & ~(~0ULL << bits)), kA ^ size);
        return {h | 1U, size, true};
      }
      if (left < 8) return {};
      h = fold(h ^ w, kA);
    }
    return {0, 0, std::memchr(p, kSeparator, n) != nullptr};
  }

  static std::uint64_t word_of(std::uint32_t place, std::uint64_t hash) {
    return (hash >> 7U << 7U | 1ULL << 62U | place) & ~kNamed;
  }
  static std::uint32_t bucket(std::uint64_t word, bool second) {
    return static_cast<std::uint32_t>(second ? word >> 50U : word >> 54U) % kBuckets;
  }

  layout::CounterStripe& of_prefix(std::uint32_t place, std::uint64_t hash, std::string_view prefix,
                                   OwnerTag who) {
    const std::uint64_t word = word_of(place, hash);
    for (const bool second : {false, true}) {
      const std::uint32_t first = bucket(word, second) * kWays;
      for (std::uint32_t i = first; i < first + kWays; ++i) {
        // relaxed: who counts doesn't read the text
        const std::uint64_t there = table_->words[i].load(std::memory_order_relaxed);
        if (there == (word | kNamed)) [[likely]]
          return counted(i, who);
      }
    }
    return claim(place, word, prefix, who);
  }
  layout::CounterStripe& claim(std::uint32_t place, std::uint64_t word, std::string_view prefix,
                               OwnerTag who);
  void name(std::uint32_t row, std::uint64_t word, std::string_view prefix);
  // What a row is shown as (P1, P3).
  std::string text(std::uint32_t row, std::uint64_t word) const;
  static bool is_of(std::uint64_t word, std::uint32_t place) {
    return word != 0 && word % layout::kMaxNamespaces == place;
  }

  layout::NamespaceRecord& record(std::uint32_t place) const { return records_[place]; }
  layout::CounterStripe& plain(std::uint32_t place, OwnerTag who) const {
    return plain_[place * layout::kStripes + who.slot % layout::kStripes];
  }
  layout::CounterStripe& other(std::uint32_t place, OwnerTag who) const {
    return other_[place * layout::kOtherStripes + who.slot % layout::kOtherStripes];
  }
  layout::CounterStripe& counted(std::uint32_t row, OwnerTag who) const {
    return counted_[row * layout::kStripes + who.slot % layout::kStripes];
  }

  // Regions of the arena, and its seed: a get has no time to look for them.
  layout::NamespaceRecord* records_;
  layout::PrefixTable* table_;
  layout::CounterStripe* plain_;
  layout::CounterStripe* other_;
  layout::CounterStripe* counted_;
  std::uint64_t seed_;
};

}  // namespace celeriac
