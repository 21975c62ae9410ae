// Families and series: names, and slots for label values. stripes: metric_stripes.cpp.
#include "store/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

// A process that is stopped in the mutex costs others no more than this for each new series.
constexpr std::uint64_t kSeriesPatience = 200 * kMillisecond;
constexpr std::uint32_t kPerChunk = layout::kMetricSlotsPerChunk;

Status check_spec(const MetricFamilySpec& spec) {
  const auto bad = [&](const std::string& what) {
    return Status(Code::kConfiguration, "metric \"" + std::string(spec.name) + "\": " + what);
  };
  if (spec.name.empty()) return {Code::kConfiguration, "a metric needs a name"};
  if (spec.labels.size() > 64) return bad("at most 64 labels");
  if (spec.cells() > layout::kMetricCellsPerChunk) {
    return bad("at most " + std::to_string(layout::kMetricCellsPerChunk - 1) + " buckets");
  }
  if (spec.type == MetricType::kHistogram) {
    if (spec.bounds.empty() || !std::isinf(spec.bounds.back()) || spec.bounds.back() < 0) {
      return bad("the last bucket's bound is infinity");
    }
    for (std::size_t i = 0; i < spec.bounds.size(); ++i) {
      if (std::isnan(spec.bounds[i]) || (i > 0 && spec.bounds[i] <= spec.bounds[i - 1])) {
        return bad("bounds of buckets must rise");
      }
    }
  } else if (!spec.bounds.empty()) {
    return bad("only histograms have buckets");
  }
  std::size_t text = spec.name.size() + spec.scope.size() + spec.help.size();
  for (const std::string_view l : spec.labels) text += l.size();
  if (text > Metrics::kMostText) return bad("its name, help and labels are longer than 64 KiB");
  return Status::ok();
}

std::uint64_t bits_of(double value) { return std::bit_cast<std::uint64_t>(value); }

}  // namespace

// ------------------------------------------------------------------------------------ families

// Bounds, then text. What is in it may be anything: only what fits is believed.
MetricFamilySpec Metrics::spec_of(Family& f, std::string* text) {
  MetricFamilySpec spec;
  spec.type = static_cast<MetricType>(f.type.load(std::memory_order_relaxed) % 4);
  spec.mode = static_cast<MetricMode>(f.mode.load(std::memory_order_relaxed) % kMetricModes);
  spec.created = std::bit_cast<double>(f.created.load(std::memory_order_relaxed));
  const std::uint64_t bounds = std::min<std::uint64_t>(f.bounds.load(std::memory_order_relaxed),
                                                       layout::kMetricCellsPerChunk);
  const std::uint64_t bytes =
      std::min<std::uint64_t>(f.text.load(std::memory_order_relaxed), 2 * kMostText);
  const std::uint64_t begin = static_cast<std::uint64_t>(
      reinterpret_cast<char*>(&f) - base_.arena.fixed<char>(0) + sizeof(Family));
  const char* rest = base_.arena.at<char>(begin, bounds * sizeof(double) + bytes);
  if (rest == nullptr) return spec;
  spec.bounds.resize(bounds);
  if (bounds != 0) std::memcpy(spec.bounds.data(), rest, bounds * sizeof(double));
  text->assign(rest + bounds * sizeof(double), bytes);
  std::string_view left = *text;
  const auto next = [&left] {
    std::uint32_t size = 0;
    if (left.size() < sizeof size) return std::string_view();
    std::memcpy(&size, left.data(), sizeof size);
    left.remove_prefix(sizeof size);
    const std::string_view found = left.substr(0, size);
    left.remove_prefix(found.size());
    return found;
  };
  spec.name = next();
  spec.scope = next();
  spec.help = next();
  const std::uint32_t labels = std::min(f.labels.load(std::memory_order_relaxed), 64U);
  for (std::uint32_t i = 0; i < labels; ++i) spec.labels.push_back(next());
  return spec;
}

Metrics::Family* Metrics::find_family(std::uint64_t hash, const MetricFamilySpec& spec,
                                      std::uint64_t* block) {
  *block = directory_.families.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < layout::kMetricFamilies; ++i) {
    Family* f = family_at(*block);
    if (f == nullptr) return nullptr;
    if (f->hash.load(std::memory_order_relaxed) == hash) {
      std::string text;
      const MetricFamilySpec there = spec_of(*f, &text);
      if (there.name == spec.name && there.scope == spec.scope) return f;
    }
    *block = f->next.load(std::memory_order_relaxed);
  }
  return nullptr;
}

