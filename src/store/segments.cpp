#include "store/segments.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kLeast = 4096;
constexpr std::uint64_t kMost = 128 << 10U;
constexpr std::uint32_t kMaxRecords = layout::kSegmentsPerChunk * layout::kMaxSegmentChunks;
static_assert(kMaxRecords <= 1U << 19U, "Location has 19 bits for a segment");

unsigned state_of(std::uint64_t word) { return TaggedWord{word}.state(); }

std::uint64_t word_of(unsigned state, std::uint32_t generation, OwnerTag owner = {}) {
  return TaggedWord::make(state, owner, generation).bits;
}

}  // namespace

void add_live(layout::Word& w, Live what) { w.fetch_add(what.bits, std::memory_order_relaxed); }

Live subtract_live(layout::Word& w, Live what) {
  std::uint64_t old = w.load(std::memory_order_relaxed);
  Live left;
  do {
    const Live now{old};
    const std::uint64_t bytes = now.bytes() - std::min(now.bytes(), what.bytes());
    const std::uint64_t entries = now.entries() - std::min(now.entries(), what.entries());
    left = {entries << 36U | bytes};
  } while (!w.compare_exchange_weak(old, left.bits, std::memory_order_relaxed));
  return left;
}

std::uint32_t Segments::high() {
  return std::min(directory().high.load(std::memory_order_relaxed), kMaxRecords);
}

layout::SegmentRecord* Segments::record(std::uint32_t number) {
  if (number == 0 || number >= kMaxRecords) return nullptr;
  if (number < layout::kSegmentsPerChunk) return &directory().first[number];
  // acquire pairs with the release in new_record(): the chunk is zeroed before it is there
  const std::uint64_t chunk =
      directory().offsets[number / layout::kSegmentsPerChunk].load(std::memory_order_acquire);
  if (chunk == 0) return nullptr;
  auto* records = base_.arena.at<layout::SegmentRecord>(
      aligned_object(chunk), sizeof(layout::SegmentRecord) * layout::kSegmentsPerChunk);
  return records == nullptr ? nullptr : records + number % layout::kSegmentsPerChunk;
}

bool Segments::resolve(Location where, EntryPlace* place, layout::Word** guard,
                       std::uint64_t* before) {
  if (where.pinned()) {
    layout::Word* word = base_.heap.word(where.block());
    if (word == nullptr) return false;
    const TaggedWord w = load(*word);
    const std::uint64_t room = base_.heap.room(where.block());
    char* payload = base_.heap.payload(where.block(), kSinglePlace + kEntryHead);
    if (w.state() != kBlockLive || payload == nullptr) return false;
    const auto* head = reinterpret_cast<const layout::BlockHead*>(payload);
    *guard = word;
    *before = w.bits;
    *place = {payload, room, head->mark.load(std::memory_order_relaxed), kSinglePlace};
    return true;
  }
  layout::SegmentRecord* r = record(where.segment());
  if (r == nullptr) return false;
  // acquire pairs with the release in add(): block and fields belong to this generation
  const std::uint64_t word = r->word.load(std::memory_order_acquire);
  const std::uint64_t block = r->block.load(std::memory_order_relaxed);
  const std::uint64_t size = r->size.load(std::memory_order_relaxed);
  if (state_of(word) == kFree || block % 16 != 0) return false;
  char* payload = base_.arena.at<char>(block + sizeof(layout::BlockHeader), size);
  if (payload == nullptr) return false;
  *guard = &r->word;
  *before = word;
  *place = {payload, size, r->base.load(std::memory_order_relaxed), where.at()};
  return true;
}

bool Segments::writable(const Reserved& r) {
  layout::SegmentRecord* record = this->record(r.location.segment());
  // seq_cst pairs with the fence in seal(): either we see the seal, or who sealed sees our entry
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return record != nullptr && record->word.load(std::memory_order_relaxed) == r.word;
}

