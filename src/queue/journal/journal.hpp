// The journal: the truth of the queues of a file:// store, written by all its processes at once.
// docs/journal-format.md describes the bytes, reader.hpp what replay makes of them.
//
// Words
//   segment   a file, allocated before it is used, written from its beginning to its end
//   lsn       the number of a record; one more for each. A message is named by its put's lsn.
//   durable   the lsn up to which all records are on the disk
//
// Append, under the mutex `append`
//   1. no room left in the segment: switch. A sixteenth of it is for what isn't a put, when the
//      disk has no room for another: so what is there can be worked off   2. numbers and checksums
//   3. the intent: pending = where the write begins and ends, and its numbers
//   4. pwrite    5. next_lsn, then end    6. the intent is taken away
// Switch, under the same
//   1. the next file: the spare, or an unnamed one, allocated; its header, fdatasync, its name,
//      fsync of the directory
//   2. the intent   3. the seal, behind the last record   4. current (this decides), next_lsn, end
// Spare, with durability=always (spare.cpp)
//   a file full of zeros that are on the disk, made ahead of the switch that takes it: an fdatasync
//   of what replaces zeros writes nothing but that
// Commit (group commit): until durable >= lsn
//   nobody leads, and somebody may come: those whose records the last sync took write their next
//   ones about now. With those who came during it they are one group, for one sync. The first one
//   here notes in `gathering` until when to wait, half as long as that sync took, and sleeps till
//   then; others sleep on `rounds`; the last one to come leads at once, and else the first does.
//   nobody leads, and all are here or the time is over: lead. Read `arrived`, next_lsn, then
//   current; fdatasync the segments from sync_from to current; sync_from, durable; note how large
//   the next group is; give the lead back; wake all who sleep on `rounds`.
//   somebody leads: sleep on `rounds`; every 10 ms look whether the leader lives.
//
// Invariants
//   J1  Bytes below `end` are whole records and never change. What lies behind is zeros, or the
//       write of a process that holds `append` or died with it.
//   J2  A number is given out once, except the seal's of a switch that didn't happen. Who takes
//       `append` from the dead finds the intent, and turns what that one was writing into a void
//       record that stands for its numbers: so nobody's record is ever read under the number of
//       another, and nothing that wasn't whole is read at all.
//   J3  Who holds `append` never waits for a leader. Order of mutexes: compact, lead, append.
//   J4  durable >= n only after an fdatasync that began after record n was written returned well,
//       in each segment that may hold a record up to n.
//   J5  A failed write or fdatasync is final: `failed` is set before anybody is told, and from then
//       on no append and no commit succeeds, in any process, until rescue() has written what the
//       unsynced segments hold into a new one. A kernel reports an error once and forgets it, so
//       who takes the lead from a leader that died in fdatasync() writes the unsynced bytes again.
//   J6  A segment that replay counts is removed only after all that is alive in it was written
//       again, is on the disk, and a header on the disk says that the segment counts no more; the
//       oldest always first, so that no "gone" is lost before what it speaks of.
//   J7  A message's copy is written under `append`, after all records before it were looked at: so
//       no copy comes behind the record that ends the message.
//   J8  No wait is without a deadline.
//   J9  `arrived`, `group` and `gathering` are hints: whatever they hold costs a commit at most
//       2 ms, or 10 ms when the one who gathers died.
//
// Killed at any instruction
//   before append's step 5 is complete: the records are none (J2); after: they are there.
//   in a switch: current decides; the file of one that didn't happen is made anew by the next.
//   at a spare: it has its name when it is complete; one with a header is no spare.
//   as a leader: another takes the lead and syncs, at the latest 10 ms after the death.
//   in a compaction: its copies are doubles of what is there, the last word counts; files that
//   count no more are removed by the next compaction, or by begin().
// Power lost
//   always     all records whose commit() returned are read.
//   everysec   the same of all that were there when the last sync() began, about a second ago.
//   process    what the kernel had written by itself: holes are possible, and reported.
//   In each: no torn record is read, and no record that wasn't written.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "arena/arena.hpp"
#include "arena/owners.hpp"
#include "platform/file.hpp"
#include "queue/journal/live_set.hpp"
#include "queue/journal/reader.hpp"
#include "sync/owner_mutex.hpp"

namespace celeriac::journal {

// A segment as this process has it open for writing or syncing.
struct OpenSegment {
  std::uint64_t number = 0;
  std::uint64_t size = 0;
  std::uint32_t salt = 0;
  Fd fd;
};

struct CompactResult {
  std::uint64_t removed = 0;  // segments
  std::uint64_t copied = 0;   // messages
};

class Journal {
 public:
  static constexpr std::uint64_t kSegmentSize = 16ULL << 20U;

  Journal(Arena& arena, Owners& owners, std::uint64_t segment_size = kSegmentSize)
      : arena_(arena),
        owners_(owners),
        control_(*arena.fixed<layout::JournalControl>(layout::kJournal)),
        segment_size_(segment_size) {}

  // This arena has a place to write in the journal.
  bool begun() const { return control_.current.load(std::memory_order_acquire) != 0; }
  // Reads what the directory holds into `live`, and begins a new segment behind it. Does nothing
  // when another has done it (the report is empty then). Thread-safe.
  // Crash-safe: a segment that wasn't published is made anew.
  Result<Report> begin(OwnerTag me, LiveSet* live);

