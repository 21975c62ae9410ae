// Metrics in shared memory: a part of layout.hpp, and of its fingerprint. See store/metrics.hpp.
#pragma once

#include "arena/layout_words.hpp"

namespace celeriac::layout {

constexpr std::uint32_t kMetricFamilies = 4096;
constexpr std::uint32_t kMetricSlotsPerChunk = 256;
constexpr std::uint32_t kMetricSlotChunks = 256;
constexpr std::uint32_t kMetricCellsPerChunk = 512;
constexpr std::uint32_t kMetricCellChunks = 1024;
constexpr std::uint32_t kMetricStripes = 1025;  // the first is nobody's: what the dead have left
constexpr std::uint32_t kMetricHeads = 1024;

// One name: a block of this, and behind it `bounds` doubles, then the text: name, scope, help,
// names of labels, each {length:32, bytes}. Written once, but for the two counts and the cap.
struct MetricFamily {
  Word next;     // block of the family before it
  Word hash;     // of scope and name
  Word created;  // bits of a double: seconds of the wall clock
  HalfWord type, mode;
  HalfWord labels, bounds;
  HalfWord cap;     // series that it may have
  HalfWord series;  // that it has: a hint
  Word dropped;     // label sets that were refused
  HalfWord text;    // bytes
  HalfWord reserved;
};

// One set of label values of a family.
struct MetricSlot {
  Word word;      // tagged word: kUsed or kVacant, generation
  Word family;    // block of MetricFamily
  Word text;      // block of {bytes:32, then for each label {length:32, bytes}}
  Word hash;      // of family and text
  Word created;   // bits of a double; while vacant: since when, ns
  HalfWord next;  // index + 1 of the next with a hash like it: a hint
  HalfWord first, cells;
  HalfWord reserved;
};

// The values of one process, or of the dead: chunks of kMetricCellsPerChunk words.
struct MetricStripe {
  Word word;  // tagged word: kUsed of an owner, or kVacant
  Word chunks[kMetricCellChunks];
};

struct MetricDirectory {
  MutexWord mutex;
  Word moving;      // 0, or {pair:1 | stripe:31 | cell + 1:32}: what a fold is moving
  Word moved;       // what the accumulator's cell becomes
  Word moved_time;  // and the one behind it, of the most recent
  Word families;    // block of the last family
  Word dropped;     // series that were refused, of all families
  Word lost;        // values for which there was no memory
  HalfWord family_count;
  HalfWord slots;    // below it were used at least once
  HalfWord cells;    // below it are some slot's
  HalfWord stripes;  // below it were used at least once
  HalfWord vacant;   // slots that are nobody's: a hint
  HalfWord reserved;
  HalfWord heads[kMetricHeads];
  Word slot_chunks[kMetricSlotChunks];
  Word stripe_blocks[kMetricStripes];
};
static_assert(sizeof(MetricFamily) == 64 && sizeof(MetricSlot) == 56);

}  // namespace celeriac::layout