std::uint64_t Segments::ordinary() const {
  const std::uint64_t block =
      std::clamp(layout::align_up(base_.arena.capacity() / 1024, kLeast), kLeast, kMost);
  return block - sizeof(layout::BlockHeader);
}

std::uint32_t Segments::life_class(std::uint64_t expires, std::uint64_t now) {
  constexpr std::uint64_t kHour = 3600;
  constexpr std::uint64_t kBounds[] = {10, 60, 600, kHour, 6 * kHour, 24 * kHour, 336 * kHour};
  const std::uint64_t seconds = expires > now ? (expires - now) / kSecond : 0;
  if (expires == kNever) return layout::kLifeClasses - 1;
  std::uint32_t i = 0;
  while (i < layout::kLifeClasses - 1 && seconds > kBounds[i]) ++i;
  return i;
}

// ------------------------------------------------------------------------------- appending

Reserved Segments::reserve_at(std::uint32_t number, layout::SegmentRecord& r, const EntryHead& head,
                              std::uint64_t at, OwnerTag me) {
  Reserved to;
  to.head = head;
  to.location = Location::in_segment(number, at);
  to.word = r.word.load(std::memory_order_relaxed);
  lay_out(at, &to.head);
  const std::uint64_t block = r.block.load(std::memory_order_relaxed);
  char* payload = base_.arena.at<char>(block + sizeof(layout::BlockHeader), to.head.end);
  if (payload == nullptr) return to;
  to.place = {payload, r.size.load(std::memory_order_relaxed),
              r.base.load(std::memory_order_relaxed), at};
  // Readers of the block's last life: who sees one of our bytes sees that its word has changed.
  std::atomic_thread_fence(std::memory_order_release);
  write_head(to.place, to.head, static_cast<std::uint32_t>(me.slot) << 16U | me.epoch);
  if (head.raw_value_size == kSingleSize) {
    reinterpret_cast<layout::BlockHead*>(payload)->value_size.store(head.value_size,
                                                                    std::memory_order_relaxed);
  }
  if (head.expires > r.latest.load(std::memory_order_relaxed)) {
    r.latest.store(head.expires, std::memory_order_relaxed);
  }
  const Live one = Live::one(to.head.end - at);
  add_live(r.live, one);
  const SegmentPlace place = SegmentPlace::unpack(r.place.load(std::memory_order_relaxed));
  add_live(log(place.log).queues[place.queue].live, one);
  CELERIAC_CRASH_POINT("segments.append.written");
  r.used.store(static_cast<std::uint32_t>(to.head.end), std::memory_order_release);  // S2
  CELERIAC_CRASH_POINT("segments.append.reserved");
  return to;
}

std::optional<Reserved> Segments::append(SegmentPlace to, const EntryHead& head, OwnerTag me) {
  const std::uint32_t number =
      log(to.log).queues[to.queue].open[to.life].load(std::memory_order_relaxed);
  layout::SegmentRecord* r = record(number);
  if (r == nullptr || state_of(r->word.load(std::memory_order_relaxed)) != kWritable) {
    return std::nullopt;
  }
  const std::uint64_t at = r->used.load(std::memory_order_relaxed);
  EntryHead h = head;
  lay_out(at, &h);
  if (at < kFirstInSegment || at % 2 != 0 || h.end > r->size.load(std::memory_order_relaxed)) {
    return std::nullopt;
  }
  Reserved reserved = reserve_at(number, *r, head, at, me);
  if (reserved.place.payload == nullptr) return std::nullopt;
  return reserved;
}

Reserved Segments::fill_single(std::uint32_t number, const EntryHead& head, OwnerTag me) {
  return reserve_at(number, *record(number), head, kSinglePlace, me);
}

void Segments::take_back(const Reserved& r) {
  const std::uint32_t number = r.location.segment();
  layout::SegmentRecord* record = this->record(number);
  if (record == nullptr || record->word.load(std::memory_order_relaxed) != r.word) return;
  if (record->used.load(std::memory_order_relaxed) != r.head.end || !is_open(number)) return;
  record->used.store(static_cast<std::uint32_t>(r.place.at), std::memory_order_release);
}

