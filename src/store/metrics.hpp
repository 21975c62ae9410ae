// Metrics: counters, gauges, histograms and summaries of all processes, by name and label values.
//
//   family   a name with its type, help, names of labels and bounds of buckets. Written once
//   slot     one set of label values of a family: a series. It has a run of cells, for good
//   stripe   the values of one process: a table of chunks of cells, by the cell's number. The first
//            stripe is nobody's: in it is what the dead have left (the accumulator)
//   cell     one value of one process (store/metric_cells.hpp). Counters and gauges have one, the
//            most recent two, summaries a count and a sum, histograms one for each bucket, not
//            cumulative, and a sum
//
// Values. A process that changes a value does so in its own stripe, without a mutex: it is told
// once where its cells are, and looks before each use whether the slot is still the series' (one
// load). So no handler of signals, no callback of the garbage collector and no fork ever meets a
// lock that they would wait for. What it takes the mutex for is what happens once for each process
// and series: finding the series, getting a stripe, getting a chunk.
//
// Reading adds up the accumulator and all stripes, under the mutex, so that nobody moves values
// from one to the other meanwhile. Before that it folds what the dead have left; so does recovery,
// and who needs a stripe. So there are never more stripes than processes lived at the same time.
//
// States of a slot, under the mutex
//   kVacant(g)        nobody's; its cells still have what was in them
//   kUsed(g + 1)      a series, from the store of this word on
//   kUsed -> kVacant  remove()
// States of a stripe, under the mutex
//   kVacant -> kUsed(o)   a process takes it with its first value
//   kUsed(d) -> kVacant   d is dead, and all cells of all series have been folded
//
// Folding moves one cell: what the accumulator's becomes is written down first (`moved`), then
// which cell (`moving`), then both cells are stored, then `moving` is 0. Who takes the mutex from
// the dead and finds `moving` stores both cells again. So each value is moved once, exactly.
//
// Invariants
//   E1  Chunks, stripes and slots never become memory of something else: who stopped between
//       looking at a slot and storing into a cell stores into a cell. A slot that was removed is
//       not taken by another series for kQuarantine, and its cells are emptied in all stripes when
//       it is: only a store that was under way for longer would be counted for another series.
//   E2  Where a stripe has a chunk the accumulator has it too: so folding never needs memory.
//   E3  Only a stripe whose owner is dead, or has left, is folded. (One of an owner that has closed
//       its store may still be in the middle of an add: it is lost, or counted, as one after it.)
//   E4  What is in a dead process's stripe counts as what it would be once folded, whether it is or
//       not: a reader that can't fold sees the same values.
//   E5  The chains of slots by hash are hints: who takes the mutex from the dead makes them anew.
// Killed at any instruction: a value is there or not (a histogram's bucket may lack its sum); a
// series is there or not; a value is in the stripe or in the accumulator; a block that wasn't
// linked is freed by the next who takes the mutex.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "memory/live_blocks.hpp"
#include "store/hash.hpp"
#include "store/metric_cells.hpp"
#include "store/metric_kinds.hpp"
#include "sync/owner_mutex.hpp"
#include "sync/tagged_word.hpp"

namespace celeriac {

struct MetricFamilyRef {
  std::uint64_t block = 0;
  layout::MetricFamily* record = nullptr;
};

struct MetricSeriesRef {
  layout::MetricSlot* slot = nullptr;  // null: there was no place for it
  std::uint64_t word = 0;              // of the slot while it is this series'
};

class Metrics {
 public:
  static constexpr std::uint64_t kQuarantine = 10 * kSecond;
  static constexpr std::uint64_t kMostText = 1U << 16U;

  explicit Metrics(Base& base)
      : base_(base), directory_(*base.arena.fixed<layout::MetricDirectory>(layout::kMetrics)) {}

  // The family of a name, made on first use. kConfiguration when there is one with another type,
  // mode, labels or bounds, or for what can't be one; kNotEnoughMemory, kLockTimeout.
  // Thread-safe. Crash-safe: a family counts when it is complete.
  Result<MetricFamilyRef> family(const MetricFamilySpec& spec, OwnerTag me);
  // The series of label values (pack_labels()), made on first use. Without place, memory or the
  // mutex none, which is counted: metrics are no reason to fail.
  // Thread-safe. Crash-safe: a series counts when it is complete.
  MetricSeriesRef series(const MetricFamilyRef& family, std::string_view labels, double created,
                         OwnerTag me);
  // False after remove(). Thread-safe, wait-free, safe in signal handlers.
  static bool current(const MetricSeriesRef& ref) {
    // acquire pairs with the release in series(): its cells are empty
    return ref.slot->word.load(std::memory_order_acquire) == ref.word;
  }
  // This process's stripe, for cells(); null without memory or the mutex. It is the process's until
  // it ends or leaves. Thread-safe. Crash-safe: it is had with one store.
  layout::MetricStripe* own_stripe(OwnerTag me);
  // The same, remembered for as long as the tag is this process's. Thread-safe. Crash-safe: as it.
  layout::MetricStripe* stripe_for(OwnerTag me) {
    const std::uint32_t tag = static_cast<std::uint32_t>(me.slot) << 16U | me.epoch;
    // acquire pairs with the release below: `own_` is that tag's
    if (own_tag_.load(std::memory_order_acquire) == tag) {
      return own_.load(std::memory_order_relaxed);
    }
    layout::MetricStripe* found = own_stripe(me);
    if (found != nullptr) {
      own_.store(found, std::memory_order_relaxed);
      own_tag_.store(tag, std::memory_order_release);
    }
    return found;
  }
  // Where a series' cells in a stripe are; null without memory or the mutex. Wait-free, but for the
  // first of a chunk. Thread-safe. Crash-safe: a chunk is had with one store.
  layout::Word* cells(const MetricSeriesRef& ref, layout::MetricStripe& stripe, OwnerTag me);

