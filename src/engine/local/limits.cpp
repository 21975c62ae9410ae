#include "engine/local/limits.hpp"

#include <new>

namespace celeriac {
namespace {

LimitDecision decision(const LimitVerdict& v) {
  return {v.verdict.allowed, v.verdict.remaining, v.verdict.retry_ns, v.verdict.reset_ns, v.which};
}

}  // namespace

Result<LimitDecision> LocalLimiter::hit(std::string_view key, std::uint64_t cost) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<LimitVerdict> v =
      handle_->core().limits().hit(plan_, key, cost, now_ns(), me.value());
  if (!v) return v.status();
  return decision(v.value());
}

Result<LimitDecision> LocalLimiter::peek(std::string_view key, std::uint64_t cost) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<LimitVerdict> v =
      handle_->core().limits().peek(plan_, key, cost, now_ns(), me.value());
  if (!v) return v.status();
  return decision(v.value());
}

Status LocalLimiter::reset(std::string_view key) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().limits().reset(plan_, key, now_ns(), me.value());
}

Status LocalLimiter::refund(std::string_view key, std::uint64_t cost) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().limits().refund(plan_, key, cost, now_ns(), me.value());
}

Result<ConcurrencyRef> LocalConcurrency::ref(OwnerTag me) {
  Concurrency& all = handle_->core().concurrency();
  ConcurrencyRef last;
  {
    const std::lock_guard lock(mutex_);
    last = ref_;
  }
  if (all.current(last)) return last;
  Result<ConcurrencyRef> again = all.open(name_, limit_, false, me);
  if (again) {
    const std::lock_guard lock(mutex_);
    ref_ = again.value();
  }
  return again;
}

Result<std::optional<std::uint64_t>> LocalConcurrency::enter(std::uint64_t deadline_ns) {
  using Entered = std::optional<std::uint64_t>;
  LocalCore& core = handle_->core();
  bool awaited = false;
  ConcurrencyRef of;
  std::uint32_t seen = 0;
  for (;;) {
    const Result<OwnerTag> me = handle_->enter();
    if (!me) return me.status();
    const Result<ConcurrencyRef> in = ref(me.value());
    if (!in) return in.status();
    ConcurrencyPlace place;
    const Result<Concurrency::Entered> entered =
        core.concurrency().enter(in.value(), me.value(), &place);
    if (!entered) return entered.status();
    if (entered.value() == Concurrency::Entered::kIn) {
      const std::lock_guard lock(mutex_);
      places_.emplace(next_, place);
      return Entered(next_++);
    }
    if (entered.value() == Concurrency::Entered::kGone) continue;
    if (deadline_ns == 0 || now_ns() >= deadline_ns) {
      // Full: but a process may have died inside, and nobody watched.
      if (core.recovery().run() == 0) return Entered();
      deadline_ns = 0;
      continue;
    }
    if (!awaited || of.record != in.value().record) {  // once more: sync/room.hpp
      of = in.value();
      seen = Concurrency::await(of);
      awaited = true;
      continue;
    }
    const std::uint64_t poll = core.poll_interval();
    Status waited = Concurrency::wait(of, seen, deadline_ns, poll);
    if (!waited) return waited;
    if (poll != kNever) core.recovery().run();
    awaited = false;
  }
}

Status LocalConcurrency::leave(std::uint64_t place) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  ConcurrencyPlace left;
  {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(place);
    if (found == places_.end()) {
      return {Code::kNotOwner, "this process isn't in the concurrency limit \"" + name_ +
                                   "\" with that place: it has left, or its parent entered"};
    }
    left = found->second;
    places_.erase(found);
  }
  return handle_->core().concurrency().leave(left, me.value());
}

Result<std::uint32_t> LocalConcurrency::await() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<ConcurrencyRef> in = ref(me.value());
  if (!in) return in.status();
  return Concurrency::await(in.value());
}

Result<bool> LocalConcurrency::wait(std::uint32_t seen, std::uint64_t deadline_ns) {
  LocalCore& core = handle_->core();
  for (;;) {
    const Result<OwnerTag> me = handle_->enter();
    if (!me) return me.status();
    const Result<ConcurrencyRef> in = ref(me.value());
    if (!in) return in.status();
    if (in.value().record->room.signal.load(std::memory_order_acquire) != seen) return true;
    if (now_ns() >= deadline_ns) return false;
    const std::uint64_t poll = core.poll_interval();
    Status waited = Concurrency::wait(in.value(), seen, deadline_ns, poll);
    if (!waited) return waited;
    if (poll != kNever) core.recovery().run();
  }
}

Result<std::uint32_t> LocalConcurrency::inside() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<ConcurrencyRef> in = ref(me.value());
  if (!in) return in.status();
  return handle_->core().concurrency().inside(in.value());
}

Result<std::uint32_t> LocalConcurrency::limit() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<ConcurrencyRef> in = ref(me.value());
  if (!in) return in.status();
  return Concurrency::limit(in.value());
}

void LocalConcurrency::after_fork_in_child() noexcept {
  new (&mutex_) std::mutex;
  // Another thread may have been changing it: the parent's memory isn't freed, but left.
  new (&places_) std::map<std::uint64_t, ConcurrencyPlace>;
}

}  // namespace celeriac
