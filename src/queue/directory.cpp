#include "queue/directory.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <new>

#include "arena/crash_point.hpp"

namespace celeriac {

layout::QueueRecord* QueueDirectory::at(std::uint32_t index) {
  if (index >= layout::kMaxQueues) return nullptr;
  const std::uint64_t block = directory_.offsets[index].load(std::memory_order_acquire);
  if (block == 0) return nullptr;
  return base_.arena.at<layout::QueueRecord>(aligned_object(block));
}

bool QueueDirectory::named(const layout::QueueRecord& r, std::string_view name) const {
  return r.name_length.load(std::memory_order_acquire) == name.size() &&
         std::memcmp(r.name, name.data(), name.size()) == 0;
}

QueueRef QueueDirectory::find(std::string_view name) {
  const std::uint32_t n = high();
  for (std::uint32_t i = 0; i < n; ++i) {
    layout::QueueRecord* r = at(i);
    if (r == nullptr) continue;
    const TaggedWord w = load(r->word);
    if (w.state() == kQueueActive && named(*r, name)) return {r, i, w.generation()};
  }
  return {};
}

namespace {

using Words = layout::QueueConfigWords;
constexpr std::size_t kConfigWords = sizeof(Words) / sizeof(std::uint64_t);

std::uint64_t* words_of(layout::QueueRecord& r) { return &r.settings.max_length; }

// Every setting that is a number, by its name in a journal.
template <class Config, class Visit>
void each_number(Config& c, Visit visit) {
  visit("max_length", c.limits.max_length);
  visit("max_deliveries", c.limits.max_deliveries);
  visit("flags", c.limits.flags);
  visit("visibility_ns", c.visibility_ns);
  visit("dedup_ttl_ns", c.dedup_ns);
  visit("keep_done", c.done.most);
  visit("keep_done_ns", c.done.age_ns);
  visit("keep_dead", c.dead.most);
  visit("keep_dead_ns", c.dead.age_ns);
}

}  // namespace

std::string QueueConfig::text(bool paused) const {
  std::string lines = paused ? "paused=1\n" : "";
  each_number(*this, [&](const char* key, std::uint64_t value) {
    if (value != 0) lines += std::string(key) + "=" + std::to_string(value) + "\n";
  });
  if (!dead_letter.empty()) lines += "dead_letter=" + dead_letter + "\n";
  return lines;
}

QueueConfig QueueConfig::parsed(std::string_view text, bool* paused) {
  QueueConfig config;
  *paused = false;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = line.substr(equals + 1);
    std::uint64_t number = 0;
    std::from_chars(value.data(), value.data() + value.size(), number);
    if (key == "paused") *paused = number != 0;
    if (key == "dead_letter") config.dead_letter = value.substr(0, layout::kNameBytes);
    each_number(config, [&](std::string_view name, std::uint64_t& to) {
      if (name == key) to = number;
    });
  }
  return config;
}

// A torn one was left by a writer that died inside: then the bounds are unknown, and none is the
// answer that loses nothing.
QueueLimits QueueDirectory::limits(const layout::QueueRecord& r) const {
  std::uint64_t words[3] = {};
  Seqlock lock(const_cast<layout::SequenceWord&>(r.config), base_.owners);
  if (lock.read(&r.settings.max_length, words, 3) == SeqRead::kTorn) return {};
  return {words[0], words[1], words[2]};
}

QueueConfig QueueDirectory::config(const layout::QueueRecord& r) const {
  Words w{};
  Seqlock lock(const_cast<layout::SequenceWord&>(r.config), base_.owners);
  if (lock.read(&r.settings.max_length, &w.max_length, kConfigWords) == SeqRead::kTorn) return {};
  const std::size_t size = std::min<std::size_t>(w.dead_letter_size, layout::kNameBytes);
  return {{w.max_length, w.max_deliveries, w.flags},
          w.visibility,
          w.dedup_ttl,
          {w.keep[0][0], w.keep[0][1]},
          {w.keep[1][0], w.keep[1][1]},
          std::string(w.dead_letter, size)};
}

void QueueDirectory::configure(layout::QueueRecord& r, const QueueConfig& c, OwnerTag me) {
  Words w{};
  w.max_length = c.limits.max_length;
  w.max_deliveries = c.limits.max_deliveries;
  w.flags = c.limits.flags;
  w.visibility = c.visibility_ns;
  w.dedup_ttl = c.dedup_ns;
  w.keep[0][0] = c.done.most;
  w.keep[0][1] = c.done.age_ns;
  w.keep[1][0] = c.dead.most;
  w.keep[1][1] = c.dead.age_ns;
  w.dead_letter_size = c.dead_letter.size();
  std::memcpy(w.dead_letter, c.dead_letter.data(), c.dead_letter.size());
  Seqlock(r.config, base_.owners).write(me, words_of(r), &w.max_length, kConfigWords);
}

