// Fork guard: a child knows that it is one, however it was forked.
#include "platform/fork_guard.hpp"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;

class Counter final : public ForkListener {
 public:
  Counter() { listen(); }
  ~Counter() override { stop_listening(); }
  void after_fork_in_child() noexcept override { ++calls; }
  int calls = 0;
};

TEST(ForkGuard, StaysTheSameWithinAProcess) {
  const std::uint64_t here = fork_generation();
  EXPECT_NE(here, 0U);
  std::thread([&] { EXPECT_EQ(fork_generation(), here); }).join();
  EXPECT_EQ(fork_generation(), here);
}

TEST(ForkGuard, ChildHasAnother) {
  CELERIAC_TEST_FORKS();
  const std::uint64_t here = fork_generation();
  EXPECT_EQ(Child::run([&] { return fork_generation() != here && fork_generation() != 0; }).wait(),
            0);
  EXPECT_EQ(fork_generation(), here);
}

TEST(ForkGuard, GrandchildHasAThird) {
  CELERIAC_TEST_FORKS();
  const std::uint64_t here = fork_generation();
  EXPECT_EQ(Child::run([&] {
              const std::uint64_t child = fork_generation();
              return Child::run([&] {
                       const std::uint64_t grandchild = fork_generation();
                       return grandchild != here && grandchild != child;
                     })
                  .wait();
            }).wait(),
            0);
}

TEST(ForkGuard, GrandchildWhoseParentNeverAskedDiffersToo) {
  CELERIAC_TEST_FORKS();
  const std::uint64_t here = fork_generation();
  EXPECT_EQ(Child::run([&] {
              return Child::run([&] { return fork_generation() != here; }).wait();
            }).wait(),
            0);
}

TEST(ForkGuard, ChildOfARawCloneHasAnother) {
  CELERIAC_TEST_FORKS();
  const std::uint64_t here = fork_generation();
  // Past libc and its atfork handlers: what some runtimes do.
  const long pid = syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  ASSERT_GE(pid, 0);
  if (pid == 0) _exit(fork_generation() != here ? 0 : 1);
  int status = 0;
  waitpid(static_cast<pid_t>(pid), &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(ForkGuard, ListenersRunInTheChildOnce) {
  CELERIAC_TEST_FORKS();
  Counter counter;
  EXPECT_EQ(Child::run([&] { return counter.calls; }).wait(), 1);
  EXPECT_EQ(counter.calls, 0);
}

TEST(ForkGuard, ListenerThatIsGoneIsNotCalled) {
  CELERIAC_TEST_FORKS();
  Counter stays;
  { const Counter gone; }
  EXPECT_EQ(Child::run([&] { return stays.calls; }).wait(), 1);
}

TEST(ForkGuard, ListenersMayComeAndGoInAChild) {
  CELERIAC_TEST_FORKS();
  EXPECT_EQ(Child::run([] {
              Counter own;
              return Child::run([&] { return own.calls; }).wait();
            }).wait(),
            1);
}

TEST(ForkGuard, ForkWhileAnotherThreadRegistersListeners) {
  CELERIAC_TEST_FORKS();
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    while (!stop) Counter();
  });
  int failures = 0;
  for (int i = 0; i < 50; ++i) failures += Child::run([] { return Counter().calls; }).wait();
  stop = true;
  churn.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace celeriac
