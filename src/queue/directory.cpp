#include "queue/directory.hpp"

#include <algorithm>
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

QueueConfig QueueDirectory::config(const layout::QueueRecord& r) const {
  // Read without the seqlock's help only if a writer died inside: then the bounds are unknown, and
  // none is the answer that loses nothing.
  std::uint64_t words[3] = {};
  Seqlock lock(const_cast<layout::SequenceWord&>(r.config), base_.owners);
  if (lock.read(&r.max_length, words, 3) == SeqRead::kTorn) return {};
  return {words[0], words[1], words[2]};
}

void QueueDirectory::configure(layout::QueueRecord& r, const QueueConfig& config, OwnerTag me) {
  const std::uint64_t words[3] = {config.max_length, config.max_deliveries, config.flags};
  Seqlock(r.config, base_.owners).write(me, &r.max_length, words, 3);
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
                            const QueueConfig& config) {
  if (sink_ == nullptr || (config.flags & kOwnerBound) != 0) return Status::ok();
  const std::string settings = "max_length=" + std::to_string(config.max_length) +
                               "\nmax_deliveries=" + std::to_string(config.max_deliveries) +
                               "\nflags=" + std::to_string(config.flags) + "\n";
  const Result<std::uint64_t> number =
      sink_->queue(r.journal.load(std::memory_order_relaxed), name, settings);
  CELERIAC_CRASH_POINT("queue.open.told");
  if (!number) return number.status();
  r.journal.store(number.value(), std::memory_order_release);
  return Status::ok();
}

Result<QueueRef> QueueDirectory::open(std::string_view name, const QueueConfig* config,
                                      OwnerTag me) {
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
    if (config != nullptr) {
      Status told = tell(*found.record, name, *config);
      if (!told) return told;
      configure(*found.record, *config, me);
    }
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
  Status told = tell(*r, name, settings);
  if (!told) return told;
  std::memcpy(r->name, name.data(), name.size());
  r->name_length.store(static_cast<std::uint32_t>(name.size()), std::memory_order_release);
  configure(*r, settings, me);
  for (layout::Word* count : {&r->length, &r->ready, &r->delayed, &r->reserved, &r->dead, &r->done,
                              &r->dropped, &r->next_sequence}) {
    count->store(0, std::memory_order_relaxed);
  }
  const std::uint32_t generation = (load(r->word).generation() + 1) & 0xFFFFU;
  CELERIAC_CRASH_POINT("queue.open.written");
  const OwnerTag bound = (settings.flags & kOwnerBound) != 0 ? me : OwnerTag{};
  r->word.store(TaggedWord::make(kQueueActive, bound, generation).bits, std::memory_order_release);
  if (index == n) directory_.high.store(n + 1, std::memory_order_release);
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