Result<MetricFamilyRef> Metrics::family(const MetricFamilySpec& spec, OwnerTag me) {
  Status good = check_spec(spec);
  if (!good) return good;
  const std::string key = pack_labels({spec.name, spec.scope});
  const std::uint64_t hash = hash_of(0, key);
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of metrics");
  if (guard.recovered()) settle(me);
  std::uint64_t found = 0;
  if (Family* f = find_family(hash, spec, &found); f != nullptr) {
    std::string text;
    const MetricFamilySpec there = spec_of(*f, &text);
    const char* differs = there.type != spec.type       ? "another type"
                          : there.mode != spec.mode     ? "another mode"
                          : there.labels != spec.labels ? "other labels"
                          : there.bounds != spec.bounds ? "other buckets"
                                                        : nullptr;
    if (differs != nullptr) {
      return Status(Code::kConfiguration, "metric \"" + std::string(spec.name) +
                                              "\": there is one in "
                                              "the store with " +
                                              differs +
                                              "; declare it alike everywhere, or name it anew");
    }
    f->cap.store(spec.cap, std::memory_order_relaxed);
    return MetricFamilyRef{found, f};
  }
  const std::uint32_t count = directory_.family_count.load(std::memory_order_relaxed);
  if (count >= layout::kMetricFamilies) {
    return Status(Code::kNotEnoughMemory,
                  "the store has " + std::to_string(count) + " metrics and room for no more");
  }
  std::vector<std::string_view> words{spec.name, spec.scope, spec.help};
  words.insert(words.end(), spec.labels.begin(), spec.labels.end());
  const std::string text = pack_labels(words);
  const std::uint64_t bounds = spec.bounds.size() * sizeof(double);
  const std::uint64_t bytes = sizeof(Family) + bounds + text.size();
  Result<std::uint64_t> made = block(bytes, me);
  if (!made) return made.status();
  auto* f = base_.arena.at<Family>(aligned_object(made.value()), bytes);
  if (f == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
  f = new (f) Family{};
  char* rest = reinterpret_cast<char*>(f) + sizeof(Family);
  if (bounds != 0) std::memcpy(rest, spec.bounds.data(), bounds);
  std::copy(text.begin(), text.end(), rest + bounds);
  const auto set = [](layout::HalfWord& to, std::uint64_t value) {
    to.store(static_cast<std::uint32_t>(value), std::memory_order_relaxed);
  };
  set(f->type, static_cast<std::uint32_t>(spec.type));
  set(f->mode, static_cast<std::uint32_t>(spec.mode));
  set(f->labels, spec.labels.size());
  set(f->bounds, spec.bounds.size());
  set(f->cap, spec.cap);
  set(f->text, text.size());
  f->hash.store(hash, std::memory_order_relaxed);
  f->created.store(bits_of(spec.created), std::memory_order_relaxed);
  f->next.store(directory_.families.load(std::memory_order_relaxed), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("metrics.family.written");
  link(directory_.families, made.value(), me);
  directory_.family_count.store(count + 1, std::memory_order_relaxed);
  return MetricFamilyRef{made.value(), f};
}

// -------------------------------------------------------------------------------------- slots

Metrics::Slot* Metrics::slot(std::uint32_t index) {
  if (index >= layout::kMetricSlotChunks * kPerChunk) return nullptr;
  // acquire pairs with the release in link(): its slots are zero, or what became of them
  const std::uint64_t chunk =
      directory_.slot_chunks[index / kPerChunk].load(std::memory_order_acquire);
  if (chunk == 0) return nullptr;
  auto* all = base_.arena.at<Slot>(aligned_object(chunk), kPerChunk * sizeof(Slot));
  return all == nullptr ? nullptr : all + index % kPerChunk;
}

std::string_view Metrics::text_of(std::uint64_t block) {
  if (block == 0) return {};
  auto* size = base_.arena.at<std::uint32_t>(aligned_object(block));
  if (size == nullptr) return {};
  const std::uint32_t bytes = *size;
  const char* text = base_.arena.at<char>(aligned_object(block) + sizeof bytes, bytes);
  return text == nullptr ? std::string_view() : std::string_view(text, bytes);
}

Metrics::Slot* Metrics::find(std::uint64_t family, std::string_view labels, std::uint64_t hash) {
  std::uint32_t next =
      directory_.heads[hash % layout::kMetricHeads].load(std::memory_order_relaxed);
  for (std::uint32_t looks = slots(); next != 0 && looks > 0; --looks) {
    Slot* s = slot(next - 1);
    if (s == nullptr) return nullptr;
    if (s->hash.load(std::memory_order_relaxed) == hash && load(s->word).state() == kUsed &&
        s->family.load(std::memory_order_relaxed) == family &&
        text_of(s->text.load(std::memory_order_relaxed)) == labels) {
      return s;
    }
    next = s->next.load(std::memory_order_relaxed);
  }
  return nullptr;
}

// One that nobody has had for a while, and as many cells as are needed.
Metrics::Slot* Metrics::vacant(std::uint32_t cells, std::uint32_t* index, OwnerTag me) {
  const std::uint64_t now = now_ns();
  Slot* oldest = nullptr;
  std::uint64_t since = kNever;
  for (std::uint32_t i = 0; directory_.vacant.load(std::memory_order_relaxed) != 0 && i < slots();
       ++i) {
    Slot* s = slot(i);
    if (s == nullptr || load(s->word).state() != kVacant ||
        s->cells.load(std::memory_order_relaxed) != cells) {
      continue;
    }
    const std::uint64_t left = s->created.load(std::memory_order_relaxed);
    if (left >= since || now - std::min(now, left) < kQuarantine) continue;  // E1
    oldest = s;
    since = left;
    *index = i;
  }
  return oldest != nullptr ? oldest : fresh(cells, index, me);
}

Metrics::Slot* Metrics::fresh(std::uint32_t cells, std::uint32_t* index, OwnerTag me) {
  *index = slots();
  if (*index >= layout::kMetricSlotChunks * kPerChunk) return nullptr;
  std::uint32_t first = directory_.cells.load(std::memory_order_relaxed);
  constexpr std::uint32_t kCells = layout::kMetricCellsPerChunk;
  if (first % kCells + cells > kCells) first = (first / kCells + 1) * kCells;
  if (first + cells > layout::kMetricCellChunks * kCells) return nullptr;
  Slot* s = slot(*index);
  if (s == nullptr) {
    Result<std::uint64_t> made = block(kPerChunk * sizeof(Slot), me);
    if (!made) return nullptr;
    auto* all = base_.arena.at<Slot>(aligned_object(made.value()), kPerChunk * sizeof(Slot));
    if (all == nullptr) return nullptr;
    for (std::uint32_t i = 0; i < kPerChunk; ++i) new (all + i) Slot{};
    link(directory_.slot_chunks[*index / kPerChunk], made.value(), me);
    s = all + *index % kPerChunk;
  }
  s->first.store(first, std::memory_order_relaxed);
  s->cells.store(cells, std::memory_order_relaxed);
  // A death between the two wastes the cells, and no more.
  directory_.cells.store(first + cells, std::memory_order_release);
  CELERIAC_CRASH_POINT("metrics.series.cells");
  directory_.slots.store(*index + 1, std::memory_order_release);
  directory_.vacant.fetch_add(1, std::memory_order_relaxed);
  return s;
}

bool Metrics::write_text(Slot& s, std::string_view labels, OwnerTag me) {
  if (const std::uint64_t old = s.text.load(std::memory_order_relaxed); old != 0) {
    directory_.mutex.pending[1].store(base_.heap.ticket(old), std::memory_order_release);
    s.text.store(0, std::memory_order_release);
    CELERIAC_CRASH_POINT("metrics.series.unlinked");
    base_.heap.release(old, me);
    directory_.mutex.pending[1].store(0, std::memory_order_release);
  }
  const auto size = static_cast<std::uint32_t>(labels.size());
  Result<std::uint64_t> made = block(sizeof size + size, me);
  if (!made) return false;
  char* text = base_.arena.at<char>(aligned_object(made.value()), sizeof size + size);
  if (text == nullptr) return false;
  std::memcpy(text, &size, sizeof size);
  std::memcpy(text + sizeof size, labels.data(), size);
  link(s.text, made.value(), me);
  return true;
}

void Metrics::drop(const MetricFamilyRef& family) {
  directory_.dropped.fetch_add(1, std::memory_order_relaxed);
  if (family.record != nullptr) family.record->dropped.fetch_add(1, std::memory_order_relaxed);
}

MetricSeriesRef Metrics::series(const MetricFamilyRef& family, std::string_view labels,
                                double created, OwnerTag me) {
  const std::uint64_t hash = hash_of(family.block, labels);
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kSeriesPatience));
  if (!guard.held()) return drop(family), MetricSeriesRef{};
  if (guard.recovered()) settle(me);
  if (Slot* s = find(family.block, labels, hash); s != nullptr) {
    return {s, s->word.load(std::memory_order_relaxed)};
  }
  Family& f = *family.record;
  std::string text;
  const std::uint32_t cells = spec_of(f, &text).cells();
  std::uint32_t index = 0;
  Slot* s = nullptr;
  if (f.series.load(std::memory_order_relaxed) < f.cap.load(std::memory_order_relaxed) &&
      labels.size() <= kMostText) {
    s = vacant(cells, &index, me);
  }
  if (s == nullptr || !write_text(*s, labels, me)) return drop(family), MetricSeriesRef{};
  empty_cells(s->first.load(std::memory_order_relaxed), cells);
  s->family.store(family.block, std::memory_order_relaxed);
  s->hash.store(hash, std::memory_order_relaxed);
  s->created.store(bits_of(created), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("metrics.series.written");
  const TaggedWord used = TaggedWord::make(kUsed, {}, load(s->word).generation() + 1);
  s->word.store(used.bits, std::memory_order_release);  // pairs with current()
  CELERIAC_CRASH_POINT("metrics.series.used");
  layout::HalfWord& head = directory_.heads[hash % layout::kMetricHeads];
  s->next.store(head.load(std::memory_order_relaxed), std::memory_order_relaxed);
  head.store(index + 1, std::memory_order_relaxed);
  f.series.fetch_add(1, std::memory_order_relaxed);
  directory_.vacant.fetch_sub(1, std::memory_order_relaxed);
  return {s, used.bits};
}

// E5: chains and counts from the slots.
void Metrics::index_all() {
  for (layout::HalfWord& head : directory_.heads) head.store(0, std::memory_order_relaxed);
  std::uint64_t at = directory_.families.load(std::memory_order_acquire);
  std::uint32_t families = 0;
  for (Family* f = family_at(at); f != nullptr && families < layout::kMetricFamilies;
       f = family_at(at), ++families) {
    f->series.store(0, std::memory_order_relaxed);
    at = f->next.load(std::memory_order_relaxed);
  }
  directory_.family_count.store(families, std::memory_order_relaxed);
  std::uint32_t vacant = 0;
  const std::uint64_t now = now_ns();
  for (std::uint32_t i = 0; i < slots(); ++i) {
    Slot* s = slot(i);
    if (s == nullptr) continue;
    if (load(s->word).state() != kUsed) {
      // Half made by the dead, when its rest was over: that isn't a time.
      if (s->created.load(std::memory_order_relaxed) > now) s->created.store(0);
      ++vacant;
      continue;
    }
    layout::HalfWord& head =
        directory_.heads[s->hash.load(std::memory_order_relaxed) % layout::kMetricHeads];
    s->next.store(head.load(std::memory_order_relaxed), std::memory_order_relaxed);
    head.store(i + 1, std::memory_order_relaxed);
    Family* f = family_at(s->family.load(std::memory_order_relaxed));
    if (f != nullptr) f->series.fetch_add(1, std::memory_order_relaxed);
  }
  directory_.vacant.store(vacant, std::memory_order_relaxed);
}

// ------------------------------------------------------------------------------------ removal

// The chain is made anew by who removes.
void Metrics::vacate(Slot& s, std::uint64_t family) {
  if (load(s.word).state() != kUsed || s.family.load(std::memory_order_relaxed) != family) return;
  const TaggedWord w = TaggedWord::make(kVacant, {}, load(s.word).generation());
  s.created.store(now_ns(), std::memory_order_relaxed);
  s.word.store(w.bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("metrics.remove.vacant");
}

Result<std::uint64_t> Metrics::remove(const MetricFamilyRef& family, std::string_view labels,
                                      OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of metrics");
  if (guard.recovered()) settle(me);
  Slot* s = find(family.block, labels, hash_of(family.block, labels));
  if (s == nullptr) return std::uint64_t{0};
  vacate(*s, family.block);
  index_all();
  return std::uint64_t{1};
}

Result<std::uint64_t> Metrics::clear(const MetricFamilyRef& family, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of metrics");
  if (guard.recovered()) settle(me);
  const std::uint64_t before = family.record->series.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < slots(); ++i) {
    if (Slot* s = slot(i); s != nullptr) vacate(*s, family.block);
  }
  index_all();
  return before;
}

Status Metrics::empty(const MetricSeriesRef& ref, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of metrics");
  if (guard.recovered()) settle(me);
  if (!current(ref)) return Status::ok();
  empty_cells(ref.slot->first.load(std::memory_order_relaxed),
              ref.slot->cells.load(std::memory_order_relaxed));
  return Status::ok();
}

// ------------------------------------------------------------------------------------- blocks

Result<std::uint64_t> Metrics::block(std::uint64_t bytes, OwnerTag me) {
  return base_.allocate(aligned_bytes(bytes), me);
}

// Makes a complete block part of the structure: `to` leads to it.
void Metrics::link(layout::Word& to, std::uint64_t block, OwnerTag me) {
  layout::Word& pending = directory_.mutex.pending[0];
  pending.store(base_.heap.ticket(block), std::memory_order_release);
  base_.heap.make_live(block, me);
  CELERIAC_CRASH_POINT("metrics.link.live");
  to.store(block, std::memory_order_release);  // pairs with the acquires of who follows it
  CELERIAC_CRASH_POINT("metrics.link.linked");
  pending.store(0, std::memory_order_release);
}

// What a dead holder of the mutex was at. Crash-safe: idempotent.
void Metrics::settle(OwnerTag me) {
  finish_move();
  for (layout::Word& pending : directory_.mutex.pending) {
    const std::uint64_t left = base_.heap.still_live(pending.load(std::memory_order_acquire));
    if (left != 0 && !linked(left)) base_.heap.release(left, me);
    pending.store(0, std::memory_order_release);
  }
  std::uint32_t there = 0;  // a stripe may be linked and not counted
  while (there < layout::kMetricStripes && stripe(there) != nullptr) ++there;
  directory_.stripes.store(there, std::memory_order_release);
  index_all();
}

bool Metrics::linked(std::uint64_t block) {
  const auto is = [block](const layout::Word& w) {
    return w.load(std::memory_order_relaxed) == block;
  };
  if (std::any_of(std::begin(directory_.slot_chunks), std::end(directory_.slot_chunks), is) ||
      std::any_of(std::begin(directory_.stripe_blocks), std::end(directory_.stripe_blocks), is)) {
    return true;
  }
  std::uint64_t at = directory_.families.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; at != 0 && i <= layout::kMetricFamilies; ++i) {
    if (at == block) return true;
    const Family* f = family_at(at);
    at = f == nullptr ? 0 : f->next.load(std::memory_order_relaxed);
  }
  for (std::uint32_t i = 0; i < layout::kMetricSlotChunks * kPerChunk; ++i) {
    const Slot* s = slot(i);
    if (s == nullptr) break;
    if (is(s->text)) return true;
  }
  for (std::uint32_t i = 0; i < layout::kMetricStripes; ++i) {
    Stripe* s = stripe(i);
    if (s == nullptr) break;
    if (std::any_of(std::begin(s->chunks), std::end(s->chunks), is)) return true;
  }
  return false;
}

