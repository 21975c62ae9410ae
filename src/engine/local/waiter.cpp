#include "engine/local/waiter.hpp"

#include <algorithm>
#include <array>

#include "engine/local/queue.hpp"

namespace celeriac {

LocalWaiter::LocalWaiter(std::shared_ptr<LocalHandle> handle) : handle_(std::move(handle)) {
  handle_->core().add_waiter(this);
}

LocalWaiter::~LocalWaiter() {
  close();
  handle_->core().remove_waiter(this);
}

Status LocalWaiter::open(OwnerTag me) {
  if (epoll_.valid()) return Status::ok();
  Result<Fd> epoll = Poller::open();
  if (!epoll) return epoll.status();
  Result<Fd> fifo = Fifo::open_reader(handle_->core().arena().directory(), me.slot,
                                      handle_->core().arena().mode());
  if (!fifo) return fifo.status();
  epoll_ = epoll.take();
  fifo_ = fifo.take();
  // All waiters of the process read one pipe, and opening has emptied it: of a wake-up, perhaps,
  // that was another's.
  handle_->core().ring_others(this);
  bell_ = Bell::open();
  alarm_ = Alarm::open();
  alarm_at_ = kNever;
  death_ = DeathWatch::open(handle_->core().arena().path() + "/owners.lock");
  if (!Poller::add(epoll_.get(), fifo_.get()) || !Poller::add(epoll_.get(), bell_.get()) ||
      !Poller::add(epoll_.get(), alarm_.get())) {
    epoll_.reset();
    return {Code::kSystem, "can't watch the store's wake-ups: out of descriptors (ulimit -n)"};
  }
  Poller::add(epoll_.get(), death_.get());  // without it the alarm looks for the dead
  return Status::ok();
}

Result<int> LocalWaiter::fd() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  if (closed_) return Status(Code::kConfiguration, "the waiter is closed");
  Status opened = open(me.value());
  if (!opened) return opened;
  return epoll_.get();
}

Status LocalWaiter::watch(QueueEngine& queue) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Result<QueueRef> ref = static_cast<LocalQueue&>(queue).ref(me.value());
  if (!ref) return ref.status();
  unmark(me.value());
  std::erase_if(queues_, [&](const QueueRef& q) { return q.index == ref.value().index; });
  queues_.push_back(ref.value());
  return Status::ok();
}

Status LocalWaiter::unwatch(QueueEngine& queue) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const std::uint32_t index = static_cast<LocalQueue&>(queue).index();
  unmark(me.value());
  std::erase_if(queues_, [&](const QueueRef& q) { return q.index == index; });
  return Status::ok();
}

void LocalWaiter::unmark(OwnerTag me) {
  if (!marked_) return;
  marked_ = false;
  for (const QueueRef& q : queues_) handle_->core().queues().parking().unmark_parked(q, me);
}

Result<bool> LocalWaiter::arm() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  if (closed_) return Status(Code::kConfiguration, "the waiter is closed");
  Status opened = open(me.value());
  if (!opened) return opened;
  Queues& queues = handle_->core().queues();
  if (!marked_) {
    for (const QueueRef& q : queues_) queues.parking().mark_parked(q, me.value());
    marked_ = true;
  }
  armed_.store(true, std::memory_order_release);
  handle_->core()
      .base()
      .owners.record(me.value().slot)
      .parked.store(kParked, std::memory_order_seq_cst);
  const std::uint64_t due = queues.next_due();
  // Without a death watch, look for the dead by the clock.
  const std::uint64_t probe = death_.valid() ? kNever : now_ns() + 20 * kMillisecond;
  const std::uint64_t at = std::min(due, probe);
  if (at != alarm_at_) Alarm::set(alarm_.get(), at);
  alarm_at_ = at;
  const bool ready =
      due <= now_ns() || std::any_of(queues_.begin(), queues_.end(),
                                     [&](const QueueRef& q) { return queues.maybe_ready(q); });
  if (!ready) return true;
  armed_.store(false, std::memory_order_release);
  return false;
}

Status LocalWaiter::drain() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  armed_.store(false, std::memory_order_release);
  handle_->core()
      .base()
      .owners.record(me.value().slot)
      .parked.store(handle_->core().any_armed() ? kParked : kRunning, std::memory_order_seq_cst);
  // One question instead of four reads: mostly it is the pipe alone.
  std::array<int, 4> readable{};
  const std::size_t found = Poller::ready(epoll_.get(), readable);
  bool rang = false;
  bool died = false;
  for (std::size_t i = 0; i < found; ++i) {
    if (readable[i] == fifo_.get()) {
      if (Fifo::drain(fifo_.get())) handle_->core().ring_others(this);
    } else if (readable[i] == bell_.get()) {
      Bell::drain(bell_.get());
    } else if (readable[i] == alarm_.get()) {
      rang = Alarm::drain(alarm_.get());
      alarm_at_ = kNever;  // it rings once
    } else {
      died = DeathWatch::drain(death_.get());
    }
  }
  if (died) {
    recover_after_death([this] { return handle_->core().recovery().run(); });
  } else if (rang && !death_.valid()) {
    handle_->core().recovery().run();
  }
  handle_->core().queues().promote(me.value());
  return Status::ok();
}

void LocalWaiter::stop(OwnerTag me) {
  LocalCore& core = handle_->core();
  armed_.store(false, std::memory_order_release);
  unmark(me);
  core.base().owners.record(me.slot).parked.store(core.any_armed() ? kParked : kRunning,
                                                  std::memory_order_seq_cst);
  for (const QueueRef& q : queues_) {
    if (core.queues().maybe_ready(q)) core.queues().parking().wake_one(*q.record);
  }
}

Status LocalWaiter::disarm() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  stop(me.value());
  return Status::ok();
}

void LocalWaiter::close() {
  if (closed_) return;
  closed_ = true;
  // Even when its handle is closed already: others of the process may go on.
  const OwnerTag me = handle_->core().base().owners.current();
  if (me.valid()) stop(me);
  queues_.clear();
  for (Fd* fd : {&epoll_, &fifo_, &bell_, &alarm_, &death_}) fd->reset();
}

void LocalWaiter::after_fork_in_child() noexcept {
  for (Fd* fd : {&epoll_, &fifo_, &bell_, &alarm_, &death_}) fd->reset();
  armed_.store(false, std::memory_order_relaxed);
  marked_ = false;
}

}  // namespace celeriac
