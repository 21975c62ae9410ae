// The fingerprint of layout.hpp: one number that says whether two builds agree on shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/layout.hpp"

namespace celeriac::layout {

constexpr std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
  h ^= v + 0x9E3779B97F4A7C15ULL + (h << 6U) + (h >> 2U);
  return h * 0xFF51AFD7ED558CCDULL;
}

// A number that changes when any struct above changes its size, alignment or members' places.
constexpr std::uint64_t fingerprint() {
  std::uint64_t h = kMajor;
  const std::uint64_t facts[] = {sizeof(HeaderFixed),
                                 sizeof(Header),
                                 offsetof(Header, capacity),
                                 offsetof(Header, size),
                                 offsetof(Header, directory),
                                 sizeof(OwnerRecord),
                                 offsetof(OwnerRecord, info),
                                 offsetof(OwnerRecord, begun),
                                 offsetof(OwnerRecord, command),
                                 sizeof(NamespaceRecord),
                                 offsetof(NamespaceRecord, name),
                                 sizeof(CellRecord),
                                 sizeof(CounterStripe),
                                 sizeof(PrefixTable),
                                 offsetof(PrefixTable, records),
                                 sizeof(Shard),
                                 offsetof(Shard, table),
                                 offsetof(Shard, moves),
                                 sizeof(Bucket),
                                 sizeof(BlockHead),
                                 sizeof(SegmentRecord),
                                 offsetof(SegmentRecord, live),
                                 offsetof(SegmentRecord, place),
                                 sizeof(SegmentQueue),
                                 offsetof(SegmentQueue, live),
                                 sizeof(LogRecord),
                                 offsetof(LogRecord, ghosts),
                                 offsetof(LogRecord, cleared),
                                 sizeof(SegmentDirectory),
                                 offsetof(SegmentDirectory, offsets),
                                 offsetof(SegmentDirectory, first),
                                 sizeof(Signal),
                                 sizeof(BlockHeader),
                                 sizeof(HeapControl),
                                 offsetof(HeapControl, lists),
                                 sizeof(FreeLists),
                                 sizeof(Slot),
                                 offsetof(Slot, due),
                                 offsetof(Slot, first),
                                 sizeof(SlotDirectory),
                                 offsetof(SlotDirectory, offsets),
                                 sizeof(MessageHead),
                                 sizeof(MainLane),
                                 sizeof(FrontLane),
                                 sizeof(Lane),
                                 alignof(Lane),
                                 sizeof(DedupEntry),
                                 sizeof(DedupTable),
                                 sizeof(QueueConfigWords),
                                 offsetof(QueueConfigWords, dead_letter),
                                 sizeof(QueueRecord),
                                 offsetof(QueueRecord, config),
                                 offsetof(QueueRecord, ready),
                                 offsetof(QueueRecord, signal),
                                 offsetof(QueueRecord, retained),
                                 offsetof(QueueRecord, dedup),
                                 offsetof(QueueRecord, lanes),
                                 sizeof(QueueDirectory),
                                 offsetof(QueueDirectory, offsets),
                                 sizeof(TimerEntry),
                                 sizeof(Timers),
                                 sizeof(JournalControl),
                                 offsetof(JournalControl, current),
                                 offsetof(JournalControl, syncing),
                                 sizeof(MetricFamily),
                                 offsetof(MetricFamily, dropped),
                                 sizeof(MetricSlot),
                                 offsetof(MetricSlot, first),
                                 sizeof(MetricStripe),
                                 sizeof(MetricDirectory),
                                 offsetof(MetricDirectory, heads),
                                 kMetricFamilies,
                                 kMetricSlotsPerChunk,
                                 kMetricCellsPerChunk,
                                 kMetricStripes,
                                 kMaxOwners,
                                 kMaxNamespaces,
                                 kShardCount,
                                 kStripes,
                                 kOtherStripes,
                                 kPrefixes,
                                 kLogCount,
                                 kLifeClasses,
                                 kSegmentsPerChunk,
                                 kMaxSegmentChunks,
                                 kSpareSegments,
                                 kSignalCount,
                                 kMaxQueues,
                                 kSlotsPerChunk,
                                 kMaxSlotChunks,
                                 kPriorities,
                                 kLaneCapacity,
                                 kFrontLaneCapacity,
                                 kBlocks};
  for (const std::uint64_t f : facts) h = mix(h, f);
  return h;
}

}  // namespace celeriac::layout
