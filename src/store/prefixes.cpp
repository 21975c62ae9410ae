#include "store/prefixes.hpp"

#include <algorithm>
#include <array>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"

namespace celeriac {
namespace {

using Counters = std::array<layout::Word layout::CounterStripe::*, 6>;
constexpr Counters kCounters = {
    &layout::CounterStripe::hits,      &layout::CounterStripe::misses,
    &layout::CounterStripe::sets,      &layout::CounterStripe::deletes,
    &layout::CounterStripe::evictions, &layout::CounterStripe::expirations};
constexpr std::array<std::uint64_t CacheCounts::*, 6> kSums = {
    &CacheCounts::hits,    &CacheCounts::misses,    &CacheCounts::sets,
    &CacheCounts::deletes, &CacheCounts::evictions, &CacheCounts::expirations};

void add(const layout::CounterStripe* row, std::uint32_t stripes, CacheCounts* to) {
  for (std::uint32_t i = 0; i < stripes; ++i) {
    for (std::size_t k = 0; k < kCounters.size(); ++k) {
      to->*kSums[k] += (row[i].*kCounters[k]).load(std::memory_order_relaxed);
    }
  }
}

void reset(layout::CounterStripe* row, std::uint32_t stripes) {
  for (std::uint32_t i = 0; i < stripes; ++i) {
    for (const auto counter : kCounters) (row[i].*counter).store(0, std::memory_order_relaxed);
  }
}

}  // namespace

// The row of a prefix that has none yet, or hasn't a name. noinline: row() is to stay small.
__attribute__((noinline)) layout::CounterStripe& Prefixes::claim(std::uint32_t place,
                                                                 std::uint64_t word,
                                                                 std::string_view prefix,
                                                                 OwnerTag who) {
  for (int attempt = 0; attempt < 64; ++attempt) {
    layout::Word* free = nullptr;
    for (const bool second : {false, true}) {
      const std::uint32_t first = bucket(word, second) * kWays;
      for (std::uint32_t row = first; row < first + kWays; ++row) {
        const std::uint64_t there = table_->words[row].load(std::memory_order_relaxed);
        if ((there & ~kNamed) == word) {
          if ((there & kNamed) == 0) name(row, word, prefix);
          return counted(row, who);
        }
        if (there == 0 && free == nullptr) free = &table_->words[row];
      }
    }
    if (free == nullptr) break;
    layout::HalfWord& of_one = record(place).prefixes;
    if (of_one.load(std::memory_order_relaxed) >= kMostOfOne) break;
    std::uint64_t expected = 0;
    // acquire pairs with the release in forget(): the row is at zero
    if (!free->compare_exchange_strong(expected, word, std::memory_order_acquire)) continue;
    CELERIAC_CRASH_POINT("prefixes.claim.claimed");
    // Killed before it: the place may have one row more than its share.
    of_one.fetch_add(1, std::memory_order_relaxed);
  }
  return other(place, who);
}

// Crash-safe: P1. All who come here at a time write the same.
void Prefixes::name(std::uint32_t row, std::uint64_t word, std::string_view prefix) {
  layout::PrefixRecord& r = table_->records[row];
  copy_in(r.text, prefix.data(), prefix.size());
  r.size.store(prefix.size(), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("prefixes.claim.written");
  // release pairs with the acquire in list(): the text
  table_->words[row].compare_exchange_strong(word, word | kNamed, std::memory_order_release);
}

std::string Prefixes::text(std::uint32_t row, std::uint64_t word) const {
  const layout::PrefixRecord& r = table_->records[row];
  char copy[kLongest + 1];
  const std::size_t size = std::min(r.size.load(std::memory_order_relaxed), kLongest);
  copy_out(copy, r.text, size);
  copy[size] = kSeparator;
  const auto place = static_cast<std::uint32_t>(word % layout::kMaxNamespaces);
  const Found found = find(place, copy, size + 1);
  const bool right = (word & kNamed) != 0 && found.hash != 0 && found.size == size &&
                     word_of(place, found.hash) == (word & ~kNamed);
  return std::string(right ? std::string_view(copy, size) : kOther);
}

PrefixRows Prefixes::list(std::uint32_t place) const {
  std::vector<PrefixCounts> rows;
  const auto of = [&](const std::string& prefix) -> CacheCounts* {
    for (PrefixCounts& r : rows) {
      if (r.prefix == prefix) return &r.counts;
    }
    rows.push_back({prefix, {}});
    return &rows.back().counts;
  };
  add(&plain(place, {}), layout::kStripes, of(""));
  for (std::uint32_t row = 0; row < layout::kPrefixes; ++row) {
    // acquire pairs with the release in name()
    const std::uint64_t word = table_->words[row].load(std::memory_order_acquire);
    if (is_of(word, place)) add(&counted(row, {}), layout::kStripes, of(text(row, word)));
  }
  add(&other(place, {}), layout::kOtherStripes, of(std::string(kOther)));
  return {record(place).lead.load(std::memory_order_relaxed), std::move(rows)};
}

void Prefixes::add_up(std::uint32_t place, CacheCounts* to) const {
  add(&plain(place, {}), layout::kStripes, to);
  add(&other(place, {}), layout::kOtherStripes, to);
  for (std::uint32_t row = 0; row < layout::kPrefixes; ++row) {
    if (is_of(table_->words[row].load(std::memory_order_relaxed), place)) {
      add(&counted(row, {}), layout::kStripes, to);
    }
  }
}

void Prefixes::forget(std::uint32_t place) {
  reset(&plain(place, {}), layout::kStripes);
  reset(&other(place, {}), layout::kOtherStripes);
  for (std::uint32_t row = 0; row < layout::kPrefixes; ++row) {
    if (!is_of(table_->words[row].load(std::memory_order_relaxed), place)) continue;
    reset(&counted(row, {}), layout::kStripes);
    // release pairs with the acquire in claim(): zeros
    table_->words[row].store(0, std::memory_order_release);
    CELERIAC_CRASH_POINT("prefixes.forget.freed");
  }
  record(place).prefixes.store(0, std::memory_order_relaxed);
}

}  // namespace celeriac
