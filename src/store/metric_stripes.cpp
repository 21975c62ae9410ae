// Values of processes: stripes, what becomes of those of the dead, and reading.
#include <algorithm>
#include <map>
#include <new>
#include <set>

#include "arena/crash_point.hpp"
#include "store/metrics.hpp"

namespace celeriac {
namespace {

constexpr std::uint32_t kCells = layout::kMetricCellsPerChunk;
constexpr std::uint64_t kPatience = 200 * kMillisecond;
constexpr std::uint64_t kPair = 1ULL << 63U;

// Takes `value` into `to`, of the same cell. `with_time`: {value, time}.
void join(MetricMode mode, std::uint64_t* to, const std::uint64_t* value) {
  if (value[0] == 0) return;
  const double a = cell_value(to[0]);
  const double b = cell_value(value[0]);
  if (most_recent(mode)) {
    if (to[0] != 0 && cell_value(to[1]) >= cell_value(value[1])) return;
    to[0] = value[0];
    to[1] = value[1];
  } else if (mode == MetricMode::kMin || mode == MetricMode::kLiveMin) {
    if (to[0] == 0 || b < a) to[0] = value[0];
  } else if (mode == MetricMode::kMax || mode == MetricMode::kLiveMax) {
    if (to[0] == 0 || b > a) to[0] = value[0];
  } else {
    to[0] = to[0] == 0 ? value[0] : cell_word(a + b);
  }
}

std::uint32_t step(MetricMode mode) { return most_recent(mode) ? 2 : 1; }

}  // namespace

Metrics::Stripe* Metrics::stripe(std::uint32_t index) {
  if (index >= layout::kMetricStripes) return nullptr;
  // acquire pairs with the release in link(): its chunks are none, or what became of them
  const std::uint64_t block = directory_.stripe_blocks[index].load(std::memory_order_acquire);
  return block == 0 ? nullptr : base_.arena.at<Stripe>(aligned_object(block));
}

layout::Word* Metrics::cell(Stripe& stripe, std::uint32_t number) {
  if (number >= layout::kMetricCellChunks * kCells) return nullptr;
  // acquire pairs with the release in link(): its cells are empty, or what became of them
  const std::uint64_t block = stripe.chunks[number / kCells].load(std::memory_order_acquire);
  if (block == 0) return nullptr;
  auto* all = base_.arena.at<layout::Word>(aligned_object(block), kCells * sizeof(layout::Word));
  return all == nullptr ? nullptr : all + number % kCells;
}

Metrics::Stripe* Metrics::new_stripe(std::uint32_t index, OwnerTag me) {
  Result<std::uint64_t> made = block(sizeof(Stripe), me);
  if (!made) return nullptr;
  auto* s = base_.arena.at<Stripe>(aligned_object(made.value()));
  if (s == nullptr) return nullptr;
  new (s) Stripe{};
  link(directory_.stripe_blocks[index], made.value(), me);
  directory_.stripes.store(index + 1, std::memory_order_release);
  return s;
}

layout::MetricStripe* Metrics::own_stripe(OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kPatience));
  if (!guard.held()) return nullptr;
  if (guard.recovered()) settle(me);
  if (stripe(0) == nullptr && new_stripe(0, me) == nullptr) return nullptr;
  fold_dead();
  Stripe* free = nullptr;
  std::uint32_t index = 1;
  for (; index < layout::kMetricStripes; ++index) {
    Stripe* s = stripe(index);
    if (s == nullptr) break;
    const TaggedWord w = load(s->word);
    if (w.state() == kUsed && w.owner() == me) return s;
    if (w.state() == kVacant && free == nullptr) free = s;
  }
  if (free == nullptr && index < layout::kMetricStripes) free = new_stripe(index, me);
  if (free == nullptr) return nullptr;
  const TaggedWord w = load(free->word);
  // release: who sees the stripe used sees that it was emptied
  free->word.store(TaggedWord::make(kUsed, me, w.generation() + 1).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("metrics.stripe.used");
  return free;
}

