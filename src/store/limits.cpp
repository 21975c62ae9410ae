#include "store/limits.hpp"

#include <algorithm>
#include <new>

#include "arena/crash_point.hpp"
#include "sync/owner_mutex.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kReset = kNever;  // of give_back: all of it

std::uint64_t tag_of(std::uint64_t hash, const LimitPlan::Part& part) {
  const std::uint64_t own = part.salt == 0 ? hash : fold(hash ^ part.salt, 0xE7037ED1A0B428DBULL);
  return own << 6U | part.kind;
}

}  // namespace

// The shard's mutex for as long as it lives, with what a dead holder left settled.
class Limits::Held {
 public:
  Held(Limits& limits, Shard& shard, OwnerTag me)
      : operation_(limits.base_.owners.record(me.slot)),
        mutex_(shard.mutex, limits.base_.owners),
        guard_(mutex_, mutex_.lock_within(me, kMutexPatience)) {
    if (guard_.recovered()) limits.settle(shard, me);
  }
  explicit operator bool() const { return guard_.held(); }
  static Status timeout() { return mutex_timeout("a shard of the rate limits"); }

 private:
  OperationScope operation_;
  OwnerMutex mutex_;
  MutexGuard guard_;
};

// ------------------------------------------------------------------------------------- plans

Result<std::uint64_t> Limits::kind_of(const Rate& rate, OwnerTag me) {
  if (rate.form == RateForm::kGcra) return kKindGcra;
  if (rate.form == RateForm::kFixed) return kKindFixed;
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the table of sliding windows");
  for (std::uint32_t i = 0; i < layout::kLimitPeriods; ++i) {
    layout::Word& there = directory_.periods[i];
    if (there.load(std::memory_order_relaxed) == 0) {
      there.store(rate.period_ns, std::memory_order_release);  // pairs with period_of()
      CELERIAC_CRASH_POINT("limits.plan.period");
    }
    if (there.load(std::memory_order_relaxed) == rate.period_ns) return kKindSliding + i;
  }
  return Status(Code::kNotEnoughMemory,
                "the store has sliding windows of " + std::to_string(layout::kLimitPeriods) +
                    " different periods, and room for no more: use one of them, or gcra");
}

std::uint64_t Limits::period_of(std::uint64_t tag) const {
  const std::uint64_t kind = tag & kKinds;
  if (kind < kKindSliding || kind - kKindSliding >= layout::kLimitPeriods) return 0;
  // acquire pairs with kind_of()
  return directory_.periods[kind - kKindSliding].load(std::memory_order_acquire);
}

Result<LimitPlan> Limits::plan(std::string_view name, const std::vector<Rate>& rates, OwnerTag me) {
  if (rates.empty() || rates.size() > layout::kMostRates) {
    return Status(Code::kConfiguration, "a limit has 1 to " + std::to_string(layout::kMostRates) +
                                            " rates, not " + std::to_string(rates.size()));
  }
  LimitPlan plan;
  plan.seed = hash_key(name, base_.arena.header().fixed.hash_seed ^ (rates.size() > 1 ? 1U : 0U));
  for (const Rate& rate : rates) {
    Status good = check_rate(rate);
    if (!good) return good;
    const Result<std::uint64_t> kind = kind_of(rate, me);
    if (!kind) return kind.status();
    plan.parts.push_back({rate, 0, kind.value()});
  }
  if (rates.size() == 1) {
    plan.seed = fold(plan.seed ^ rates[0].period_ns, plan.parts[0].kind | 1ULL << 32U);
    return plan;
  }
  // A rate of a list is known by its form and period, and by how many like it come before.
  for (std::size_t i = 0; i < rates.size(); ++i) {
    LimitPlan::Part& p = plan.parts[i];
    const auto like =
        std::count_if(plan.parts.begin(), plan.parts.begin() + static_cast<long>(i),
                      [&](const LimitPlan::Part& other) {
                        return other.kind == p.kind && other.rate.period_ns == p.rate.period_ns;
                      });
    p.salt = fold(p.rate.period_ns + static_cast<std::uint64_t>(like) + 1,
                  0xA0761D6478BD642FULL ^ p.kind) |
             1U;
  }
  return plan;
}

Status Limits::check_cost(const LimitPlan& plan, std::uint64_t cost) {
  std::uint64_t most = kNever;
  for (const LimitPlan::Part& p : plan.parts) most = std::min(most, p.rate.most());
  if (cost >= 1 && cost <= most) return Status::ok();
  if (cost == 0) return {Code::kConfiguration, "cost=0: at least 1"};
  return {Code::kConfiguration, "cost=" + std::to_string(cost) + " is more than the " +
                                    std::to_string(most) +
                                    " that can be taken at once, so it would never be allowed: "
                                    "raise burst=, or split the cost"};
}

// ------------------------------------------------------------------------------------- looking

