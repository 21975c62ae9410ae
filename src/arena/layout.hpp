// Every struct that exists in shared memory, and nowhere else.
//
// The arena is one file, mapped by every process at whatever address it gets. So there are only
// offsets in here (bytes from the start of the file), no pointers; only trivially copyable words,
// no standard-library or pthread objects (their layout belongs to somebody else). A changed size
// or offset changes fingerprint() (layout_fingerprint.hpp), and processes built with another one
// refuse to attach.
//
//   page 0        Header                     what this file is; how large it may grow and is
//   kOwners       OwnerRecord[1024]          who is or was attached
//   kNamespaces   NamespaceRecord[128]       caches and tables by name
//   kCells        CellRecord[128][64]        entries and bytes of a namespace in a shard
//   kCounters     CounterStripe[128][8]      hits, misses … striped by owner
//   kOtherCounters CounterStripe[128][2]     the same, of keys with a prefix that has no row
//   kPrefixTable  PrefixTable                which prefixes of keys have a row, and their text
//   kPrefixCounters CounterStripe[80][8]     their rows
//   kShards       Shard[64]                  the cache's index, one lock each
//   kLogs         LogRecord[129]             the cache's queues of segments: one log for all, and
//                                            one for each namespace with a limit of its own
//   kSegments     SegmentDirectory           offsets of chunks of 256 SegmentRecords
//   kSignals      Signal[64]                 "something changed" for waiters on table keys
//   kQueues       QueueDirectory             offsets of QueueRecord blocks
//   kSlots        SlotDirectory              offsets of chunks of 1,024 Slots
//   kTimers       Timers                     offset of the heap of delayed messages
//   kHeap         HeapControl                free lists: hints, rebuilt from the blocks
//   kJournal      JournalControl             where the journal of a file:// store ends
//   kLimits       LimitDirectory             rate limits: 64 shards, each with tables of keys
//   kConcurrency  ConcurrencyDirectory       offsets of ConcurrencyRecord blocks
//   kLocks        LockDirectory              offsets of chunks of 64 LockSeats
//   kLockBuckets  LockBucket[512]            locks by name: who is at one, in which order
//   kMetrics      MetricDirectory            metrics: series, and stripes of values
//   base_size()   blocks, back to back, to Header.size
//
// Truth and hints (design D4, D6): block words, slot words, index words, records are truth.
// Free lists, lanes, timers, counts, bitmaps of waiters are hints that recovery rebuilds.
#pragma once

#include <atomic>
#include <boost/lockfree/queue.hpp>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "arena/layout_counts.hpp"
#include "arena/layout_locks.hpp"
#include "arena/layout_metrics.hpp"
#include "arena/layout_words.hpp"

