// A thread that sleeps until a process of the store ends, and then runs recovery, so that threads
// blocked on a queue need not wake up to look. Started by the first of them; not copied by fork.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "platform/wakeup.hpp"

namespace celeriac {

class DeathWatcher {
 public:
  DeathWatcher(std::string lock_path, std::function<int()> recover)
      : lock_path_(std::move(lock_path)), recover_(std::move(recover)) {}
  ~DeathWatcher() { stop(); }
  DeathWatcher(const DeathWatcher&) = delete;
  DeathWatcher& operator=(const DeathWatcher&) = delete;

  // True when a watcher runs in this process; starts it if need be. False: the kernel has no
  // inotify instance left, look for yourself.
  bool start();
  void stop();
  void after_fork_in_child() noexcept;

 private:
  void run(int watch, int bell);

  std::string lock_path_;
  std::function<int()> recover_;
  std::mutex mutex_;
  std::atomic<bool> running_{false};
  Fd watch_;
  Fd bell_;
  std::thread thread_;
};

// The kernel announces an end a moment before it frees the owner's byte: look now and again soon.
// Returns the number of owners reaped.
int recover_after_death(const std::function<int()>& recover);

}  // namespace celeriac
