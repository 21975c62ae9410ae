// Namespaces: caches and tables by name, each a small index that entries carry.
//
//   NamespaceRecord.word = {state:8 | flags:8 | unused:16 | generation:32}
//
// A name is looked up or added under the directory mutex; the record is complete before
// `namespace_high` counts it, so a maker killed in between leaves nothing. Records are never
// removed. clear() raises the generation: entries of another generation are as good as absent, and
// their memory comes back as eviction or the next set meets them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"

namespace celeriac {

// Entries of the namespace are never evicted: a table, not a cache.
constexpr std::uint64_t kPinned = 1;

struct NamespaceName {
  std::uint32_t index = 0;
  bool pinned = false;
  std::string name;
};

class Namespaces {
 public:
  explicit Namespaces(Base& base) : base_(base) {}

  // The namespace's index; made on first use. kNotEnoughMemory after 128 of them; kConfiguration
  // for a name that is empty, over 240 bytes, or a table's used as a cache or the other way round.
  // Thread-safe. Crash-safe: a record counts when it is complete.
  Result<std::uint32_t> open(std::string_view name, bool pinned, OwnerTag me);

  std::uint32_t generation(std::uint32_t index) const;
  bool pinned(std::uint32_t index) const;
  // How many entries it may have, 0 = as many as memory holds.
  std::uint32_t max_entries(std::uint32_t index) const {
    return record(index).max_entries.load(std::memory_order_relaxed);
  }
  // Thread-safe. Crash-safe: one store.
  void limit(std::uint32_t index, std::uint32_t max_entries);
  // All entries become absent in one step. Thread-safe. Crash-safe: one increment.
  void clear(std::uint32_t index);
  std::vector<NamespaceName> list() const;

  layout::CellRecord& cell(std::uint32_t index, std::uint32_t shard) const {
    return base_.arena.fixed<layout::CellRecord>(
        layout::kCells)[index * layout::kShardCount + shard];
  }
  layout::CounterStripe& counters(std::uint32_t index, OwnerTag who) const {
    return base_.arena.fixed<layout::CounterStripe>(
        layout::kCounters)[index * layout::kStripes + who.slot % layout::kStripes];
  }

 private:
  layout::NamespaceRecord& record(std::uint32_t index) const {
    return base_.arena.fixed<layout::NamespaceRecord>(layout::kNamespaces)[index];
  }
  std::uint32_t count() const;

  Base& base_;
};

}  // namespace celeriac
