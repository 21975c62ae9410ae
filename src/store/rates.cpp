#include "store/rates.hpp"

#include <algorithm>
#include <bit>

namespace celeriac {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kQuarters = 4;               // of a ns
constexpr std::uint64_t kMostFilling = 1ULL << 58U;  // quarters: 2.3 years
constexpr std::uint64_t kTick = 1U << 17U;           // ns, of the ends of fixed windows
constexpr unsigned kFixedBits = 21;
constexpr std::uint64_t kFixedMost = (1U << kFixedBits) - 1;
constexpr std::uint64_t kUptime = 315'360'000 * kSecond;  // ten years: window numbers don't repeat

constexpr unsigned form_of(std::uint64_t word) { return static_cast<unsigned>(word & 3U); }
constexpr std::uint64_t packed(std::uint64_t value, RateForm form) {
  return value << 2U | static_cast<std::uint64_t>(form);
}
// A word of another form is damaged, and as good as none.
constexpr bool has_form(std::uint64_t word, RateForm form) {
  return form_of(word) == static_cast<unsigned>(form);
}

std::uint64_t ceil_div(Wide a, std::uint64_t b) {
  return static_cast<std::uint64_t>((a + b - 1) / b);
}

// ------------------------------------------------------------------------------------- GCRA

std::uint64_t interval(const Rate& r) { return ceil_div(Wide{r.period_ns} * kQuarters, r.count); }

struct Bucket {
  std::uint64_t interval, depth, now, tat;
  Bucket(const Rate& r, std::uint64_t word, std::uint64_t now_ns)
      : interval(celeriac::interval(r)), depth(interval * r.burst), now(now_ns * kQuarters) {
    const std::uint64_t stored = has_form(word, RateForm::kGcra) ? word >> 2U : 0;
    tat = std::clamp(stored, now, now + depth);  // R3
  }
};

Verdict decide_gcra(const Rate& r, std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  const Bucket b(r, word, now);
  const std::uint64_t next = b.tat + cost * b.interval;
  const std::uint64_t latest = b.now + b.depth;
  Verdict v;
  v.allowed = next <= latest;
  const std::uint64_t tat = v.allowed ? next : b.tat;
  v.word = !v.allowed && word >> 2U <= latest ? word : packed(tat, RateForm::kGcra);
  v.remaining = (latest - tat) / b.interval;
  v.reset_ns = ceil_div(tat - b.now, kQuarters);
  if (!v.allowed) v.retry_ns = ceil_div(next - latest, kQuarters);
  return v;
}

// ---------------------------------------------------------------------------- sliding window

struct Windows {
  unsigned bits;
  std::uint64_t period, number, elapsed, before = 0, used = 0;
  bool strange = false;  // R3

  Windows(const Rate& r, std::uint64_t word, std::uint64_t now)
      : bits(sliding_bits(r.period_ns)),
        period(r.period_ns),
        number(now / period),
        elapsed(now % period) {
    if (!has_form(word, RateForm::kSliding)) return;
    const std::uint64_t mask = (1ULL << bits) - 1;
    const std::uint64_t stored = word >> (2 * bits + 2);
    before = std::min(word >> (bits + 2) & mask, r.count);
    used = std::min(word >> 2U & mask, r.count);
    strange = stored > number;
    if (stored + 1 == number) {
      before = used;
      used = 0;
    } else if (stored < number) {
      before = used = 0;
    }
  }
  std::uint64_t word() const {
    return packed(number << 2U * bits | before << bits | used, RateForm::kSliding);
  }
  // Of `weight` hits in the window before, how many count, `at` ns into this one; rounded up.
  std::uint64_t covered() const { return ceil_div(Wide{before} * (period - elapsed), period); }
};

// When `hits` of the window before count for no more than `room`, in ns from the window's begin.
std::uint64_t faded(std::uint64_t hits, std::uint64_t room, std::uint64_t period) {
  if (hits <= room) return 0;
  return period - static_cast<std::uint64_t>(Wide{room} * period / hits);
}

Verdict decide_sliding(const Rate& r, std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  Windows w(r, word, now);
  Verdict v;
  v.allowed = w.covered() + w.used + cost <= r.count || cost == 0;
  v.word = word;
  if (v.allowed) w.used += cost;
  if (v.allowed || w.strange) v.word = w.word();
  v.remaining = r.count - std::min(r.count, w.covered() + w.used);
  const std::uint64_t left = w.period - w.elapsed;
  v.reset_ns = w.used > 0 ? left + w.period : w.before > 0 ? left : 0;
  if (v.allowed) return v;
  if (w.used + cost <= r.count) {
    v.retry_ns = faded(w.before, r.count - w.used - cost, w.period) - w.elapsed;
  } else {
    v.retry_ns = left + faded(w.used, r.count - cost, w.period);
  }
  return v;
}

// ------------------------------------------------------------------------------ fixed window

struct Window {
  std::uint64_t end, used;  // ticks
  bool strange = false;     // R3