bool Segments::being_written(std::uint32_t number) {
  const layout::SegmentRecord* r = record(number);
  if (r == nullptr || load_live(r->live).entries() == 0) return false;  // S4
  const SegmentPlace in = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  const std::uint64_t used = r->used.load(std::memory_order_acquire);
  for (std::uint64_t at = in.single ? kSinglePlace : kFirstInSegment; at < used;) {
    EntryPlace p;
    EntryHead h;
    layout::Word* guard = nullptr;
    std::uint64_t before = 0;
    if (!resolve(Location::in_segment(number, at), &p, &guard, &before) || !read_head(p, &h)) {
      return false;
    }
    const std::uint32_t who = celeriac::being_written(p);
    const OwnerTag writer{static_cast<std::uint16_t>(who >> 16U), static_cast<std::uint16_t>(who)};
    if (who != 0 && base_.owners.alive(writer)) return true;
    at = h.end;
  }
  return false;
}

bool Segments::drained(const layout::SegmentRecord& r) {
  return r.cursor.load(std::memory_order_relaxed) >= r.used.load(std::memory_order_relaxed);
}

std::uint32_t Segments::oldest(std::uint32_t log_number, std::uint32_t queue) {
  std::uint32_t number = log(log_number).queues[queue].head.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < high(); ++i) {
    const layout::SegmentRecord* r = record(number);
    if (r == nullptr) return 0;
    if (!drained(*r) || !being_written(number)) return number;
    number = r->next.load(std::memory_order_relaxed);
  }
  return 0;
}

// ------------------------------------------------------------------------------- segments

// The number of a record that is nobody's; 0 when there is none and no memory for more.
std::uint32_t Segments::new_record(OwnerTag me) {
  layout::SegmentDirectory& d = directory();
  const std::uint32_t first = d.free.load(std::memory_order_relaxed);
  if (layout::SegmentRecord* r = record(first); r != nullptr) {
    d.free.store(r->next.load(std::memory_order_relaxed), std::memory_order_relaxed);
    if (state_of(r->word.load(std::memory_order_relaxed)) == kFree) return first;
    d.free.store(0, std::memory_order_relaxed);  // damaged
  }
  const std::uint32_t number = std::max(high(), 1U);
  if (number >= kMaxRecords) return 0;
  layout::Word& chunk = d.offsets[number / layout::kSegmentsPerChunk];
  if (number >= layout::kSegmentsPerChunk && chunk.load(std::memory_order_relaxed) == 0) {
    const std::uint64_t bytes = sizeof(layout::SegmentRecord) * layout::kSegmentsPerChunk;
    const Result<std::uint64_t> block = base_.heap.allocate(aligned_bytes(bytes), me);
    if (!block) return 0;
    auto* words = base_.arena.at<layout::Word>(aligned_object(block.value()), bytes);
    if (words == nullptr) return 0;
    for (std::uint64_t i = 0; i < bytes / 8; ++i) words[i].store(0, std::memory_order_relaxed);
    d.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_release);
    base_.heap.make_live(block.value(), me);
    CELERIAC_CRASH_POINT("segments.chunk.live");
    // release pairs with the acquire in record()
    chunk.store(block.value(), std::memory_order_release);
    CELERIAC_CRASH_POINT("segments.chunk.linked");
    d.mutex.pending[0].store(0, std::memory_order_release);
  }
  d.high.store(number + 1, std::memory_order_relaxed);
  return number;
}

bool Segments::scarce() const {
  const std::uint64_t bytes = ordinary();
  return base_.arena.size() + Heap::cost(bytes) > base_.heap.cache_ceiling() &&
         !base_.heap.may_fit(bytes);
}