bool Metrics::add_chunk(Stripe& stripe, std::uint32_t chunk, OwnerTag me) {
  if (stripe.chunks[chunk].load(std::memory_order_relaxed) != 0) return true;
  constexpr std::uint64_t kBytes = kCells * sizeof(layout::Word);
  Result<std::uint64_t> made = block(kBytes, me);
  if (!made) return false;
  auto* words = base_.arena.at<layout::Word>(aligned_object(made.value()), kBytes);
  if (words == nullptr) return false;
  for (std::uint32_t i = 0; i < kCells; ++i) new (words + i) layout::Word(0);
  link(stripe.chunks[chunk], made.value(), me);
  return true;
}

layout::Word* Metrics::cells(const MetricSeriesRef& ref, Stripe& stripe, OwnerTag me) {
  const std::uint32_t first = ref.slot->first.load(std::memory_order_relaxed);
  layout::Word* there = cell(stripe, first);
  if (there != nullptr) return there;
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kPatience));
  if (!guard.held()) return nullptr;
  if (guard.recovered()) settle(me);
  Stripe* dead = this->stripe(0);
  // E2: the accumulator's first
  if (dead == nullptr || !add_chunk(*dead, first / kCells, me)) return nullptr;
  CELERIAC_CRASH_POINT("metrics.chunk.dead");
  if (!add_chunk(stripe, first / kCells, me)) return nullptr;
  return cell(stripe, first);
}

// REQUIRES the mutex. Crash-safe: cell by cell.
void Metrics::empty_cells(std::uint32_t first, std::uint32_t cells) {
  for (std::uint32_t i = 0; i < stripes(); ++i) {
    Stripe* s = stripe(i);
    layout::Word* at = s == nullptr ? nullptr : cell(*s, first);
    for (std::uint32_t n = 0; at != nullptr && n < cells; ++n) {
      at[n].store(0, std::memory_order_relaxed);
      CELERIAC_CRASH_POINT("metrics.empty.half");
    }
  }
}

// -------------------------------------------------------------------------------------- folding

// Series, in the order of their cells; of one family, or with 0 of all.
std::vector<Metrics::Run> Metrics::runs(std::uint64_t only) {
  std::vector<Run> all;
  std::map<std::uint64_t, MetricFamilySpec> known;
  for (std::uint32_t i = 0; i < slots(); ++i) {
    Slot* s = slot(i);
    if (s == nullptr || load(s->word).state() != kUsed) continue;
    const std::uint64_t family = s->family.load(std::memory_order_relaxed);
    if (only != 0 && family != only) continue;
    const auto [at, fresh] = known.try_emplace(family);
    if (fresh) {
      std::string text;
      if (Family* f = family_at(family); f != nullptr) at->second = spec_of(*f, &text);
    }
    Run run{s, family, s->first.load(std::memory_order_relaxed),
            s->cells.load(std::memory_order_relaxed), at->second.mode};
    // A damaged slot has no cells of others.
    if (run.cells == at->second.cells() && run.first % kCells + run.cells <= kCells) {
      all.push_back(run);
    }
  }
  return all;
}

