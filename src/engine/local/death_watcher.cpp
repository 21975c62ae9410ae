#include "engine/local/death_watcher.hpp"

#include <chrono>
#include <new>

namespace celeriac {

int recover_after_death(const std::function<int()>& recover) {
  int reaped = recover();
  for (const int pause_us : {100, 400, 1500, 5000}) {
    if (reaped > 0) break;
    std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
    reaped = recover();
  }
  return reaped;
}

bool DeathWatcher::start() {
  if (running_.load(std::memory_order_acquire)) return true;
  const std::lock_guard lock(mutex_);
  if (running_.load(std::memory_order_relaxed)) return true;
  watch_ = DeathWatch::open(lock_path_);
  bell_ = Bell::open();
  if (!watch_.valid() || !bell_.valid()) return false;
  try {
    thread_ = std::thread(&DeathWatcher::run, this, watch_.get(), bell_.get());
  } catch (const std::system_error&) {  // no thread to be had: the caller polls
    return false;
  }
  running_.store(true, std::memory_order_release);
  return true;
}

void DeathWatcher::run(int watch, int bell) {
  block_all_signals();
  recover_();  // deaths before the watch began
  for (;;) {
    Poller::wait_two(watch, bell, -1);
    if (Bell::drain(bell)) return;
    if (DeathWatch::drain(watch)) recover_after_death(recover_);
  }
}

void DeathWatcher::stop() {
  const std::lock_guard lock(mutex_);
  if (!running_.load(std::memory_order_relaxed)) return;
  Bell::ring(bell_.get());
  thread_.join();
  running_.store(false, std::memory_order_release);
  watch_.reset();
  bell_.reset();
}

void DeathWatcher::after_fork_in_child() noexcept {
  // The thread exists in the parent only. Its handle must neither be joined nor destroyed.
  new (&mutex_) std::mutex;
  new (&thread_) std::thread;
  running_.store(false, std::memory_order_relaxed);
  watch_.reset();
  bell_.reset();
}

}  // namespace celeriac