  Window(const Rate& r, std::uint64_t word, std::uint64_t now) {
    const std::uint64_t latest = (now + r.period_ns) / kTick;
    const bool there = has_form(word, RateForm::kFixed);
    end = there ? word >> (kFixedBits + 2) : 0;
    used = there ? std::min(word >> 2U & kFixedMost, r.count) : 0;
    strange = end > latest;
    if (end * kTick <= now) used = 0;
    if (used == 0 || strange) end = latest;
  }
  std::uint64_t word() const { return packed(end << kFixedBits | used, RateForm::kFixed); }
};

Verdict decide_fixed(const Rate& r, std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  Window w(r, word, now);
  Verdict v;
  v.allowed = w.used + cost <= r.count;
  v.word = word;
  if (v.allowed) w.used += cost;
  if (v.allowed || w.strange) v.word = w.word();
  v.remaining = r.count - w.used;
  v.reset_ns = w.used > 0 ? w.end * kTick - now : 0;
  if (!v.allowed) v.retry_ns = v.reset_ns;
  return v;
}

Status wrong(const std::string& what) { return {Code::kConfiguration, what}; }

}  // namespace

unsigned sliding_bits(std::uint64_t period_ns) {
  const unsigned numbers = static_cast<unsigned>(std::bit_width(kUptime / period_ns));
  return (62 - numbers) / 2;
}

Status check_rate(const Rate& r) {
  if (r.count == 0 || r.burst == 0) return wrong("a rate and its burst are at least 1");
  if (r.period_ns < kMillisecond || r.period_ns > kUptime / 10) {
    return wrong("a rate's period is from a millisecond to a year");
  }
  if (r.form == RateForm::kGcra) {
    if (r.count > r.period_ns) return wrong("a rate is at most 1,000,000,000 a second");
    if (Wide{interval(r)} * r.burst > kMostFilling) {
      return wrong("a bucket of burst=" + std::to_string(r.burst) +
                   " takes more than two years to fill at this rate: lower the burst");
    }
    return Status::ok();
  }
  const std::uint64_t most =
      r.form == RateForm::kFixed ? kFixedMost : (1ULL << sliding_bits(r.period_ns)) - 1;
  if (r.count > most) {
    return wrong("a window of this period counts to " + std::to_string(most) +
                 " at most: use algorithm=\"gcra\" for larger counts");
  }
  return Status::ok();
}

Verdict decide(const Rate& r, std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  switch (r.form) {
    case RateForm::kSliding:
      return decide_sliding(r, word, now, cost);
    case RateForm::kFixed:
      return decide_fixed(r, word, now, cost);
    case RateForm::kGcra:
      break;
  }
  return decide_gcra(r, word, now, cost);
}

std::uint64_t refunded(const Rate& r, std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  if (r.form == RateForm::kGcra) {
    const Bucket b(r, word, now);
    const std::uint64_t back = std::min(cost, r.burst) * b.interval;
    return packed(b.tat - std::min(b.tat - b.now, back), r.form);
  }
  if (r.form == RateForm::kFixed) {
    Window w(r, word, now);
    w.used -= std::min(w.used, cost);
    return w.word();
  }
  Windows w(r, word, now);
  const std::uint64_t recent = std::min(w.used, cost);
  w.used -= recent;
  w.before -= std::min(w.before, cost - recent);
  return w.word();
}

std::uint64_t fresh(const Rate& r, std::uint64_t now) { return refunded(r, 0, now, 0); }

bool idle(std::uint64_t word, std::uint64_t period_ns, std::uint64_t now) {
  switch (form_of(word)) {
    case static_cast<unsigned>(RateForm::kGcra): {
      const std::uint64_t tat = word >> 2U;
      return tat <= now * kQuarters || tat > now * kQuarters + kMostFilling;
    }
    case static_cast<unsigned>(RateForm::kFixed):
      return (word >> 2U & kFixedMost) == 0 || (word >> (kFixedBits + 2)) * kTick <= now;
    case static_cast<unsigned>(RateForm::kSliding): {
      if (period_ns == 0) return true;
      const unsigned bits = sliding_bits(period_ns);
      const std::uint64_t number = word >> (2 * bits + 2);
      const std::uint64_t counts = word >> 2U & ((1ULL << 2 * bits) - 1);
      return counts == 0 || number + 1 < now / period_ns ||
             (number + 1 == now / period_ns && (counts & ((1ULL << bits) - 1)) == 0);
    }
    default:
      return true;
  }
}

}  // namespace celeriac
