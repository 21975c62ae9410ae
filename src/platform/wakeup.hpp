// Wake-ups that an event loop can see.
//
// Fifo: one named pipe per owner slot, `wake.<slot>`, opened read-write by its reader, so that it
// never sees end-of-file and writers never fail for want of a reader. A writer puts one byte in
// and only while the reader is parked; a full pipe means that it is signalled already.
//
// DeathWatch: a descriptor that becomes readable when a process of the store has gone. Each holds
// owners.lock open for writing, so its end, even by SIGKILL, is a close-after-write event (inotify)
// on that file. The event comes a moment before the kernel drops the lock: probe, and again soon.
//
// Bell: an eventfd between threads of one process. Alarm: a timerfd. Poller: an epoll set of these,
// itself a descriptor that loops can wait for.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "platform/file.hpp"
#include "platform/status.hpp"

namespace celeriac {

class Fifo {
 public:
  // Opens the slot's pipe for reading, making it when absent. kConfiguration when it isn't a FIFO
  // of ours.
  static Result<Fd> open_reader(int dir, unsigned slot, unsigned mode);
  // Empties it; true when there was anything.
  static bool drain(int fd);
};

// The writing ends that this process has opened so far, by slot. Thread-safe.
class FifoWriters {
 public:
  explicit FifoWriters(unsigned slots) : fds_(new std::atomic<int>[slots]), slots_(slots) {
    for (unsigned i = 0; i < slots; ++i) fds_[i].store(-1, std::memory_order_relaxed);
  }
  ~FifoWriters();
  FifoWriters(const FifoWriters&) = delete;
  FifoWriters& operator=(const FifoWriters&) = delete;

  // Puts one byte into the slot's pipe. False when there is no reader.
  bool signal(int dir, unsigned slot);

 private:
  std::atomic<int>* fds_;
  unsigned slots_;
};

class DeathWatch {
 public:
  // Invalid descriptor when the kernel has no inotify instance left: then poll by time.
  static Fd open(const std::string& lock_path);
  static bool drain(int fd);
};

class Bell {
 public:
  static Fd open();
  static void ring(int fd);
  static bool drain(int fd);
};

class Alarm {
 public:
  static Fd open();
  // Fires at the absolute time (now_ns() clock), or never.
  static void set(int fd, std::uint64_t when);
  static bool drain(int fd);
};

class Poller {
 public:
  static Result<Fd> open();
  static bool add(int epoll, int fd);
  // Waits for any descriptor of the set, at most until the deadline; runs the blocking hooks.
  static bool wait(int epoll, std::uint64_t deadline_ns);
  // Which descriptors of the set are readable now: so many, at the beginning of `fds`.
  static std::size_t ready(int epoll, std::span<int> fds);
  // The same for two plain descriptors (either may be -1), without hooks.
  static bool wait_two(int a, int b, int timeout_ms);
};

// All signals blocked in the calling thread: for threads that run without the interpreter.
void block_all_signals();

}  // namespace celeriac
