#include "store/locks.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "store/hash.hpp"
#include "store/locks_section.hpp"

namespace celeriac {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;  // the bucket's mutex orders

std::uint64_t lease_end(std::uint64_t now, std::uint64_t lease_ns) {
  return lease_ns == 0 || lease_ns >= kNever - now ? kNever : now + lease_ns;
}

Status other_permits(const LockName& name, std::uint32_t permits) {
  const std::size_t colon = std::min(name.text.find(':'), name.text.size() - 1);
  return {Code::kConfiguration,
          "the " + std::string(name.text.substr(0, colon)) + " \"" +
              std::string(name.text.substr(colon + 1)) + "\" has permits=" +
              std::to_string(permits) + " for those who hold it or wait for it now, not " +
              std::to_string(name.permits) + ": all of its users name the same number"};
}

}  // namespace

LockName::LockName(std::string_view name, std::uint32_t most, std::uint64_t seed)
    : text(name), permits(most), first(hash_key(name, seed)), second(hash_key(name, ~seed)) {}

// ------------------------------------------------------------------------------- rings

bool Locks::find(const layout::LockBucket& b, std::uint64_t first, std::uint64_t second,
                 std::uint32_t* ring) {
  std::uint32_t at = b.first.load(kRelaxed);
  for (std::uint32_t steps = 0; at != 0; ++steps) {
    const layout::LockSeat* s = seats_.at(at - 1);
    if (s == nullptr || steps > seats_.count()) return false;
    if (s->first.load(kRelaxed) == first && s->second.load(kRelaxed) == second) break;
    at = s->chain.load(kRelaxed);
  }
  *ring = at;
  return true;
}

// At the end of the ring that begins with `first`; or a ring of its own, when that is 0.
void Locks::join(layout::LockBucket& b, std::uint32_t first, std::uint32_t index) {
  layout::LockSeat* s = seats_.at(index);
  layout::LockSeat* head = first == 0 ? nullptr : seats_.at(first - 1);
  const std::uint32_t last = head == nullptr ? 0 : head->previous.load(kRelaxed);
  layout::LockSeat* tail = last == 0 ? nullptr : seats_.at(last - 1);
  s->order.store(b.next_order.load(kRelaxed), kRelaxed);
  b.next_order.store(b.next_order.load(kRelaxed) + 1, kRelaxed);
  if (tail == nullptr) {
    s->next.store(index + 1, kRelaxed);
    s->previous.store(index + 1, kRelaxed);
    s->chain.store(b.first.load(kRelaxed), kRelaxed);
    b.first.store(index + 1, kRelaxed);
  } else {
    s->next.store(first, kRelaxed);
    s->previous.store(last, kRelaxed);
    tail->next.store(index + 1, kRelaxed);
    head->previous.store(index + 1, kRelaxed);
  }
  CELERIAC_CRASH_POINT("lock.enter.joined");
}

// `first` becomes the ring's new first seat, 0 when it was the last. False: the ring is damaged.
bool Locks::unlink(layout::LockBucket& b, std::uint32_t index, std::uint32_t* first) {
  const std::uint32_t here = index + 1;
  layout::LockSeat* s = seats_.at(index);
  const std::uint32_t next = s->next.load(kRelaxed);
  const std::uint32_t previous = s->previous.load(kRelaxed);
  const std::uint32_t after = next == here ? 0 : *first == here ? next : *first;
  if (next != here) {
    layout::LockSeat* n = next == 0 ? nullptr : seats_.at(next - 1);
    layout::LockSeat* p = previous == 0 ? nullptr : seats_.at(previous - 1);
    if (n == nullptr || p == nullptr) return false;
    n->previous.store(previous, kRelaxed);
    p->next.store(next, kRelaxed);
  }
  CELERIAC_CRASH_POINT("lock.leave.bridged");
  if (*first == here) {
    layout::HalfWord* link = &b.first;
    for (std::uint32_t steps = 0; link->load(kRelaxed) != here; ++steps) {
      const std::uint32_t at = link->load(kRelaxed);
      layout::LockSeat* other = at == 0 ? nullptr : seats_.at(at - 1);
      if (other == nullptr || steps > seats_.count()) return false;
      link = &other->chain;
    }
    const std::uint32_t chain = s->chain.load(kRelaxed);
    if (after != 0) seats_.at(after - 1)->chain.store(chain, kRelaxed);
    link->store(after != 0 ? after : chain, kRelaxed);
  }
  *first = after;
  CELERIAC_CRASH_POINT("lock.leave.unlinked");
  return true;
}

