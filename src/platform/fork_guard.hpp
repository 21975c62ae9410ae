// Fork guard: tells a process that it is a forked child, however it was forked.
//
// A private page with MADV_WIPEONFORK holds the process's generation. In a child the page reads
// zero (the kernel wiped it; where it can't, pthread_atfork does it), and the first question gives
// the child a generation of its own. Whoever holds something that must not be inherited (owner
// slot, lock descriptor, FIFO, thread) remembers the generation it was made in and compares.
#pragma once

#include <cstdint>

namespace celeriac {

// The generation of this process: never 0, the same until the process forks, another in the child.
std::uint64_t fork_generation();

// Called in the child, in the forking thread, right after fork, before anything else runs there.
// Must only do what is safe in a signal handler (close descriptors, store words).
//
// Another thread may fork at any moment, so a listener listens only while it is whole: from the end
// of its last constructor to the beginning of its first destructor. Both calls belong there.
class ForkListener {
 public:
  ForkListener() = default;
  virtual ~ForkListener() = default;
  ForkListener(const ForkListener&) = delete;
  ForkListener& operator=(const ForkListener&) = delete;
  virtual void after_fork_in_child() noexcept = 0;

 protected:
  void listen();
  void stop_listening();
};

}  // namespace celeriac