  // Forgets one series, or all of a family; how many there were. kLockTimeout.
  // Thread-safe. Crash-safe: one store for each.
  Result<std::uint64_t> remove(const MetricFamilyRef& family, std::string_view labels, OwnerTag me);
  Result<std::uint64_t> clear(const MetricFamilyRef& family, OwnerTag me);
  // When the series began, for who counts from there anew. Crash-safe: one store.
  static void set_created(const MetricSeriesRef& ref, double seconds) {
    ref.slot->created.store(std::bit_cast<std::uint64_t>(seconds), std::memory_order_relaxed);
  }
  // Empties a series' cells in all stripes. Adds that are under way may stay. kLockTimeout.
  // Thread-safe. Crash-safe: cell by cell.
  Status empty(const MetricSeriesRef& ref, OwnerTag me);

  // All families in which something is, or the given one, with their series. kLockTimeout.
  // Thread-safe. Crash-safe: changes nothing but what folding does.
  Result<std::vector<MetricFamilyView>> collect(const MetricFamilyRef* only, OwnerTag me);
  // One series, as collect() gives it. Thread-safe. Crash-safe: changes nothing.
  Result<std::vector<MetricSample>> read(const MetricFamilyRef& family, const MetricSeriesRef& ref,
                                         OwnerTag me);

  // Counts a series that was refused.
  void drop(const MetricFamilyRef& family);
  // Counts a value for which there was no series, no memory, or no mutex.
  void lose() { directory_.lost.fetch_add(1, std::memory_order_relaxed); }
  MetricCounts counts();

  // Recovery: folds what these owners have left, unless somebody is at it.
  // Crash-safe: idempotent.
  void repair(const DeadOwners& dead);
  // After a heap that looked strange: blocks that it doesn't have are forgotten.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);

 private:
  using Slot = layout::MetricSlot;
  using Stripe = layout::MetricStripe;
  using Family = layout::MetricFamily;
  static constexpr unsigned kVacant = 0, kUsed = 1;
  // A slot with what decides how its cells are put together.
  struct Run {
    Slot* slot = nullptr;
    std::uint64_t family = 0;
    std::uint32_t first = 0, cells = 0;
    MetricMode mode = MetricMode::kSum;
  };

  Slot* slot(std::uint32_t index);
  Stripe* stripe(std::uint32_t index);
  layout::Word* cell(Stripe& stripe, std::uint32_t number);
  Family* family_at(std::uint64_t block) {
    return block == 0 ? nullptr : base_.arena.at<Family>(aligned_object(block));
  }
  std::string_view text_of(std::uint64_t block);
  MetricFamilySpec spec_of(Family& f, std::string* text);
  static std::uint32_t bounded(const layout::HalfWord& word, std::uint32_t most) {
    return std::min(word.load(std::memory_order_acquire), most);
  }
  std::uint32_t slots() const {
    return bounded(directory_.slots, layout::kMetricSlotChunks * layout::kMetricSlotsPerChunk);
  }
  std::uint32_t stripes() const { return bounded(directory_.stripes, layout::kMetricStripes); }

  // REQUIRE the mutex.
  void settle(OwnerTag me);
  void finish_move();
  void index_all();
  Result<std::uint64_t> block(std::uint64_t bytes, OwnerTag me);
  void link(layout::Word& to, std::uint64_t block, OwnerTag me);
  Family* find_family(std::uint64_t hash, const MetricFamilySpec& spec, std::uint64_t* block);
  std::vector<Run> runs(std::uint64_t only);
  Slot* find(std::uint64_t family, std::string_view labels, std::uint64_t hash);
  Slot* vacant(std::uint32_t cells, std::uint32_t* index, OwnerTag me);
  Slot* fresh(std::uint32_t cells, std::uint32_t* index, OwnerTag me);
  bool write_text(Slot& s, std::string_view labels, OwnerTag me);
  void empty_cells(std::uint32_t first, std::uint32_t cells);
  void vacate(Slot& s, std::uint64_t family);
  bool linked(std::uint64_t block);
  Stripe* new_stripe(std::uint32_t index, OwnerTag me);
  bool add_chunk(Stripe& stripe, std::uint32_t chunk, OwnerTag me);
  void fold(Stripe& from, std::uint32_t index, const std::vector<Run>& runs);
  void fold_dead();
  std::vector<std::vector<MetricSample>> gather(const std::vector<Run>& runs);
  std::uint64_t hash_of(std::uint64_t family, std::string_view labels) const {
    return hash_key(labels, base_.arena.header().fixed.hash_seed ^ family);
  }

  Base& base_;
  layout::MetricDirectory& directory_;
  std::atomic<layout::MetricStripe*> own_{nullptr};
  std::atomic<std::uint32_t> own_tag_{0};
};

}  // namespace celeriac