bool Locks::is_over(const layout::LockSeat& s, std::uint64_t* now) const {
  const std::uint64_t until = s.until.load(kRelaxed);
  if (until == kNever) return false;
  if (*now == 0) *now = now_ns();
  return until <= *now;
}

// From kWriting or kWaiting to kHolding. False: its owner died meanwhile.
bool Locks::grant(layout::LockSeat& s, TaggedWord from, std::uint64_t now) {
  s.token.store(seats_.next_token(), kRelaxed);
  s.until.store(lease_end(now, s.lease.load(kRelaxed)), kRelaxed);
  s.since.store(now, kRelaxed);
  CELERIAC_CRASH_POINT("lock.grant.written");
  const bool done =
      change(s.word, from, TaggedWord::make(kSeatHolding, from.owner(), from.generation()));
  CELERIAC_CRASH_POINT("lock.grant.held");
  return done;
}

// Takes the seat at `place` out of its ring. False: damaged.
bool Locks::take_out(Section& s, std::uint32_t place, Ring* ring) {
  layout::LockSeat* seat = seats_.at(place - 1);
  if (!unlink(s.bucket, place - 1, &ring->first)) return false;
  // Once more when recovery has marked it in between: nobody else changes it but us (N4).
  while (!seats_.give_back(*seat, load(seat->word))) cpu_relax();
  return true;
}

// False: the ring is damaged. `changed`: so is who holds, or is the first that waits.
bool Locks::settle(Section& s, std::uint32_t first, Ring* ring, bool changed) {
  *ring = {first, 0, 0, kNever};
  layout::LockSeat* seat = seats_.at(first - 1);
  if (seat == nullptr) return false;
  const std::uint32_t last = seat->previous.load(kRelaxed);
  std::uint64_t now = 0;
  for (std::uint32_t at = first, steps = 0;; ++steps) {
    seat = at == 0 ? nullptr : seats_.at(at - 1);
    if (seat == nullptr || steps > 2 * seats_.count()) return false;
    const std::uint32_t next = seat->next.load(kRelaxed);
    const TaggedWord w = load(seat->word);
    if (w.state() == kSeatFree || w.state() == kSeatWriting) return false;
    const bool holds = w.state() == kSeatHolding;
    if (w.state() == kSeatLeft || base_.owners.reaped(w.owner()) ||
        (holds && is_over(*seat, &now))) {
      if (!take_out(s, at, ring)) return false;
      changed = true;
    } else if (holds) {
      ++ring->holding;
      ring->ends_at = std::min(ring->ends_at, seat->until.load(kRelaxed));
    } else if (ring->holding < seat->permits.load(kRelaxed)) {
      if (now == 0) now = now_ns();
      changed = true;
      if (!grant(*seat, w, now)) continue;  // it is kLeft: look again
      s.wake(*seat);
      ++ring->holding;
      ring->ends_at = std::min(ring->ends_at, seat->until.load(kRelaxed));
    } else {
      ring->waiting = at;
      if (changed && ring->ends_at != kNever) s.wake(*seat);  // N6
      return true;
    }
    if (at == last) return true;
    at = next;
  }
}

// ------------------------------------------------------------------------------- calls

