#include "platform/fork_guard.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

namespace celeriac {
namespace {

// Made at load time: a child that is forked while another thread makes a local static finds it
// half made for ever, and waits. Never destroyed: handles may outlive static destruction at
// interpreter exit.
struct State {
  std::mutex mutex;
  std::vector<ForkListener*> listeners;
  std::atomic<std::uint64_t>* page = nullptr;
  std::atomic<std::uint64_t> last{1};
};

State* make_state();
State* const kState = make_state();

State& state() { return *kState; }

void before_fork() { state().mutex.lock(); }

void after_fork_in_parent() { state().mutex.unlock(); }

void after_fork_in_child() {
  State& s = state();
  s.page->store(0, std::memory_order_relaxed);
  for (ForkListener* l : s.listeners) l->after_fork_in_child();
  s.mutex.unlock();
}

std::atomic<std::uint64_t>* make_page() {
  void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  static std::atomic<std::uint64_t> fallback{0};
  auto* page = p == MAP_FAILED ? &fallback : static_cast<std::atomic<std::uint64_t>*>(p);
  if (p != MAP_FAILED) madvise(p, 4096, MADV_WIPEONFORK);
  page->store(1, std::memory_order_relaxed);
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  return page;
}

State* make_state() {
  auto* s = new State;
  s->page = make_page();
  return s;
}

}  // namespace

std::uint64_t fork_generation() {
  State& s = state();
  std::uint64_t g = s.page->load(std::memory_order_relaxed);
  if (g != 0) return g;
  // A child's first question. Two threads may ask at once: the first to store wins.
  const std::uint64_t next = s.last.fetch_add(1, std::memory_order_relaxed) + 1;
  if (s.page->compare_exchange_strong(g, next, std::memory_order_relaxed)) return next;
  return g;
}

void ForkListener::listen() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.listeners.push_back(this);
}

void ForkListener::stop_listening() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.listeners.erase(std::remove(s.listeners.begin(), s.listeners.end(), this), s.listeners.end());
}

}  // namespace celeriac