  // Writes the records, all or none, one behind the other; returns the first one's lsn. `told` is
  // called with it before anything is written: what it notes down may turn out to be a void
  // record's number, and no other's.
  // kNotEnoughMemory (disk full), kValueTooLarge, kLockTimeout, kSystem (J5): nothing was written.
  // Thread-safe. Crash-safe: J1, J2.
  Result<std::uint64_t> append(std::span<const Draft> drafts, OwnerTag me,
                               const std::function<void(std::uint64_t)>& told = {});
  // Waits until the records up to `lsn` are on the disk, syncing them if nobody else does.
  // kSystem: they aren't and never will be by this (J5). kLockTimeout: not known at the deadline.
  // Thread-safe. Crash-safe: J4; another leads.
  Status commit(std::uint64_t lsn, std::uint64_t deadline_ns, OwnerTag me);
  // All that is written now. Crash-safe: as commit().
  Status sync(OwnerTag me);

  std::uint64_t durable() const { return control_.durable.load(std::memory_order_acquire); }
  std::uint64_t last() const { return control_.next_lsn.load(std::memory_order_acquire) - 1; }
  bool unsynced() const { return last() > durable(); }
  // kSystem with what has failed (J5).
  Status health() const;

  // Worth a try: there are twice as many segments as the last compaction left, and more than two.
  bool wants_compaction() const;
  // Writes the living messages of the oldest segments again, where at most half of their bytes
  // live, and removes those segments. kLockTimeout when another is at it.
  // Thread-safe. Crash-safe: J6, J7.
  Result<CompactResult> compact(OwnerTag me);

  // Worth its time: the segment is a quarter full, and nobody has begun a spare for the next.
  bool wants_spare() const;
  // Asked after each step, with how long to leave the disk to others; false: give it up.
  using Pause = std::function<bool(std::uint64_t ns)>;
  // Makes the spare, when it is wanted. A disk without room for it is fine: there is none.
  // Thread-safe, and long. Crash-safe: there is no spare then.
  Status make_spare(const Pause& pause);

  // After J5: writes what the unsynced segments hold, as they are read now, into a new segment, and
  // goes on there. Fails as long as the disk does. Crash-safe: the failure stays until it is done.
  Status rescue(OwnerTag me);

  // One file with all that is alive now, itself a segment; others go on meanwhile. `path` appears
  // when it is complete and on the disk. kConfiguration when something has that name.
  // Crash-safe: nothing of the store changes.
  Status backup(const std::string& path, OwnerTag me);

  // Where the next record goes: all before it are whole. Crash-safe: J2, as it may settle.
  Result<Position> position(OwnerTag me);
  Reader reader() const { return {arena_.directory(), arena_.path(), arena_.mode()}; }
  layout::JournalControl& control() { return control_; }
  // The descriptors are the parent's as well; what its threads were changing is forgotten.
  void after_fork_in_child() noexcept;

 private:
  struct Encoded {
    std::string bytes;
    std::vector<std::pair<std::size_t, std::uint32_t>> records;  // place and payload's checksum
    bool puts = false;
  };
  static Result<Encoded> encode(std::span<const Draft> drafts);
  // Not held when `ready` isn't ok.
  Locked lock_append(OwnerTag me, Status* ready);
  Result<std::uint64_t> append_locked(Encoded* e, const std::function<void(std::uint64_t)>& told);
  Status write_locked(const Encoded& e, std::uint64_t end, std::uint64_t lsn, std::uint64_t count);
  Position position_locked() const;
  // Ends what a dead holder of `append`, or a failed write, has left.
  Status settle_locked();
  Status settle_switch_locked(std::uint64_t target);
  Status settle_write_locked(std::uint64_t intent);
  // The file, for reading and writing. kCorrupt where it isn't any more.
  Status use(OpenSegment* segment, std::uint64_t number) const;

  struct NewSegment {
    std::uint64_t number = 0;
    std::uint64_t first_lsn = 0;
    std::uint64_t bytes = 0;  // of records that must fit
    std::uint64_t oldest = 1;
    std::uint64_t superseded = 0;
  };
  // Writes the records of a segment before it has a name.
  using Fill = std::function<Status(int fd, std::uint32_t salt)>;
  Result<OpenSegment> create_segment(const NewSegment& n, const Fill& fill = {}) const;
  Status switch_locked(std::uint64_t bytes, std::uint64_t oldest);
  Fd open_spare() const;
  Status publish_spare(const std::string& name) const;

  Status lead(bool from_the_dead, OwnerTag me);
  std::uint64_t gather(std::uint64_t now);
  void note_group(std::uint32_t served, std::uint64_t took);
  Status write_again(std::uint64_t first, std::uint64_t last, OwnerTag me);
  void fail(std::uint64_t segment, const Status& why);
  void wake_followers();

  Status catch_up(Position* at, LiveSet* live, OwnerTag me);
  Locked lock_caught_up(Position* at, LiveSet* live, OwnerTag me, Status* ready);
  // Writes them again, those of which nobody has written anything meanwhile.
  Status copy_some(const std::vector<WholeMessage>& some, LiveSet* live, Position* at, OwnerTag me,
                   CompactResult* result);
  Status copy_living(std::uint64_t below, LiveSet* live, Position* at, OwnerTag me,
                     CompactResult* result);
  Status copy_small(std::uint64_t below, LiveSet* live, Position* at, OwnerTag me);
  void remove_segments(const Report& report, std::uint64_t below) const;

  Arena& arena_;
  Owners& owners_;
  layout::JournalControl& control_;
  std::uint64_t segment_size_;
  OpenSegment writing_;  // under `append`
  OpenSegment syncing_;  // under `lead`
};

// Checks a journal, or a backup of one, without a store; for people. kNotFound when there is none.
Result<Report> verify(const std::string& path, LiveSet* live);
// Makes the backup the journal of a directory that has no store's files; it is checked first.
Status restore(const std::string& directory, const std::string& backup, unsigned mode);

}  // namespace celeriac::journal
