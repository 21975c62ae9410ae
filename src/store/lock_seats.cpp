#include "store/lock_seats.hpp"

#include <string>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kChunkBytes = sizeof(layout::LockSeat) * layout::kSeatsPerChunk;

}  // namespace

layout::LockSeat* LockSeats::at(std::uint32_t index) {
  const std::uint32_t c = index / layout::kSeatsPerChunk;
  if (c >= layout::kMaxSeatChunks) return nullptr;
  // acquire pairs with the release in add_chunk()
  const std::uint64_t block = directory_.offsets[c].load(std::memory_order_acquire);
  if (block == 0) return nullptr;
  auto* chunk = base_.arena.at<layout::LockSeat>(aligned_object(block), kChunkBytes);
  return chunk == nullptr ? nullptr : chunk + index % layout::kSeatsPerChunk;
}

SeatRef LockSeats::scan(std::uint32_t from, std::uint32_t n, OwnerTag me) {
  for (std::uint32_t k = 0, i = from < n ? from : 0; k < n; ++k, i = i + 1 < n ? i + 1 : 0) {
    layout::LockSeat* s = at(i);
    if (s == nullptr) continue;  // its chunk was lost
    const TaggedWord w = load(s->word);
    if (w.state() != kSeatFree) continue;
    if (!change(s->word, w, TaggedWord::make(kSeatWriting, me, w.generation() + 1))) continue;
    CELERIAC_CRASH_POINT("lock.enter.taken");
    cursor_.store(i, std::memory_order_relaxed);
    return {i, s};
  }
  return {};
}

Result<SeatRef> LockSeats::take(OwnerTag me) {
  for (;;) {
    const std::uint32_t n = count();
    // The one that was free last is free again, mostly: who takes and releases finds it at once.
    const SeatRef found = scan(cursor_.load(std::memory_order_relaxed), n, me);
    if (found.seat != nullptr) return found;
    Status added = add_chunk(n / layout::kSeatsPerChunk, me);
    if (!added) return added;
    cursor_.store(n, std::memory_order_relaxed);
  }
}

bool LockSeats::give_back(layout::LockSeat& seat, TaggedWord word) {
  const bool done = change(seat.word, word, TaggedWord::make(kSeatFree, {}, word.generation()));
  CELERIAC_CRASH_POINT("lock.leave.freed");
  return done;
}

std::uint64_t LockSeats::next_token() {
  // relaxed: tokens of one lock are given under its bucket's mutex
  const std::uint64_t given = directory_.tokens.fetch_add(1, std::memory_order_relaxed) + 1;
  CELERIAC_CRASH_POINT("lock.grant.numbered");
  return base_.arena.header().fixed.created_wall_ns / 1000 + given;
}

Status LockSeats::add_chunk(std::uint32_t seen, OwnerTag me) {
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of locks");
  layout::Word& pending = directory_.mutex.pending[0];
  if (guard.recovered()) {
    // What one who died in here left: a block that counts, or leads nowhere.
    const std::uint64_t left = base_.heap.still_live(pending.load(std::memory_order_acquire));
    const std::uint32_t c = chunks();
    if (left != 0 && (c == 0 || directory_.offsets[c - 1].load() != left)) {
      if (c < layout::kMaxSeatChunks) directory_.offsets[c].store(0, std::memory_order_relaxed);
      base_.heap.release(left, me);
    }
    pending.store(0, std::memory_order_release);
  }
  const std::uint32_t c = chunks();
  if (c != seen) return Status::ok();  // another was first
  if (c == layout::kMaxSeatChunks) {
    return {Code::kNotEnoughMemory,
            "the store has " + std::to_string(layout::kMaxSeatChunks * layout::kSeatsPerChunk) +
                " holders of locks and waiters, the most that any store can have: need one more; "
                "release some, or use another store"};
  }
  Result<std::uint64_t> block = base_.allocate(aligned_bytes(kChunkBytes), me);
  if (!block) {
    return {Code::kNotEnoughMemory, "no memory for one more lock: " + block.status().message()};
  }
  auto* words = base_.arena.at<layout::Word>(aligned_object(block.value()), kChunkBytes);
  if (words == nullptr) return {Code::kCorrupt, "the heap gave a block that isn't one"};
  for (std::uint64_t i = 0; i < kChunkBytes / sizeof(layout::Word); ++i) {
    words[i].store(0, std::memory_order_relaxed);
  }
  pending.store(base_.heap.ticket(block.value()), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("lock.seats.live");
  // release pairs with the acquires in at() and chunks()
  directory_.offsets[c].store(block.value(), std::memory_order_release);
  CELERIAC_CRASH_POINT("lock.seats.linked");
  directory_.chunks.store(c + 1, std::memory_order_release);
  CELERIAC_CRASH_POINT("lock.seats.counted");
  pending.store(0, std::memory_order_release);
  return Status::ok();
}

void LockSeats::clear(const LiveBlocks& live) {
  const std::uint32_t n = chunks();
  for (std::uint32_t c = 0; c < n && live.strange(); ++c) {
    const std::uint64_t block = directory_.offsets[c].load(std::memory_order_relaxed);
    if (block == 0 || live.holds(aligned_object(block), kChunkBytes)) continue;
    directory_.offsets[c].store(0, std::memory_order_release);
    base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
  }
  each([](std::uint32_t, layout::LockSeat& s, TaggedWord w) {
    s.word.store(TaggedWord::make(kSeatFree, {}, w.generation()).bits, std::memory_order_release);
  });
}

}  // namespace celeriac