Result<layout::QueueRecord*> QueueDirectory::fresh_record(std::uint32_t index, OwnerTag me) {
  Result<std::uint64_t> block = base_.allocate(aligned_bytes(sizeof(layout::QueueRecord)), me);
  if (!block) return block.status();
  auto* r = base_.arena.at<layout::QueueRecord>(aligned_object(block.value()));
  if (r == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
  r = new (r) layout::QueueRecord{};
  r->index.store(index, std::memory_order_relaxed);
  layout::Word& pending = base_.arena.header().directory.pending[0];
  pending.store(base_.heap.ticket(block.value()), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("queue.open.live");
  directory_.offsets[index].store(block.value(), std::memory_order_release);
  pending.store(0, std::memory_order_release);
  return r;
}

Status QueueDirectory::tell(layout::QueueRecord& r, std::string_view name,
                            const QueueConfig& config, bool paused) {
  if (sink_ == nullptr || (config.limits.flags & kOwnerBound) != 0) return Status::ok();
  const Result<std::uint64_t> number =
      sink_->queue(r.journal.load(std::memory_order_relaxed), name, config.text(paused));
  CELERIAC_CRASH_POINT("queue.open.told");
  if (!number) return number.status();
  r.journal.store(number.value(), std::memory_order_release);
  return Status::ok();
}

Status QueueDirectory::tell_paused(const QueueRef& queue, bool paused, OwnerTag me) {
  layout::QueueRecord& r = *queue.record;
  if (r.journal.load(std::memory_order_acquire) == 0) return Status::ok();
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(base_.arena.header().directory, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of queues");
  if (!current(queue)) return {Code::kNotFound, "the queue was deleted"};
  const std::uint32_t size =
      std::min(r.name_length.load(std::memory_order_acquire), layout::kNameBytes);
  return tell(r, {r.name, size}, config(r), paused);
}

Result<QueueRef> QueueDirectory::open(std::string_view name, const QueueConfig* config, OwnerTag me,
                                      bool* made) {
  if (name.empty() || name.size() > layout::kNameBytes) {
    return Status(Code::kConfiguration, "a queue's name has 1 to " +
                                            std::to_string(layout::kNameBytes) +
                                            " bytes, this one has " + std::to_string(name.size()));
  }
  const OperationScope operation(base_.owners.record(me.slot));
  layout::MutexWord& word = base_.arena.header().directory;
  OwnerMutex mutex(word, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of queues");
  // The mutex guards namespaces too, so whoever took it from the dead may not have looked here.
  if (const std::uint64_t left =
          base_.heap.still_live(word.pending[0].load(std::memory_order_acquire));
      left != 0) {
    bool linked = false;
    for (const layout::Word& o : directory_.offsets) {
      linked = linked || o.load(std::memory_order_relaxed) == left;
    }
    if (!linked) base_.heap.release(left, me);
  }
  word.pending[0].store(0, std::memory_order_release);
  QueueRef found = find(name);
  if (found.record != nullptr) {
    if (config == nullptr) return found;
    if (sink_ != nullptr && !(*config == this->config(*found.record))) {
      const bool paused = found.record->paused.load(std::memory_order_relaxed) != 0;
      Status told = tell(*found.record, name, *config, paused);
      if (!told) return told;
    }
    configure(*found.record, *config, me);
    return found;
  }
  const std::uint32_t n = high();
  std::uint32_t index = 0;
  layout::QueueRecord* r = nullptr;
  for (; index < n; ++index) {
    r = at(index);
    if (r != nullptr && load(r->word).state() != kQueueActive) break;
    r = nullptr;
  }
  if (r == nullptr) {
    if (index == layout::kMaxQueues) {
      return Status(Code::kNotEnoughMemory,
                    "the store has " + std::to_string(layout::kMaxQueues) +
                        " queues and room for no more: need one, have none; delete some");
    }
    r = at(index);  // complete, but its maker died before it counted
    if (r == nullptr) {
      Result<layout::QueueRecord*> fresh = fresh_record(index, me);
      if (!fresh) return fresh.status();
      r = fresh.value();
    }
  }
  const QueueConfig settings = config == nullptr ? QueueConfig{} : *config;
  r->journal.store(0, std::memory_order_relaxed);
  Status told = tell(*r, name, settings, false);
  if (!told) return told;
  std::memcpy(r->name, name.data(), name.size());
  r->name_length.store(static_cast<std::uint32_t>(name.size()), std::memory_order_release);
  configure(*r, settings, me);
  for (layout::Word* count : {&r->length, &r->ready, &r->delayed, &r->reserved, &r->dead, &r->done,
                              &r->dropped, &r->next_sequence}) {
    count->store(0, std::memory_order_relaxed);
  }
  r->paused.store(0, std::memory_order_relaxed);
  for (layout::RetainedList& l : r->retained) {
    l.oldest.store(0, std::memory_order_relaxed);
    l.youngest.store(0, std::memory_order_relaxed);
    l.count.store(0, std::memory_order_relaxed);
  }
  const std::uint32_t generation = (load(r->word).generation() + 1) & 0xFFFFU;
  CELERIAC_CRASH_POINT("queue.open.written");
  const OwnerTag bound = (settings.limits.flags & kOwnerBound) != 0 ? me : OwnerTag{};
  r->word.store(TaggedWord::make(kQueueActive, bound, generation).bits, std::memory_order_release);
  if (index == n) directory_.high.store(n + 1, std::memory_order_release);
  if (made != nullptr) *made = true;
  CELERIAC_CRASH_POINT("queue.open.active");
  return QueueRef{r, index, generation};
}

bool QueueDirectory::remove(const QueueRef& queue) {
  const TaggedWord w = load(queue.record->word);
  if (w.state() != kQueueActive || w.generation() != queue.generation) return false;
  const bool ok =
      change(queue.record->word, w, TaggedWord::make(kQueueDeleted, {}, w.generation()));
  CELERIAC_CRASH_POINT("queue.delete.marked");
  const std::uint64_t number = queue.record->journal.load(std::memory_order_relaxed);
  if (ok && number != 0 && sink_ != nullptr) sink_->queue_gone(number);
  return ok;
}

std::vector<std::string> QueueDirectory::names() {
  std::vector<std::string> all;
  const std::uint32_t n = high();
  for (std::uint32_t i = 0; i < n; ++i) {
    layout::QueueRecord* r = at(i);
    if (r == nullptr || load(r->word).state() != kQueueActive) continue;
    const std::uint32_t length =
        std::min(r->name_length.load(std::memory_order_acquire), layout::kNameBytes);
    all.emplace_back(r->name, length);
  }
  return all;
}

}  // namespace celeriac
