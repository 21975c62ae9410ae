// Rates: what one rate allows, as arithmetic on one word and the time. No memory, clock or lock.
//
// A word says all about one key under one rate. 0 is a key that was never seen; the two low bits of
// any other name its form. Moments are those of now_ns().
//
//   kGcra     {moment in quarters of a ns:62 | 1}. The theoretical arrival time (TAT) of the
//             generic cell rate algorithm (ITU-T I.371, annex A; redis-cell; nginx keeps the same
//             quantity as `excess`). Seen from the other side it is a token bucket: the moment at
//             which the bucket will be full again. So `token_bucket` is this form too.
//               interval = period / count; a hit of cost c moves TAT to
//               max(TAT, now) + c * interval and is allowed if that is at most
//               now + burst * interval.
//   kSliding  {number of the window | used in the one before | used in it | 2}. Windows of the
//             period are aligned to the clock; what the one before used counts by the share of it
//             that a period ending now still covers (Cloudflare's sliding window counter). The
//             widths of the three depend on the period alone.
//   kFixed    {end of the window in 2^17 ns:41 | used:21 | 3}. A window begins with the first hit
//             after the last one ended, as a counter with an expiry does in Redis.
//
// Invariants
//   R1  decide() changes a word only if the hit is allowed, but for R3: a refusal costs nothing.
//   R2  Rounding never allows more than GCRA or a sliding window would: `interval` is rounded up to
//       a quarter of a ns and the bucket is `burst` of them, so that exactly `burst` pass at once
//       and the rate is never exceeded. A fixed window ends up to 0.13 ms early.
//   R3  A word that can't be of this clock (it went back) or of this burst (it was lowered) is read
//       as the fullest one that can, and decide() gives that to be stored even if it refuses. So
//       nobody is blocked longer than a whole bucket or a window takes.
//   R4  A word that is idle() is as good as 0 for every rate, whatever its period: the key can be
//       forgotten.
#pragma once

#include <cstdint>
#include <string>

#include "platform/clock.hpp"
#include "platform/status.hpp"

namespace celeriac {

enum class RateForm : std::uint8_t { kGcra = 1, kSliding = 2, kFixed = 3 };

struct Rate {
  RateForm form = RateForm::kGcra;
  std::uint64_t count = 1;
  std::uint64_t period_ns = kSecond;
  std::uint64_t burst = 1;  // kGcra: the bucket; of windows it is the count

  // The most that can be taken at once.
  std::uint64_t most() const { return form == RateForm::kGcra ? burst : count; }
};

// What a hit meets, or would meet.
struct Verdict {
  bool allowed = false;
  std::uint64_t word = 0;       // to be stored: R1, R3
  std::uint64_t remaining = 0;  // units that could be taken at once, then
  std::uint64_t retry_ns = 0;   // until it would be allowed; 0 = it is
  std::uint64_t reset_ns = 0;   // until the key is as if it had never been seen
};

// kConfiguration with what is wrong: a count or burst of zero, or more than a word can hold.
Status check_rate(const Rate& rate);

// The verdict on a hit of `cost`. REQUIRES: a checked rate, cost <= rate.most(); a cost of zero is
// allowed always and shows how the key stands.
Verdict decide(const Rate& rate, std::uint64_t word, std::uint64_t now, std::uint64_t cost);
// The word after `cost` was given back; never less than fresh.
std::uint64_t refunded(const Rate& rate, std::uint64_t word, std::uint64_t now, std::uint64_t cost);
// A word as good as 0, and unlike any word that the key had before.
std::uint64_t fresh(const Rate& rate, std::uint64_t now);
// `period_ns`: of the rate that the word belongs to; only kSliding asks.
bool idle(std::uint64_t word, std::uint64_t period_ns, std::uint64_t now);

// Bits of each of the two counts of a sliding window.
unsigned sliding_bits(std::uint64_t period_ns);

}  // namespace celeriac