namespace celeriac::layout {

// Written once, before the file has a name, and covered by `checksum`.
struct HeaderFixed {
  std::uint64_t magic;
  std::uint32_t major;
  std::uint32_t minor;
  std::uint64_t fingerprint;
  std::uint64_t features_compatible;
  std::uint64_t features_incompatible;
  std::uint8_t boot_id[16];
  std::uint8_t uuid[16];
  std::uint64_t created_wall_ns;
  std::uint64_t hash_seed;
  std::uint64_t base_size;
  std::uint32_t page_size;
  std::uint32_t checksum;  // crc32c of all bytes before it
};
static_assert(sizeof(HeaderFixed) == 104);

struct Header {
  HeaderFixed fixed;
  Word capacity;        // ceiling of `size`, but while a resize lowers it
  Word size;            // bytes allocated and in use: blocks end there
  HalfWord owner_high;  // owner slots below it were used at least once
  HalfWord namespace_high;
  HalfWord news;            // {how often `size` fell:31 | destroyed:1}: see arena/arena.hpp
  HalfWord namespace_hand;  // where the next search for an empty namespace begins
  MutexWord directory;      // guards the making of namespaces and queues
  Word reaped;              // dead owners reaped so far
  Word corrupt;             // structures found corrupt and dropped
};

// One process. `word` is {state:16 | epoch:16}; the byte lock of the slot says whether it lives.
struct OwnerRecord {
  Word word;
  HalfWord inflight;  // operations of this owner between their first and last store
  HalfWord parked;    // kRunning, kParked (waits in epoll), kSignalled
  SequenceWord info;  // guards what follows
  std::uint32_t pid;  // for people only
  HalfWord begun;     // operations of this owner that began so far
  std::uint64_t started_wall_ns;
  char command[88];
};
static_assert(sizeof(OwnerRecord) == 128);

// A cache namespace or a table. `word` is {state:4 | flags:4 | incarnation:24 | generation:32}.
struct NamespaceRecord {
  Word word;
  HalfWord name_length;
  HalfWord max_entries;  // 0: memory alone is the limit
  HalfWord swept;        // no index word is of a generation before this one
  HalfWord unused;
  HalfWord lead;      // bytes before what tells keys apart in statistics (store/prefixes.hpp)
  HalfWord prefixes;  // rows of prefixes that the name has
  char name[240];
};
static_assert(sizeof(NamespaceRecord) == 272);

// What one shard holds of one namespace; written under the shard's mutex. Counts of another
// generation than the namespace's are stale and read as zero, so that clear() is one increment.
struct CellRecord {
  Word generation_entries;  // {generation:32 | entries:32}
  Word bytes;
};

struct CounterStripe {
  Word hits, misses, sets, deletes, evictions, expirations;
  Word reserved[2];
};
static_assert(sizeof(CounterStripe) == 64);

// What a row of prefix counters is for. `size` is at most that of `text`.
struct PrefixRecord {
  Word size;
  Word text[5];
};
struct PrefixTable {
  Word words[kPrefixes];  // {named:1 | used:1 | hash:55 | place of the namespace:7}
  PrefixRecord records[kPrefixes];
};
static_assert(sizeof(PrefixTable) == 56ULL * kPrefixes);

// A shard of the cache index. `table` is {version:21 | size class:7 | offset / 16:36}.
struct alignas(64) Shard {
  MutexWord mutex;
  Word table;
  Word moves;  // index words that changed their bucket
  Word hand;   // where a sweep goes on
  Word padding[2];
};
static_assert(sizeof(Shard) == 64);

// Eight index words (store/index.hpp); 0 = free.
struct alignas(64) Bucket {
  Word ways[8];
};
static_assert(sizeof(Bucket) == 64);

// Head of a block that holds a single entry, or the beginning of a segment's block: entries of a
// segment begin behind `mark`, a single entry behind both words (store/entry.hpp).
struct BlockHead {
  Word mark;        // a segment: the number of its record; an entry of a table: its base time
  Word value_size;  // of the single entry
};
static_assert(sizeof(BlockHead) == 16);

// A segment of the cache's memory (store/segments.hpp).
struct SegmentRecord {
  Word word;        // tagged word: state, maker of a single one, generation
  Word block;       // heap block that holds the entries
  Word live;        // {entries:28 | bytes:36} that index words lead to: a hint
  Word base;        // when it was opened: expiries count from here, and queues are in this order
  Word latest;      // no entry expires later
  HalfWord size;    // bytes of entries that fit, the head of the block included
  HalfWord used;    // bytes reserved so far
  HalfWord cursor;  // where eviction goes on
  HalfWord next;    // of its queue, towards the youngest; of the free list
  HalfWord previous;
  HalfWord place;  // {single:1 | queue:1 | life class:8 | log:16}
};
static_assert(sizeof(SegmentRecord) == 64);

struct SegmentQueue {
  HalfWord head, tail;  // oldest and youngest segment, 0 = none
  HalfWord open[kLifeClasses];
  Word live;  // as SegmentRecord.live, of all its segments
};
static_assert(sizeof(SegmentQueue) == 48);

struct LogRecord {
  SegmentQueue queues[2];  // small, main
  Word small_share;        // of the whole, in 2^-32
  Word ghosts;             // block of 16-bit fingerprints: the small queue's buckets, the main's
  HalfWord ghost_buckets[2];
  HalfWord ghost_entries[2];
  Word cleared;         // what is in segments that were opened before is absent; a log with a limit
  HalfWord generation;  // of the namespace, since then
  HalfWord reserved;
};
static_assert(sizeof(LogRecord) == 144);

struct SegmentDirectory {
  MutexWord mutex;             // of all logs and segments
  HalfWord high;               // records below it were used at least once; 0 is none
  HalfWord free;               // first of the free list
  HalfWord victim;             // the segment that is being drained for its memory
  HalfWord fate;               // of its entries
  Word spare[kSpareSegments];  // blocks kept back, so that draining has where to put what stays
  Word offsets[kMaxSegmentChunks];         // blocks of SegmentRecord[256]; the first is here:
  SegmentRecord first[kSegmentsPerChunk];  // a full arena can have a segment without another block
};

struct alignas(64) Signal {
  HalfWord sequence;
  HalfWord waiters;
};

// memory/heap: 16 bytes before each block's payload. `word` is a tagged word (state, owner,
// generation); `sizes` is {size of the block before / 16:32 | side:2 | own size / 16:30}, header
// included.
struct BlockHeader {
  Word word;
  Word sizes;
};
static_assert(sizeof(BlockHeader) == 16);

constexpr std::uint32_t kFirstLevels = 32;
constexpr std::uint32_t kSecondLevels = 16;

struct FreeLists {
  Word first_bitmap;
  HalfWord second_bitmap[kFirstLevels];
  Word heads[kFirstLevels][kSecondLevels];
};

struct HeapControl {
  MutexWord mutex;
  HalfWord dirty;       // a sweep would find something
  HalfWord generation;  // of the block allocated last
  Word last_block;      // the block that ends at Header.size
  Word free_bytes;
  Word live_blocks;
  Word window_hand;    // where the next window() of the cache begins
  Word low_hand;       // below it no cache's block begins that could give way
  Word push_line;      // what leaves the last window() for others goes above it
  Word other_bytes;    // in blocks of the open heap that aren't the cache's, and in nests
  FreeLists lists[2];  // of the open heap, of the nests
};

// A message. `word` is a tagged word: state, owner, generation. 64 bytes: one cache line.
struct alignas(64) Slot {
  Word word;
  Word meta;      // {queue generation:16 | queue index:16 | flags:8 | priority:8 | end:8 | 0:8}
  Word sequence;  // order within its queue
  Word due;      // delayed or reserved until, {ms:40 | low generation:24}; of the ended: since when
  Word expires;  // message TTL, kNever = none; of the ended: neighbours, {older:32 | newer:32}
  Word body;     // block, 0 = none
  Word first;    // {generation from which deliveries count:32 | generation when it was put:32}
  Word enqueued;  // when it was put
};
static_assert(sizeof(Slot) == 64);

struct SlotDirectory {
  MutexWord mutex;
  HalfWord chunks;
  HalfWord reserved;
  Word used;                     // slots that aren't free: a hint that says when to add a chunk
  Word offsets[kMaxSlotChunks];  // of chunks, which lie one or many in a block
};

// Head of a message body inside its block; headers and body follow.
struct MessageHead {
  std::uint32_t header_size;
  std::uint32_t crc;  // crc32c of headers and body
  std::uint64_t body_size;
  std::uint64_t reason;   // ticket of a block of text, where Slot.meta says that there is one
  std::uint64_t journal;  // its number there, 0 = none (queue/journal_sink.hpp)
};
static_assert(sizeof(MessageHead) == 32);

// {generation:32 | slot index:32}
using Hint = std::uint64_t;
using MainLane = boost::lockfree::queue<Hint, boost::lockfree::capacity<kLaneCapacity>>;
using FrontLane = boost::lockfree::queue<Hint, boost::lockfree::capacity<kFrontLaneCapacity>>;

// The ready messages of one queue and priority, as hints. `overflow` isn't 0 while there may be
// READY slots that are in neither lane (queue/lanes.hpp).
struct Lane {
  MutexWord refill;
  HalfWord overflow;
  HalfWord reserved;
  Word backlog;  // ticket of a block of Hint[backlog_end]: what a refill found and had no room for
  Word backlog_next, backlog_end;
  FrontLane front;  // redelivered messages: they go first
  MainLane main;
};

// Finished or dead messages of a queue, from the oldest to the youngest; slot indexes + 1.
struct RetainedList {
  HalfWord oldest, youngest;
  Word count;
};

// Who waits for room: a futex, and whether anybody does (sync/room.hpp).
struct RoomWord {
  HalfWord signal;
  HalfWord waiting;
};

// A key that stands for a message (queue/dedup.hpp). `first` is 0 when the entry is nobody's.
struct DedupEntry {
  Word first, second;  // 128 bits of hash
  Word message;        // id
  Word until;          // when the key is free again; 0 = with the message
};
static_assert(sizeof(DedupEntry) == 32);

struct DedupTable {
  MutexWord mutex;
  Word block;  // of DedupEntry[64 << low 4 bits], open addressing
  Word used;   // entries that aren't nobody's
};

struct QueueConfigWords {
  std::uint64_t max_length;
  std::uint64_t max_deliveries;
  std::uint64_t flags;
  std::uint64_t visibility;  // ns, 0 = for ever
  std::uint64_t dedup_ttl;   // ns, 0 = as long as the message
  std::uint64_t keep[2][2];  // of done, of dead: {how many, ns}
  std::uint64_t dead_letter_size;
  char dead_letter[kNameBytes];
};
static_assert(sizeof(QueueConfigWords) == 80 + kNameBytes);

struct QueueRecord {
  Word word;  // tagged word: state kActive or kDeleted, owner when bound to one, generation
  HalfWord name_length;
  HalfWord index;
  char name[kNameBytes];
  SequenceWord config;  // guards `settings`
  QueueConfigWords settings;
  MutexWord lanes_mutex;
  Word next_sequence;
  Word length;  // ready + delayed + reserved, counted before the message is made
  Word ready, delayed, reserved, dead, done, dropped;
  HalfWord signal;  // futex of blocked threads
  HalfWord paused;  // nothing is delivered
  RoomWord room;    // for whom max_length is in the way
  MutexWord retained_mutex;
  HalfWord retained_doubt;  // the lists may lack somebody: make them anew
  HalfWord reserved_word;
  RetainedList retained[2];  // done, dead
  DedupTable dedup;
  Word blocked_owners[kOwnerWords];  // who has threads blocked on `signal`
  Word parked_owners[kOwnerWords];   // who waits in epoll for this queue
  Word active[kPriorities / 64];     // priorities whose lane may have something
  Word lanes[kPriorities];           // offsets of Lane blocks
  Word journal;                      // its number there, 0 = none
};

struct QueueDirectory {
  HalfWord high;  // indexes below it were used at least once
  HalfWord counts_dirty;
  MutexWord recount;  // held by whoever corrects counters
  RoomWord room;      // for whom memory or slots are short
  Word offsets[kMaxQueues];
};

struct TimerEntry {
  std::uint64_t due;
  Hint hint;
};

struct Timers {
  MutexWord mutex;
  HalfWord dirty;  // some delayed slot may be missing in the heap: rebuild
  HalfWord reserved;
  Word next_due;  // kNever = nothing delayed
  Word count;
  Word capacity;
  Word entries;  // block of TimerEntry[capacity], a binary min-heap by due
};

// queue/journal/journal.hpp. `append.pending` says what its holder is about to write.
struct JournalControl {
  MutexWord append, lead, compact;
  MutexWord load;  // held by who brings into the queues what the journal holds
  Word current;    // the segment that is written, 0 = none yet
  Word end;        // where the next record goes
  Word next_lsn;   // its number
  Word oldest;     // the first segment
  Word kept;       // segments that the last compaction left
  Word sync_from;  // segments below it are on the disk
  Word durable;    // records up to this lsn are
  Word failed;     // {segment:48 | errno:16} of the sync or write that failed; 0 = none has
  Word uuid[2];
  Word group;        // {arrived, when it began:32 | the next one's size:8 | us that it took:24}
  Word damages;      // that were found when it was read
  HalfWord syncing;  // a leader is in fdatasync()
  HalfWord rounds;   // of leaders: followers sleep on it
  HalfWord state;    // 0, or 1 when the queues hold what the journal holds
  HalfWord arrived;  // calls that waited for a sync, all in all
  Word gathering;    // until when the next group is waited for; 0 = nobody does
  Word spare;        // the segment for which a spare was begun: a hint
};
static_assert(sizeof(JournalControl) == 224);

// store/limits.hpp: what one key has used of one rate, and tables of such.
struct LimitSlot {
  Word tag;    // {hash:58 | kind:6}, 0 = never used
  Word state;  // store/rates.hpp; 0 = nobody's
};
struct alignas(64) LimitBucket {
  LimitSlot slots[4];
};
struct alignas(64) LimitShard {
  HalfWord inserts;           // rises with each key that gets a slot
  HalfWord height;            // how many levels there are
  Word levels[kLimitLevels];  // blocks of LimitBucket[]
  MutexWord mutex;
  Word changing;  // so many of the following are being changed together
  Word places[kMostRates], before[kMostRates];  // offsets of slots, and their states until then
};
struct LimitDirectory {
  MutexWord mutex;
  Word periods[kLimitPeriods];  // ns, of sliding windows
  LimitShard shards[kLimitShards];
};
static_assert(sizeof(LimitBucket) == 64 && sizeof(LimitShard) == 384);

// store/concurrency.hpp: who is in, by name.
struct ConcurrencyRecord {
  Word word;  // tagged word: kUsed or kVacant, generation
  HalfWord name_length, limit;
  RoomWord room;
  MutexWord mutex;
  Word chunks[kConcurrencyChunks];  // blocks of tagged words: 64, 64, 128, 256 ...
  char name[kNameBytes];
};
struct ConcurrencyDirectory {
  MutexWord mutex;
  HalfWord high;  // records below it were used at least once
  HalfWord hand;  // where the next search for one that nobody is in begins
  Word offsets[kMaxConcurrencies];
};

// ---------------------------------------------------------------------- where everything is

constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

constexpr std::uint64_t kOwners = 4096;
constexpr std::uint64_t kNamespaces = align_up(kOwners + sizeof(OwnerRecord) * kMaxOwners, 4096);
constexpr std::uint64_t kCells =
    align_up(kNamespaces + sizeof(NamespaceRecord) * kMaxNamespaces, 4096);
constexpr std::uint64_t kCounters =
    align_up(kCells + sizeof(CellRecord) * kMaxNamespaces * kShardCount, 4096);
constexpr std::uint64_t kOtherCounters =
    align_up(kCounters + sizeof(CounterStripe) * kMaxNamespaces * kStripes, 4096);
constexpr std::uint64_t kPrefixTable =
    align_up(kOtherCounters + sizeof(CounterStripe) * kMaxNamespaces * kOtherStripes, 4096);
constexpr std::uint64_t kPrefixCounters = align_up(kPrefixTable + sizeof(PrefixTable), 4096);
constexpr std::uint64_t kShards =
    align_up(kPrefixCounters + sizeof(CounterStripe) * kPrefixes * kStripes, 4096);
constexpr std::uint64_t kLogs = align_up(kShards + sizeof(Shard) * kShardCount, 4096);
constexpr std::uint64_t kSegments = align_up(kLogs + sizeof(LogRecord) * kLogCount, 4096);
constexpr std::uint64_t kSignals = align_up(kSegments + sizeof(SegmentDirectory), 4096);
constexpr std::uint64_t kQueues = align_up(kSignals + sizeof(Signal) * kSignalCount, 4096);
constexpr std::uint64_t kSlots = align_up(kQueues + sizeof(QueueDirectory), 4096);
constexpr std::uint64_t kTimers = align_up(kSlots + sizeof(SlotDirectory), 4096);
constexpr std::uint64_t kHeap = align_up(kTimers + sizeof(Timers), 4096);
constexpr std::uint64_t kJournal = align_up(kHeap + sizeof(HeapControl), 64);
constexpr std::uint64_t kLimits = align_up(kJournal + sizeof(JournalControl), 64);
constexpr std::uint64_t kConcurrency = align_up(kLimits + sizeof(LimitDirectory), 64);
constexpr std::uint64_t kLocks = align_up(kConcurrency + sizeof(ConcurrencyDirectory), 4096);
constexpr std::uint64_t kLockBuckets = align_up(kLocks + sizeof(LockDirectory), 4096);
constexpr std::uint64_t kMetrics =
    align_up(kLockBuckets + sizeof(LockBucket) * kLockBucketCount, 4096);
constexpr std::uint64_t kBlocks = align_up(kMetrics + sizeof(MetricDirectory), 4096);

static_assert(sizeof(Header) <= kOwners);

}  // namespace celeriac::layout
