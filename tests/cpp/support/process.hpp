// Other processes of a test: forked children that end by _exit or by SIGKILL, never by returning
// into the test framework.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <new>
#include <stdexcept>
#include <utility>

#include "support/thread_sanitizer.hpp"

namespace celeriac::test {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// First line of each test that forks.
#define CELERIAC_TEST_FORKS()                                                                    \
  if (::celeriac::test::kThreadSanitizer) {                                                      \
    GTEST_SKIP() << "ThreadSanitizer sees the threads of one process; this test needs several: " \
                    "build without CELERIAC_SANITIZE=thread";                                    \
  }                                                                                              \
  static_cast<void>(0)

// First line of the SetUp() of long tests with one thread.
#define CELERIAC_TEST_HAS_ONE_THREAD()                                                     \
  if (::celeriac::test::kThreadSanitizer) {                                                \
    GTEST_SKIP() << "one thread only, so that ThreadSanitizer has nothing to find: build " \
                    "without CELERIAC_SANITIZE=thread";                                    \
  }                                                                                        \
  static_cast<void>(0)

// First line of each test that dies at a named crash point.
#define CELERIAC_TEST_NEEDS_CRASH_POINTS()                                    \
  CELERIAC_TEST_FORKS();                                                      \
  if (!::celeriac::crash_points_compiled_in()) {                              \
    GTEST_SKIP() << "no crash points: build with -DCELERIAC_CRASH_POINTS=ON"; \
  }                                                                           \
  static_cast<void>(0)

constexpr int kKilled = -SIGKILL;

class Child {
 public:
  // Runs `body` in a child; its result (bool: true is success; or int) becomes the exit status.
  template <class Body>
  static Child run(Body body) {
    const pid_t pid = fork();
    if (pid < 0) throw std::runtime_error("fork");
    if (pid == 0) {
      if constexpr (std::is_same_v<decltype(body()), bool>) {
        _exit(body() ? 0 : 1);
      } else {
        _exit(body());
      }
    }
    return Child(pid);
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  ~Child() {
    if (pid_ > 0) static_cast<void>(kill());
  }

  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  // SIGKILL, and wait until it has happened.
  int kill() {
    signal(SIGKILL);
    return wait();
  }
  // The exit status, or minus the signal.
  int wait() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

// Says "now" from one process to another.
class Gate {
 public:
  Gate() {
    if (pipe(ends_) != 0) throw std::runtime_error("pipe");
  }
  ~Gate() {
    close(ends_[0]);
    close(ends_[1]);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void open() const { static_cast<void>(!write(ends_[1], "!", 1)); }
  bool is_open() const {
    pollfd p{ends_[0], POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  }
  // False when nobody opened it within ten seconds.
  bool pass() const {
    pollfd p{ends_[0], POLLIN, 0};
    char byte = 0;
    return poll(&p, 1, 10'000) == 1 && read(ends_[0], &byte, 1) == 1;
  }

 private:
  int ends_[2] = {-1, -1};
};

// Zeroed memory that children share with the test.
template <class T>
class Shared {
 public:
  Shared() {
    void* p = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    value_ = new (p) T{};
  }
  ~Shared() { munmap(value_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  T* value_;
};

inline void sleep_us(unsigned us) { usleep(us); }

}  // namespace celeriac::test