void Locks::fill(layout::LockSeat& s, const LockName& name, std::uint64_t lease_ns) {
  s.first.store(name.first, kRelaxed);
  s.second.store(name.second, kRelaxed);
  s.lease.store(lease_ns, kRelaxed);
  s.until.store(kNever, kRelaxed);
  s.token.store(0, kRelaxed);
  s.since.store(now_ns(), kRelaxed);
  s.permits.store(name.permits, kRelaxed);
  const std::size_t size = std::min<std::size_t>(name.text.size(), layout::kSeatNameBytes);
  copy_in(s.name, name.text.data(), size);
  s.name_length.store(static_cast<std::uint32_t>(size), kRelaxed);
}

Result<LockEntered> Locks::enter(const LockName& name, std::uint64_t lease_ns, bool wait,
                                 OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  Result<SeatRef> taken = seats_.take(me);
  if (!taken) return taken.status();
  layout::LockSeat& seat = *taken.value().seat;
  const TaggedWord w = load(seat.word);
  fill(seat, name, lease_ns);
  CELERIAC_CRASH_POINT("lock.enter.written");
  Section s(*this, bucket_of(name.first), me);
  if (!s.held()) {
    seats_.give_back(seat, w);
    return mutex_timeout("the lock");
  }
  Ring ring;
  for (int tries = 0; !look_up(s, name.first, name.second, &ring); ++tries) {
    if (tries == 2) {
      seats_.give_back(seat, w);
      return Status(Code::kCorrupt, "the locks of the store are damaged: run celeriac doctor");
    }
    damaged(s.bucket);
  }
  if (ring.first != 0) {
    const std::uint32_t permits = seats_.at(ring.first - 1)->permits.load(kRelaxed);
    if (permits != name.permits) {
      seats_.give_back(seat, w);
      return other_permits(name, permits);
    }
  }
  const bool free = ring.waiting == 0 && ring.holding < name.permits;
  if (!free && !wait) {
    LockEntered none;
    none.stale = any_dead(ring);
    seats_.give_back(seat, w);
    return none;
  }
  join(s.bucket, ring.first, taken.value().index);
  const bool done = free ? grant(seat, w, seat.since.load(kRelaxed))
                         : change(seat.word, w, TaggedWord::make(kSeatWaiting, me, w.generation()));
  CELERIAC_CRASH_POINT("lock.enter.done");
  if (!done) {
    damaged(s.bucket);
    return Status(Code::kCorrupt, "a lock's seat was changed by another: run celeriac doctor");
  }
  return LockEntered{
      {taken.value().index, w.generation()}, free ? seat.token.load(kRelaxed) : 0, false};
}

// The ring of that name, settled. False: damaged.
bool Locks::look_up(Section& s, std::uint64_t first, std::uint64_t second, Ring* ring) {
  *ring = {};
  std::uint32_t at = 0;
  return find(s.bucket, first, second, &at) && (at == 0 || settle(s, at, ring));
}

bool Locks::any_dead(const Ring& ring) {
  std::uint32_t at = ring.first;
  for (std::uint32_t i = 0; i < ring.holding && at != 0; ++i) {
    layout::LockSeat* s = seats_.at(at - 1);
    if (s == nullptr) return false;
    if (!base_.owners.alive(load(s->word).owner())) return true;
    at = s->next.load(kRelaxed);
  }
  return false;
}

Standing Locks::look(LockPlace place, OwnerTag me, std::uint64_t* token, std::uint32_t* signal) {
  layout::LockSeat* s = seats_.at(place.index);
  if (s == nullptr) return Standing::kGone;
  // acquire pairs with the release in Section::wake(); before the word, so that who sleeps on it
  // has seen all that was done before it changes
  *signal = s->signal.load(std::memory_order_acquire);
  const TaggedWord w = load(s->word);
  if (w.generation() != place.generation || w.owner() != me) return Standing::kGone;
  if (w.state() == kSeatWaiting) return Standing::kWaits;
  if (w.state() != kSeatHolding) return Standing::kGone;
  *token = s->token.load(kRelaxed);
  return Standing::kHolds;
}