// Stores what `moving` says. Idempotent.
void Metrics::finish_move() {
  const std::uint64_t moving = directory_.moving.load(std::memory_order_acquire);
  if (moving == 0) return;
  Stripe* dead = stripe(0);
  Stripe* from = stripe(static_cast<std::uint32_t>((moving & ~kPair) >> 32U));
  const std::uint32_t number = static_cast<std::uint32_t>(moving) - 1;
  layout::Word* to = dead == nullptr ? nullptr : cell(*dead, number);
  layout::Word* left = from == nullptr ? nullptr : cell(*from, number);
  const bool pair = (moving & kPair) != 0 && number % kCells + 1 < kCells;
  if (to != nullptr && left != nullptr) {
    to[0].store(directory_.moved.load(std::memory_order_relaxed), std::memory_order_relaxed);
    if (pair) {
      to[1].store(directory_.moved_time.load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
    CELERIAC_CRASH_POINT("metrics.fold.half");
    left[0].store(0, std::memory_order_relaxed);
    if (pair) left[1].store(0, std::memory_order_relaxed);
  }
  // release: a successor that finds 0 finds both
  directory_.moving.store(0, std::memory_order_release);
  CELERIAC_CRASH_POINT("metrics.fold.moved");
}

// REQUIRES the mutex; E3. Crash-safe: cell by cell, each once.
void Metrics::fold(Stripe& from, std::uint32_t index, const std::vector<Run>& runs) {
  Stripe* dead = stripe(0);
  if (dead == nullptr) return;
  for (const Run& run : runs) {
    layout::Word* left = cell(from, run.first);
    layout::Word* to = cell(*dead, run.first);
    if (left == nullptr || to == nullptr) continue;
    const std::uint32_t n = step(run.mode);
    for (std::uint32_t i = 0; i + n <= run.cells; i += n) {
      std::uint64_t value[2]{};
      std::uint64_t sum[2]{};
      for (std::uint32_t k = 0; k < n; ++k) {
        value[k] = left[i + k].load(std::memory_order_relaxed);
        sum[k] = to[i + k].load(std::memory_order_relaxed);
      }
      if (value[0] == 0) continue;
      if (outlives(run.mode)) join(run.mode, sum, value);
      directory_.moved.store(sum[0], std::memory_order_relaxed);
      directory_.moved_time.store(sum[1], std::memory_order_relaxed);
      CELERIAC_CRASH_POINT("metrics.fold.noted");
      // release pairs with the acquire in finish_move(), for who comes after a death
      directory_.moving.store(
          (n == 2 ? kPair : 0) | static_cast<std::uint64_t>(index) << 32U | (run.first + i + 1),
          std::memory_order_release);
      finish_move();
    }
  }
  const TaggedWord w = load(from.word);
  from.word.store(TaggedWord::make(kVacant, {}, w.generation()).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("metrics.fold.vacant");
}

void Metrics::fold_dead() {
  std::vector<Run> all;
  bool asked = false;
  for (std::uint32_t i = 1; i < stripes(); ++i) {
    Stripe* s = stripe(i);
    if (s == nullptr) continue;
    const TaggedWord w = load(s->word);
    if (w.state() != kUsed || base_.owners.alive(w.owner())) continue;
    if (!asked) all = runs(0);
    asked = true;
    fold(*s, i, all);
  }
}

void Metrics::repair(const DeadOwners& dead) {
  const OwnerTag me = base_.owners.current();
  if (!me.valid() || dead.contains(me)) return;  // E3
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.try_lock(me));
  if (!guard.held()) return;
  if (guard.recovered()) settle(me);
  fold_dead();
}

// -------------------------------------------------------------------------------------- reading

std::vector<std::vector<MetricSample>> Metrics::gather(const std::vector<Run>& runs) {
  std::size_t cells = 0;
  for (const Run& r : runs) cells += r.cells;
  std::vector<std::uint64_t> sums(cells, 0);
  std::vector<std::vector<MetricSample>> found(runs.size());
  std::set<std::uint32_t> pids;
  for (std::uint32_t i = 0; i < stripes(); ++i) {
    Stripe* s = stripe(i);
    if (s == nullptr) continue;
    const TaggedWord w = load(s->word);
    if (i != 0 && w.state() != kUsed) continue;
    const bool lives = i != 0 && base_.owners.alive(w.owner());
    std::string process;
    if (lives) {
      const std::uint32_t pid = base_.owners.record(w.owner().slot).pid;
      // Of processes with equal numbers, in two containers, the later one's has its place too.
      process = std::to_string(pid);
      if (!pids.insert(pid).second) process += "-" + std::to_string(w.owner().slot);
    }
    std::size_t at = 0;
    for (std::size_t n = 0; n < runs.size(); at += runs[n++].cells) {
      const Run& run = runs[n];
      layout::Word* from = cell(*s, run.first);
      if (from == nullptr || (!lives && !outlives(run.mode))) continue;
      if (by_process(run.mode)) {
        const std::uint64_t word = from[0].load(std::memory_order_relaxed);
        if (word != 0) found[n].push_back({{}, process, 0, {cell_value(word)}});
        continue;
      }
      const std::uint32_t width = step(run.mode);
      for (std::uint32_t c = 0; c + width <= run.cells; c += width) {
        std::uint64_t value[2]{};
        // acquire: set_recent()
        if (width == 2) value[1] = from[c + 1].load(std::memory_order_acquire);
        value[0] = from[c].load(std::memory_order_relaxed);
        join(run.mode, &sums[at + c], value);
      }
    }
  }
  std::size_t at = 0;
  for (std::size_t n = 0; n < runs.size(); at += runs[n++].cells) {
    const Run& run = runs[n];
    if (by_process(run.mode)) continue;
    MetricSample sample;
    const std::uint32_t values = most_recent(run.mode) ? 1 : run.cells;
    for (std::uint32_t c = 0; c < values; ++c) sample.values.push_back(cell_value(sums[at + c]));
    found[n].push_back(std::move(sample));
  }
  return found;
}

Result<std::vector<MetricSample>> Metrics::read(const MetricFamilyRef& family,
                                                const MetricSeriesRef& ref, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of metrics");
  if (guard.recovered()) settle(me);
  std::string text;
  const MetricFamilySpec spec = spec_of(*family.record, &text);
  if (!current(ref)) return std::vector<MetricSample>{};
  const Run run{ref.slot, family.block, ref.slot->first.load(std::memory_order_relaxed),
                spec.cells(), spec.mode};
  return std::move(gather({run})[0]);
}

Result<std::vector<MetricFamilyView>> Metrics::collect(const MetricFamilyRef* only, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of metrics");
  if (guard.recovered()) settle(me);
  fold_dead();
  const std::vector<Run> all = runs(only == nullptr ? 0 : only->block);
  std::vector<std::vector<MetricSample>> samples = gather(all);
  std::vector<MetricFamilyView> views;
  std::map<std::uint64_t, std::size_t> places;
  std::uint64_t at =
      only == nullptr ? directory_.families.load(std::memory_order_acquire) : only->block;
  for (Family* f = family_at(at); f != nullptr && views.size() < layout::kMetricFamilies;) {
    std::string text;
    const MetricFamilySpec spec = spec_of(*f, &text);
    places[at] = views.size();
    views.push_back({std::string(spec.name),
                     std::string(spec.scope),
                     std::string(spec.help),
                     spec.type,
                     spec.mode,
                     {spec.labels.begin(), spec.labels.end()},
                     spec.bounds,
                     {}});
    at = only != nullptr ? 0 : f->next.load(std::memory_order_relaxed);
    f = family_at(at);
  }
  for (std::size_t n = 0; n < all.size(); ++n) {
    const auto place = places.find(all[n].family);
    if (place == places.end()) continue;
    MetricFamilyView& view = views[place->second];
    std::vector<std::string> labels;
    const std::string_view packed = text_of(all[n].slot->text.load(std::memory_order_relaxed));
    if (!unpack_labels(packed, view.labels.size(), &labels)) continue;
    const double created =
        std::bit_cast<double>(all[n].slot->created.load(std::memory_order_relaxed));
    for (MetricSample& sample : samples[n]) {
      sample.labels = labels;
      sample.created = created;
      view.samples.push_back(std::move(sample));
    }
  }
  std::sort(views.begin(), views.end(), [](const MetricFamilyView& a, const MetricFamilyView& b) {
    return std::tie(a.name, a.scope) < std::tie(b.name, b.scope);
  });
  return views;
}

}  // namespace celeriac
