// What to do around a sleep. The bindings install hooks that give the interpreter lock away
// before a thread sleeps in the kernel and take it back after; without hooks nothing happens.
//
// So a call of the core keeps the interpreter lock while it runs (most take less time than
// giving it away would) and never keeps it while it waits.
#pragma once

namespace celeriac {

struct BlockingHooks {
  void* (*before)() = nullptr;  // returns a token, may be null
  void (*after)(void* token) = nullptr;
  bool (*interrupted)() = nullptr;  // a signal handler wants the call to end
};

void set_blocking_hooks(BlockingHooks hooks);

// Asked by calls that wait for something to happen, before each time they sleep. True: end with
// kInterrupted. (Calls that wait for a mutex don't ask: they end soon anyway.)
bool blocking_interrupted();

class BlockingRegion {
 public:
  BlockingRegion();
  ~BlockingRegion();
  BlockingRegion(const BlockingRegion&) = delete;
  BlockingRegion& operator=(const BlockingRegion&) = delete;

 private:
  void* token_ = nullptr;
};

}  // namespace celeriac