layout::HalfWord* Locks::signal(LockPlace place) {
  layout::LockSeat* s = seats_.at(place.index);
  return s == nullptr ? nullptr : &s->signal;
}

Status Locks::not_mine(LockPlace place, OwnerTag me) {
  layout::LockSeat* s = seats_.at(place.index);
  const TaggedWord w = s == nullptr ? TaggedWord{} : load(s->word);
  if (w.generation() == place.generation && w.owner().valid() && w.owner() != me) {
    return {Code::kNotOwner,
            "the lock is held by another process: a forked child has none of its "
            "parent's locks"};
  }
  return {Code::kLockLost,
          "the lock is not held any more: its lease ended, or its store was closed "
          "in between"};
}

Result<LockWatched> Locks::watch(LockPlace place, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  layout::LockSeat* seat = seats_.at(place.index);
  std::uint64_t token = 0;
  std::uint32_t signal = 0;
  LockWatched seen{look(place, me, &token, &signal), kNever};
  if (seen.standing != Standing::kWaits) return seen;
  Section s(*this, bucket_of(seat->first.load(kRelaxed)), me);
  if (!s.held()) return mutex_timeout("the lock");
  seen.standing = look(place, me, &token, &signal);
  if (seen.standing != Standing::kWaits) return seen;
  Ring ring;
  if (!look_up(s, seat->first.load(kRelaxed), seat->second.load(kRelaxed), &ring)) {
    damaged(s.bucket);
    seen.look_at = now_ns();  // at once
    return seen;
  }
  seen.standing = look(place, me, &token, &signal);
  if (ring.waiting == place.index + 1) seen.look_at = ring.ends_at;
  return seen;
}

// Out of its ring, and free. REQUIRES: `s` is its bucket's.
void Locks::drop(Section& s, std::uint32_t index) {
  layout::LockSeat* seat = seats_.at(index);
  const std::uint64_t first = seat->first.load(kRelaxed);
  const std::uint64_t second = seat->second.load(kRelaxed);
  for (int tries = 0;; ++tries) {
    Ring ring;
    if (find(s.bucket, first, second, &ring.first) && ring.first != 0 &&
        take_out(s, index + 1, &ring)) {
      if (ring.first != 0 && !settle(s, ring.first, &ring, true)) damaged(s.bucket);
      return;
    }
    if (tries == 2) return;
    damaged(s.bucket);
  }
}

Status Locks::release(LockPlace place, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  layout::LockSeat* seat = held_seat(place, me);
  if (seat == nullptr) return not_mine(place, me);
  CELERIAC_CRASH_POINT("lock.release.seen");
  Section s(*this, bucket_of(seat->first.load(kRelaxed)), me);
  if (!s.held()) return mutex_timeout("the lock");
  if (held_seat(place, me) == nullptr) return not_mine(place, me);  // its lease ended meanwhile
  std::uint64_t now = 0;
  const bool late = is_over(*seat, &now);
  drop(s, place.index);
  return late ? not_mine(place, me) : Status::ok();
}

void Locks::leave(LockPlace place, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  layout::LockSeat* seat = seats_.at(place.index);
  std::uint64_t token = 0;
  std::uint32_t signal = 0;
  if (look(place, me, &token, &signal) == Standing::kGone) return;
  layout::LockBucket& bucket = bucket_of(seat->first.load(kRelaxed));
  Section s(*this, bucket, me);
  while (!s.held() && look(place, me, &token, &signal) != Standing::kGone) {
    // Somebody who is stopped has the bucket. Nobody waits for us here: who has it next takes us
    // out, and those who wait try until they have it.
    const TaggedWord w = load(seat->word);
    if (!change(seat->word, w, TaggedWord::make(kSeatLeft, me, place.generation))) continue;
    wake_bucket(bucket);
  }
  if (!s.held() || look(place, me, &token, &signal) == Standing::kGone) return;
  drop(s, place.index);
  s.wake(*seat);
}