Result<std::uint32_t> Segments::add(SegmentPlace to, std::uint64_t bytes, RoomFor what,
                                    OwnerTag me) {
  Result<std::uint64_t> block =
      base_.heap.allocate(bytes, me, what == RoomFor::kPushed ? Fit::kMoved : Fit::kCache);
  layout::Word* spare = nullptr;
  for (layout::Word& word : directory().spare) {
    const std::uint64_t kept = word.load(std::memory_order_relaxed);
    if (block || what == RoomFor::kNew || kept == 0 || base_.heap.room(kept) < bytes) continue;
    spare = &word;
    block = kept;
  }
  if (!block) return block.status();
  const std::uint32_t number = new_record(me);
  layout::SegmentRecord* r = record(number);
  auto* head = reinterpret_cast<layout::BlockHead*>(base_.heap.payload(block.value(), bytes));
  if (r == nullptr || head == nullptr) {
    if (spare == nullptr) base_.heap.release(block.value(), me);
    return Status(Code::kNotEnoughMemory, "no room for another segment of the cache");
  }
  layout::SegmentDirectory& d = directory();
  // As in reserve_at(): late readers of the block's last life.
  std::atomic_thread_fence(std::memory_order_release);
  head->mark.store(number, std::memory_order_relaxed);
  d.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_release);
  CELERIAC_CRASH_POINT("segments.add.pending");
  if (spare != nullptr) {
    spare->store(0, std::memory_order_relaxed);
  } else {
    base_.heap.make_live(block.value(), me);
  }
  const std::uint32_t first = to.single ? kSinglePlace : kFirstInSegment;
  r->block.store(block.value(), std::memory_order_relaxed);
  r->live.store(0, std::memory_order_relaxed);
  r->base.store(now_ns(), std::memory_order_relaxed);
  r->latest.store(0, std::memory_order_relaxed);
  r->size.store(static_cast<std::uint32_t>(bytes), std::memory_order_relaxed);
  r->used.store(first, std::memory_order_relaxed);
  r->cursor.store(first, std::memory_order_relaxed);
  r->place.store(to.pack(), std::memory_order_relaxed);
  const TaggedWord old{r->word.load(std::memory_order_relaxed)};
  // release pairs with the acquire in resolve()
  r->word.store(word_of(kWritable, old.generation() + 1, to.single ? me : OwnerTag{}),
                std::memory_order_release);
  CELERIAC_CRASH_POINT("segments.add.counted");
  chain(number);
  if (!to.single) {
    log(to.log).queues[to.queue].open[to.life].store(number, std::memory_order_relaxed);
  }
  d.mutex.pending[0].store(0, std::memory_order_release);
  return number;
}

bool Segments::is_open(std::uint32_t number) {
  const layout::SegmentRecord* r = record(number);
  if (r == nullptr) return false;
  const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  return log(at.log).queues[at.queue].open[at.life].load(std::memory_order_relaxed) == number;
}