// From the largest level down: most keys are there.
Limits::Slot* Limits::find(Shard& shard, std::uint64_t tag) {
  const std::uint32_t height =
      std::min(shard.height.load(std::memory_order_relaxed), layout::kLimitLevels);
  std::array<layout::LimitBucket*, layout::kLimitLevels> first;  // of each level
  for (std::uint32_t i = height; i-- > 0;) {
    first[i] = level(shard, i);
    if (first[i] == nullptr) continue;
    __builtin_prefetch(first[i] + place_of(tag, i));
  }
  for (std::uint32_t i = height; i-- > 0;) {
    if (first[i] == nullptr) continue;
    std::uint64_t at = place_of(tag, i);
    bool end = false;
    for (std::uint32_t n = 0; n < kProbe && !end; ++n) {
      for (Slot& s : first[i][at].slots) {
        // acquire pairs with the release in give_slot(): a state read after it isn't older
        const std::uint64_t there = s.tag.load(std::memory_order_acquire);
        if (there == tag) return &s;
        end = end || there == 0;  // L2
      }
      at = at + 1 == kBuckets[i] ? 0 : at + 1;
    }
  }
  return nullptr;
}

// ------------------------------------------------------------------------------------- one rate

Status Limits::hit_one(const LimitPlan& plan, std::uint64_t hash, std::uint64_t cost,
                       std::uint64_t now, OwnerTag me, Verdict* verdict) {
  const Rate& rate = plan.parts[0].rate;
  const std::uint64_t tag = tag_of(hash, plan.parts[0]);
  Shard& shard = shard_of(hash);
  for (;;) {
    // acquire pairs with the release below: who sees a later number looks again
    const std::uint32_t inserts = shard.inserts.load(std::memory_order_acquire);
    Slot* slot = find(shard, tag);
    while (slot != nullptr) {
      // acquire pairs with the releases that give a slot to another key: L3
      std::uint64_t state = slot->state.load(std::memory_order_acquire);
      if (state == 0 || slot->tag.load(std::memory_order_relaxed) != tag) break;
      *verdict = decide(rate, state, now, cost);
      if (verdict->word == state) return Status::ok();
      CELERIAC_CRASH_POINT("limits.hit.decided");
      // relaxed: the word says all, and guards nothing
      if (slot->state.compare_exchange_strong(state, verdict->word, std::memory_order_relaxed)) {
        CELERIAC_CRASH_POINT("limits.hit.taken");
        return Status::ok();
      }
    }
    const Held held(*this, shard, me);
    if (!held) return Held::timeout();
    if (shard.inserts.load(std::memory_order_relaxed) != inserts) slot = find(shard, tag);
    if (slot != nullptr && slot->tag.load(std::memory_order_relaxed) != tag) slot = nullptr;
    if (slot != nullptr && slot->state.load(std::memory_order_relaxed) != 0) continue;
    if (slot == nullptr) {
      const Result<Slot*> given = give_slot(shard, tag, now, {}, me);
      if (!given) return given.status();
      slot = given.value();
    }
    *verdict = decide(rate, 0, now, cost);
    slot->state.store(verdict->word, std::memory_order_release);  // pairs with the load above
    CELERIAC_CRASH_POINT("limits.hit.first");
    return Status::ok();
  }
}

Status Limits::change_one(const LimitPlan& plan, std::uint64_t hash, std::uint64_t now,
                          std::uint64_t give_back) {
  const Rate& rate = plan.parts[0].rate;
  const std::uint64_t tag = tag_of(hash, plan.parts[0]);
  Slot* slot = find(shard_of(hash), tag);
  while (slot != nullptr) {
    std::uint64_t state = slot->state.load(std::memory_order_acquire);  // as in hit_one()
    if (state == 0 || slot->tag.load(std::memory_order_relaxed) != tag) break;
    const std::uint64_t word =
        give_back == kReset ? fresh(rate, now) : refunded(rate, state, now, give_back);
    if (slot->state.compare_exchange_strong(state, word, std::memory_order_relaxed)) {
      CELERIAC_CRASH_POINT("limits.refund.given");
      break;
    }
  }
  return Status::ok();
}

// ------------------------------------------------------------------------------ several rates

Result<LimitVerdict> Limits::all(const LimitPlan& plan, std::uint64_t hash, std::uint64_t cost,
                                 bool take, std::uint64_t now, OwnerTag me) {
  Shard& shard = shard_of(hash);
  const Held held(*this, shard, me);
  if (!held) return Held::timeout();
  Changes changes;
  LimitVerdict found;
  bool allowed = true;
  for (std::size_t i = 0; i < plan.parts.size(); ++i) {
    const Rate& rate = plan.parts[i].rate;
    Slot* slot = find(shard, tag_of(hash, plan.parts[i]));
    const std::uint64_t state = slot == nullptr ? 0 : slot->state.load(std::memory_order_relaxed);
    Verdict v = decide(rate, state, now, cost);
    changes[i] = {slot, v.word};
    if (take && !v.allowed && state != v.word)
      slot->state.store(v.word, std::memory_order_relaxed);  // R3
    allowed = allowed && v.allowed;
    if (!take) {
      const Verdict now_there = decide(rate, state, now, 0);
      v.remaining = now_there.remaining;
      v.reset_ns = now_there.reset_ns;
    }
    const Verdict& worst = found.verdict;
    const bool worse =
        v.retry_ns != worst.retry_ns ? v.retry_ns > worst.retry_ns : v.remaining < worst.remaining;
    if (i == 0 || worse) found = {v, i};
  }
  if (!allowed || !take) return found;
  for (std::size_t i = 0; i < plan.parts.size(); ++i) {
    if (changes[i].slot != nullptr) continue;
    const Result<Slot*> given = give_slot(shard, tag_of(hash, plan.parts[i]), now, changes, me);
    if (!given) return given.status();
    changes[i].slot = given.value();
  }
  change_together(shard, changes, plan.parts.size());
  return found;
}

