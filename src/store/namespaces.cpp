#include "store/namespaces.hpp"

#include <algorithm>
#include <cstring>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr std::uint32_t kNone = layout::kMaxNamespaces;

constexpr std::uint32_t after(std::uint32_t generation) {
  return generation + 1 == 0 ? 1 : generation + 1;
}

Status no_place() {
  return {Code::kNotEnoughMemory,
          "the store has " + std::to_string(layout::kMaxNamespaces) +
              " places for caches and tables, and each is taken by one that has entries: need "
              "one, have none; put a prefix into the keys instead, or clear caches that aren't "
              "needed"};
}

}  // namespace

std::uint32_t Namespaces::count() const {
  return std::min(base_.arena.header().namespace_high.load(std::memory_order_acquire),
                  layout::kMaxNamespaces);
}

std::string_view Namespaces::name(std::uint32_t index) const {
  const layout::NamespaceRecord& r = record(index);
  return {r.name,
          std::min<std::size_t>(r.name_length.load(std::memory_order_relaxed), sizeof r.name)};
}

bool Namespaces::empty(std::uint32_t index) const {
  const std::uint32_t generation = bits(index).generation();
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    const std::uint64_t w = cell(index, shard).generation_entries.load(std::memory_order_relaxed);
    if (static_cast<std::uint32_t>(w >> 32U) == generation && static_cast<std::uint32_t>(w) != 0) {
      return false;
    }
  }
  return true;
}

bool Namespaces::begin_anew(std::uint32_t index, State state, unsigned flags) {
  layout::Word& w = record(index).word;
  Bits old{w.load(std::memory_order_relaxed)};
  Bits next;
  do {  // again when a clear() came between
    if (old.incarnation() == Bits::kLastIncarnation || sweep_due(index)) return false;
    next = Bits::make(state, flags, old.incarnation() + 1, after(old.generation()));
    // release: as in clear()
  } while (!w.compare_exchange_weak(old.bits, next.bits, std::memory_order_acq_rel));
  return true;
}

std::uint32_t Namespaces::find(std::string_view wanted) const {
  const std::uint32_t n = count();
  for (std::uint32_t i = 0; i < n; ++i) {
    if (bits(i).state() == kUsed && name(i) == wanted) return i;
  }
  return kNone;
}

// A place that is nobody's, or kNone.
std::uint32_t Namespaces::free_place(const NamespaceRequest& request) {
  const std::uint32_t n = count();
  const bool library = request.name.starts_with(kLibrary);
  const std::uint32_t end = library ? layout::kMaxNamespaces : layout::kMaxNamespaces - kReserved;
  std::uint32_t with_overflow = 0;
  for (std::uint32_t i = 0; i < n; ++i)
    with_overflow += (bits(i).flags() & kHasOverflow) != 0 ? 1 : 0;
  const bool may_have_more = request.overflow.empty() || with_overflow < kMostWithOverflow;
  for (std::uint32_t i = 0; may_have_more && i < std::min(n, end); ++i) {
    if (bits(i).state() == kVacant) return i;
  }
  if (may_have_more && n < end) return n;
  layout::HalfWord& hand = base_.arena.header().namespace_hand;
  const std::uint32_t from = hand.load(std::memory_order_relaxed);
  for (std::uint32_t k = 0; k < n; ++k) {
    const std::uint32_t i = (from + k) % n;
    const Bits b = bits(i);
    const bool gives_way = b.state() == kUsed && (b.flags() & (kPinned | kOverflow)) == 0 &&
                           (may_have_more || (b.flags() & kHasOverflow) != 0) &&
                           !name(i).starts_with(kLibrary) && empty(i);
    if (!gives_way || !begin_anew(i, kVacant, 0)) continue;
    CELERIAC_CRASH_POINT("namespaces.open.vacated");
    hand.store(i + 1, std::memory_order_relaxed);
    return i;
  }
  return kNone;
}