void Segments::seal(std::uint32_t number) {
  layout::SegmentRecord* r = record(number);
  if (r == nullptr) return;
  const TaggedWord w{r->word.load(std::memory_order_relaxed)};
  if (w.state() != kWritable) return;
  const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  layout::HalfWord& open = log(at.log).queues[at.queue].open[at.life];
  if (open.load(std::memory_order_relaxed) == number) open.store(0, std::memory_order_relaxed);
  r->word.store(word_of(kDraining, w.generation(), w.owner()), std::memory_order_release);
  // seq_cst pairs with the fence in writable()
  std::atomic_thread_fence(std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("segments.seal.done");
}

void Segments::remove(std::uint32_t number, OwnerTag me, bool may_spare) {
  layout::SegmentRecord* r = record(number);
  if (r == nullptr || state_of(r->word.load(std::memory_order_relaxed)) == kFree) return;
  seal(number);
  layout::SegmentDirectory& d = directory();
  const std::uint64_t block = r->block.load(std::memory_order_relaxed);
  const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  subtract_live(log(at.log).queues[at.queue].live, load_live(r->live));
  unchain(number);
  d.mutex.pending[1].store(base_.heap.ticket(block), std::memory_order_release);
  CELERIAC_CRASH_POINT("segments.remove.pending");
  const TaggedWord w{r->word.load(std::memory_order_relaxed)};
  r->word.store(word_of(kFree, w.generation() + 1), std::memory_order_release);
  CELERIAC_CRASH_POINT("segments.remove.freed");
  r->next.store(d.free.load(std::memory_order_relaxed), std::memory_order_relaxed);
  d.free.store(number, std::memory_order_relaxed);
  if (d.victim.load(std::memory_order_relaxed) == number) {
    d.victim.store(0, std::memory_order_relaxed);
  }
  if (may_spare && scarce() && base_.heap.room(block) == ordinary() && !base_.heap.beyond(block)) {
    for (layout::Word& spare : d.spare) {
      if (spare.load(std::memory_order_relaxed) != 0) continue;
      spare.store(block, std::memory_order_relaxed);
      CELERIAC_CRASH_POINT("segments.remove.spared");
      d.mutex.pending[1].store(0, std::memory_order_release);
      return;
    }
  }
  const bool ours = base_.heap.condemn(block, me);
  d.mutex.pending[1].store(0, std::memory_order_release);
  if (ours) base_.heap.free(block, me);
}

bool Segments::give_up_spares(OwnerTag me) {
  layout::SegmentDirectory& d = directory();
  bool any = false;
  for (layout::Word& spare : d.spare) {
    const std::uint64_t block = spare.load(std::memory_order_relaxed);
    if (block == 0) continue;
    d.mutex.pending[1].store(base_.heap.ticket(block), std::memory_order_release);
    spare.store(0, std::memory_order_relaxed);
    any = true;
    CELERIAC_CRASH_POINT("segments.spare.given_up");
    const bool ours = base_.heap.condemn(block, me);
    d.mutex.pending[1].store(0, std::memory_order_release);
    if (ours) base_.heap.free(block, me);
  }
  return any;
}

void Segments::move(std::uint32_t number, std::uint32_t log, std::uint32_t queue) {
  layout::SegmentRecord* r = record(number);
  if (r == nullptr) return;
  SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  const Live live = load_live(r->live);
  unchain(number);
  subtract_live(this->log(at.log).queues[at.queue].live, live);
  at.log = log;
  at.queue = queue;
  r->place.store(at.pack(), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("segments.move.placed");
  add_live(this->log(at.log).queues[at.queue].live, live);
  r->cursor.store(kSinglePlace, std::memory_order_relaxed);
  chain(number);
}

void Segments::chain(std::uint32_t number) {
  layout::SegmentRecord* r = record(number);
  const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  layout::SegmentQueue& q = log(at.log).queues[at.queue];
  const std::uint32_t tail = q.tail.load(std::memory_order_relaxed);
  layout::SegmentRecord* t = record(tail);
  r->next.store(0, std::memory_order_relaxed);
  r->previous.store(t == nullptr ? 0 : tail, std::memory_order_relaxed);
  (t == nullptr ? q.head : t->next).store(number, std::memory_order_relaxed);
  q.tail.store(number, std::memory_order_relaxed);
}

void Segments::unchain(std::uint32_t number) {
  layout::SegmentRecord* r = record(number);
  const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  layout::SegmentQueue& q = log(at.log).queues[at.queue];
  const std::uint32_t next = r->next.load(std::memory_order_relaxed);
  const std::uint32_t previous = r->previous.load(std::memory_order_relaxed);
  layout::SegmentRecord* n = record(next);
  layout::SegmentRecord* p = record(previous);
  (p == nullptr ? q.head : p->next).store(n == nullptr ? 0 : next, std::memory_order_relaxed);
  (n == nullptr ? q.tail : n->previous)
      .store(p == nullptr ? 0 : previous, std::memory_order_relaxed);
}

}  // namespace celeriac