Status Locks::renew(LockPlace place, std::uint64_t lease_ns, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  layout::LockSeat* seat = held_seat(place, me);
  if (seat == nullptr) return not_mine(place, me);
  CELERIAC_CRASH_POINT("lock.renew.seen");
  Section s(*this, bucket_of(seat->first.load(kRelaxed)), me);
  if (!s.held()) return mutex_timeout("the lock");
  if (held_seat(place, me) == nullptr) return not_mine(place, me);
  std::uint64_t now = now_ns();
  if (is_over(*seat, &now)) {
    drop(s, place.index);
    return not_mine(place, me);
  }
  const std::uint64_t before = seat->until.load(kRelaxed);
  const std::uint64_t until = lease_end(now, lease_ns);
  seat->until.store(until, kRelaxed);
  CELERIAC_CRASH_POINT("lock.renew.stored");
  std::uint32_t first = 0;
  Ring ring;
  if (until < before &&
      (!find(s.bucket, seat->first.load(kRelaxed), seat->second.load(kRelaxed), &first) ||
       first == 0 || !settle(s, first, &ring, true))) {
    damaged(s.bucket);
  }
  return Status::ok();
}

layout::LockSeat* Locks::held_seat(LockPlace place, OwnerTag me) {
  layout::LockSeat* s = seats_.at(place.index);
  if (s == nullptr) return nullptr;
  return load(s->word) == TaggedWord::make(kSeatHolding, me, place.generation) ? s : nullptr;
}

// ------------------------------------------------------------------------------- looks

LockHolder Locks::shown(const layout::LockSeat& s, TaggedWord w) {
  LockHolder h;
  h.owner = w.owner();
  h.holds = w.state() == kSeatHolding;
  h.token = s.token.load(kRelaxed);
  h.since = s.since.load(kRelaxed);
  h.until = s.until.load(kRelaxed);
  h.permits = s.permits.load(kRelaxed);
  h.name.resize(std::min(s.name_length.load(kRelaxed), layout::kSeatNameBytes));
  copy_out(h.name.data(), s.name, h.name.size());
  return h;
}

Status Locks::agree(const LockName& name, OwnerTag me) {
  std::uint64_t waiting = 0;
  const Result<std::vector<LockHolder>> found = holders(name, &waiting, me);
  if (!found) return found.status();
  for (const LockHolder& h : found.value()) {
    if (h.permits != name.permits) return other_permits(name, h.permits);
  }
  return Status::ok();
}

Result<std::vector<LockHolder>> Locks::holders(const LockName& name, std::uint64_t* waiting,
                                               OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  std::vector<LockHolder> found;
  *waiting = 0;
  Section s(*this, bucket_of(name.first), me);
  if (!s.held()) return mutex_timeout("the lock");
  Ring ring;
  if (!look_up(s, name.first, name.second, &ring)) {
    damaged(s.bucket);
    if (!look_up(s, name.first, name.second, &ring)) return found;
  }
  std::uint32_t at = ring.first;
  for (std::uint32_t steps = 0; at != 0 && steps <= seats_.count(); ++steps) {
    layout::LockSeat* seat = seats_.at(at - 1);
    if (seat == nullptr) break;
    const TaggedWord w = load(seat->word);
    const bool counts = base_.owners.alive(w.owner());
    if (counts && w.state() == kSeatHolding) found.push_back(shown(*seat, w));
    if (counts && w.state() == kSeatWaiting) ++*waiting;
    at = seat->next.load(kRelaxed);
    if (at == ring.first) break;
  }
  return found;
}

std::vector<LockHolder> Locks::list() {
  std::vector<LockHolder> all;
  seats_.each([&](std::uint32_t, const layout::LockSeat& s, TaggedWord w) {
    if (w.state() != kSeatHolding && w.state() != kSeatWaiting) return;
    LockHolder h = shown(s, w);
    if (load(s.word) == w) all.push_back(std::move(h));
  });
  return all;
}

}  // namespace celeriac