void Metrics::forget(const LiveBlocks& live) {
  const auto lost = [&live](const layout::Word& w) {
    const std::uint64_t block = w.load(std::memory_order_relaxed);
    return block != 0 && !live.has(block);
  };
  bool all = lost(directory_.families);
  std::uint64_t at = directory_.families.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; !all && i <= layout::kMetricFamilies; ++i) {
    const Family* f = family_at(at);
    if (f == nullptr) break;
    all = lost(f->next);
    at = f->next.load(std::memory_order_relaxed);
  }
  for (const layout::Word& w : directory_.slot_chunks) all = all || lost(w);
  for (std::uint32_t i = 0; !all && i < slots(); ++i) {
    const Slot* s = slot(i);
    all = s == nullptr || lost(s->text) ||
          (s->family.load(std::memory_order_relaxed) != 0 && lost(s->family));
  }
  for (const layout::Word& w : directory_.stripe_blocks) all = all || lost(w);
  for (std::uint32_t i = 0; !all && i < layout::kMetricStripes; ++i) {
    Stripe* s = stripe(i);
    if (s == nullptr) continue;
    for (const layout::Word& w : s->chunks) all = all || lost(w);
  }
  // What isn't whole isn't trusted: metrics begin anew. What they had stays taken.
  if (all) new (&directory_) layout::MetricDirectory{};
}

MetricCounts Metrics::counts() {
  MetricCounts c;
  c.families = directory_.family_count.load(std::memory_order_relaxed);
  c.series = slots() - std::min(slots(), directory_.vacant.load(std::memory_order_relaxed));
  c.dropped = directory_.dropped.load(std::memory_order_relaxed);
  c.lost = directory_.lost.load(std::memory_order_relaxed);
  for (std::uint32_t i = 1; i < stripes(); ++i) {
    const Stripe* s = stripe(i);
    if (s != nullptr && load(s->word).state() == kUsed) ++c.stripes;
  }
  return c;
}

}  // namespace celeriac