void Namespaces::take(std::uint32_t index, std::string_view name, unsigned flags,
                      std::uint32_t lead) {
  layout::NamespaceRecord& r = record(index);
  const Bits old = bits(index);
  prefixes_.forget(index);
  r.max_entries.store(0, std::memory_order_relaxed);  // N9
  std::memcpy(r.name, name.data(), name.size());
  r.name_length.store(static_cast<std::uint32_t>(name.size()), std::memory_order_relaxed);
  const std::uint32_t generation = std::max(old.generation(), 1U);
  r.lead.store((flags & kPinned) != 0 ? Prefixes::kNotApart : lead, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("namespaces.open.named");
  // release pairs with the acquire in generation(): all that was written before
  r.word.store(Bits::make(kUsed, flags, old.incarnation(), generation).bits,
               std::memory_order_release);
  CELERIAC_CRASH_POINT("namespaces.open.written");
  if (index < count()) return;
  // release pairs with the acquire in count()
  base_.arena.header().namespace_high.store(index + 1, std::memory_order_release);
  CELERIAC_CRASH_POINT("namespaces.open.counted");
}

// The overflow's id when its era has begun (N6), else kNotFound; afterwards none has.
Result<std::uint32_t> Namespaces::open_overflow(const NamespaceRequest& request) {
  const std::uint32_t i = find(request.overflow);
  const Bits b = i == kNone ? Bits{} : bits(i);
  if ((b.flags() & kFull) == 0) return Status(Code::kNotFound, "");
  if (empty(i) && begin_anew(i, kUsed, kOverflow)) {
    CELERIAC_CRASH_POINT("namespaces.open.era");
    return Status(Code::kNotFound, "");
  }
  return id(b, i);
}

Result<std::uint32_t> Namespaces::open(const NamespaceRequest& request, OwnerTag me) {
  for (const std::size_t size : {request.name.size(), request.overflow.size()}) {
    if (size > sizeof(layout::NamespaceRecord::name) || request.name.empty()) {
      return Status(Code::kConfiguration,
                    "a namespace's name has 1 to 240 bytes, this one has " + std::to_string(size));
    }
  }
  OwnerMutex mutex(base_.arena.header().directory, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of namespaces");
  if (const std::uint32_t i = find(request.name); i != kNone) {
    if (this->pinned(i) == request.pinned) {
      if (request.lead != 0 && !request.pinned)
        record(i).lead.store(request.lead, std::memory_order_relaxed);
      return id(bits(i), i);
    }
    return Status(Code::kConfiguration, "\"" + std::string(request.name) + "\" is a " +
                                            (request.pinned ? "cache" : "table") +
                                            " of this store and can't be opened as a " +
                                            (request.pinned ? "table" : "cache"));
  }
  const bool has_overflow = !request.overflow.empty();
  if (has_overflow) {
    if (Result<std::uint32_t> there = open_overflow(request)) return there;
  }
  if (!request.create) return Status(Code::kNotFound, "");
  if (const std::uint32_t i = free_place(request); i != kNone) {
    take(i, request.name, (request.pinned ? kPinned : 0U) | (has_overflow ? kHasOverflow : 0U),
         request.lead);
    return id(bits(i), i);
  }
  if (!has_overflow) return no_place();
  std::uint32_t i = find(request.overflow);
  if (i == kNone) {
    i = free_place({request.overflow});
    if (i == kNone) return no_place();
    take(i, request.overflow, kOverflow, 0);
  }
  // A clear() may come at any time: the id is of the era that is full now.
  // acq_rel: as in clear()
  const Bits full{record(i).word.fetch_or(Bits::make(kNever, kOverflow | kFull, 0, 0).bits,
                                          std::memory_order_acq_rel)};
  CELERIAC_CRASH_POINT("namespaces.open.full");
  return id(full, i);
}

bool Namespaces::clear(std::uint32_t space) {
  layout::Word& w = record(space).word;
  Bits old{w.load(std::memory_order_relaxed)};
  Bits next;
  do {
    if (old.state() != kUsed || old.incarnation() != space / layout::kMaxNamespaces) return false;
    if (sweep_due(space)) return false;
    const bool new_era =
        (old.flags() & kOverflow) != 0 && old.incarnation() != Bits::kLastIncarnation;
    next = Bits::make(kUsed, old.flags() & ~(new_era ? kFull : 0U),
                      old.incarnation() + (new_era ? 1 : 0), after(old.generation()));
    // release: entries set before the clear are not seen as of the new generation
  } while (!w.compare_exchange_weak(old.bits, next.bits, std::memory_order_acq_rel));
  CELERIAC_CRASH_POINT("namespaces.clear.done");
  return true;
}

bool Namespaces::sweep_due() const {
  const std::uint32_t n = count();
  for (std::uint32_t i = 0; i < n; ++i) {
    if (sweep_due(i)) return true;
  }
  return false;
}

void Namespaces::swept(std::uint32_t index, std::uint32_t generation) {
  // release pairs with the acquire in sweep_due()
  record(index).swept.store(generation, std::memory_order_release);
  CELERIAC_CRASH_POINT("namespaces.swept.stored");
}

Result<bool> Namespaces::limit(std::uint32_t space, std::uint32_t max_entries, OwnerTag me) {
  OwnerMutex mutex(base_.arena.header().directory, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of namespaces");
  if (!good(space) || is_overflow(space)) return false;
  record(space).max_entries.store(max_entries, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("namespaces.limit.stored");
  return true;
}

Result<std::vector<NamespaceName>> Namespaces::list(OwnerTag me) const {
  OwnerMutex mutex(base_.arena.header().directory, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of namespaces");
  std::vector<NamespaceName> all;
  const std::uint32_t n = count();
  for (std::uint32_t i = 0; i < n; ++i) {
    if (bits(i).state() == kUsed) all.push_back({i, pinned(i), std::string(name(i))});
  }
  return all;
}

}  // namespace celeriac