Status Limits::change_all(const LimitPlan& plan, std::uint64_t hash, std::uint64_t now,
                          std::uint64_t give_back, OwnerTag me) {
  Shard& shard = shard_of(hash);
  const Held held(*this, shard, me);
  if (!held) return Held::timeout();
  Changes changes;
  std::size_t n = 0;
  for (const LimitPlan::Part& part : plan.parts) {
    Slot* slot = find(shard, tag_of(hash, part));
    const std::uint64_t state = slot == nullptr ? 0 : slot->state.load(std::memory_order_relaxed);
    if (state == 0) continue;
    changes[n++] = {slot, give_back == kReset ? fresh(part.rate, now)
                                              : refunded(part.rate, state, now, give_back)};
  }
  change_together(shard, changes, n);
  return Status::ok();
}

void Limits::change_together(Shard& shard, const Changes& changes, std::size_t n) {
  const char* base = base_.arena.fixed<char>(0);
  for (std::size_t i = 0; i < n; ++i) {
    const auto place = reinterpret_cast<const char*>(changes[i].slot) - base;
    shard.places[i].store(static_cast<std::uint64_t>(place), std::memory_order_relaxed);
    shard.before[i].store(changes[i].slot->state.load(std::memory_order_relaxed),
                          std::memory_order_relaxed);
  }
  // The releases keep the order for who comes after a death: settle() has the mutex by then.
  shard.changing.store(n, std::memory_order_release);
  CELERIAC_CRASH_POINT("limits.together.noted");
  for (std::size_t i = 0; i < n; ++i) {
    changes[i].slot->state.store(changes[i].word, std::memory_order_release);
    CELERIAC_CRASH_POINT("limits.together.half");
  }
  shard.changing.store(0, std::memory_order_release);
  CELERIAC_CRASH_POINT("limits.together.whole");
}

// ------------------------------------------------------------------------------------- calls

Result<LimitVerdict> Limits::hit(const LimitPlan& plan, std::string_view key, std::uint64_t cost,
                                 std::uint64_t now, OwnerTag me) {
  Status good = check_cost(plan, cost);
  if (!good) return good;
  const std::uint64_t hash = hash_key(key, plan.seed);
  if (plan.parts.size() > 1) return all(plan, hash, cost, true, now, me);
  LimitVerdict found;
  Status done = hit_one(plan, hash, cost, now, me, &found.verdict);
  if (!done) return done;
  return found;
}

Result<LimitVerdict> Limits::peek(const LimitPlan& plan, std::string_view key, std::uint64_t cost,
                                  std::uint64_t now, OwnerTag me) {
  Status good = check_cost(plan, cost);
  if (!good) return good;
  const std::uint64_t hash = hash_key(key, plan.seed);
  if (plan.parts.size() > 1) return all(plan, hash, cost, false, now, me);
  const std::uint64_t tag = tag_of(hash, plan.parts[0]);
  const Slot* slot = find(shard_of(hash), tag);
  std::uint64_t state = slot == nullptr ? 0 : slot->state.load(std::memory_order_acquire);
  if (slot != nullptr && slot->tag.load(std::memory_order_relaxed) != tag) state = 0;
  const Rate& rate = plan.parts[0].rate;
  Verdict v = decide(rate, state, now, cost);
  const Verdict there = decide(rate, state, now, 0);
  v.remaining = there.remaining;
  v.reset_ns = there.reset_ns;
  return LimitVerdict{v, 0};
}

Status Limits::refund(const LimitPlan& plan, std::string_view key, std::uint64_t cost,
                      std::uint64_t now, OwnerTag me) {
  Status good = check_cost(plan, cost);
  if (!good) return good;
  const std::uint64_t hash = hash_key(key, plan.seed);
  return plan.parts.size() > 1 ? change_all(plan, hash, now, cost, me)
                               : change_one(plan, hash, now, cost);
}

Status Limits::reset(const LimitPlan& plan, std::string_view key, std::uint64_t now, OwnerTag me) {
  const std::uint64_t hash = hash_key(key, plan.seed);
  return plan.parts.size() > 1 ? change_all(plan, hash, now, kReset, me)
                               : change_one(plan, hash, now, kReset);
}

}  // namespace celeriac
