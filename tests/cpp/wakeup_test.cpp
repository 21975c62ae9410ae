// Wake-ups that an event loop can see: FIFO, bell, alarm, death watch, poller.
#include "platform/wakeup.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/stat.h>

#include <csignal>
#include <thread>

#include "platform/clock.hpp"
#include "platform/owner_lock.hpp"
#include "support/process.hpp"
#include "support/temporary_root.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Gate;

bool readable(int fd, int timeout_ms = 0) { return Poller::wait_two(fd, -1, timeout_ms); }

class WakeupTest : public ::testing::Test {
 protected:
  Fd reader(unsigned slot) {
    Result<Fd> fd = Fifo::open_reader(dir.get(), slot, 0600);
    EXPECT_TRUE(fd.is_ok()) << fd.status().message();
    return fd.take();
  }

  test::TemporaryRoot root;
  Fd dir{open(root.path().c_str(), O_RDONLY | O_DIRECTORY)};
  FifoWriters writers{8};
};

TEST_F(WakeupTest, SignalReachesTheReaderOfTheSlotOnly) {
  const Fd three = reader(3);
  const Fd four = reader(4);
  EXPECT_FALSE(readable(three.get()));
  EXPECT_TRUE(writers.signal(dir.get(), 3));
  EXPECT_TRUE(readable(three.get()));
  EXPECT_FALSE(readable(four.get()));
  EXPECT_TRUE(Fifo::drain(three.get()));
  EXPECT_FALSE(Fifo::drain(three.get()));
}

TEST_F(WakeupTest, NobodyReadsThenSignalSaysSo) {
  EXPECT_FALSE(writers.signal(dir.get(), 3));
  reader(3).reset();  // the name is there, the reader isn't
  EXPECT_FALSE(writers.signal(dir.get(), 3));
  EXPECT_FALSE(writers.signal(dir.get(), 8)) << "beyond the table";
}

TEST_F(WakeupTest, FullPipeCountsAsSignalled) {
  const Fd fd = reader(3);
  for (int i = 0; i < 70'000; ++i) ASSERT_TRUE(writers.signal(dir.get(), 3)) << i;
  EXPECT_TRUE(Fifo::drain(fd.get()));
  EXPECT_FALSE(readable(fd.get()));
}

TEST_F(WakeupTest, NewReaderOfASlotStartsEmpty) {
  const Fd before = reader(3);
  writers.signal(dir.get(), 3);
  const Fd after = reader(3);
  EXPECT_FALSE(readable(after.get()));
}

TEST_F(WakeupTest, OtherThingsUnderTheNameAreRefused) {
  Fd(openat(dir.get(), "wake.3", O_CREAT | O_RDWR, 0600)).reset();
  EXPECT_EQ(Fifo::open_reader(dir.get(), 3, 0600).status().code(), Code::kConfiguration);
  ASSERT_EQ(symlinkat("wake.3", dir.get(), "wake.4"), 0);
  EXPECT_FALSE(Fifo::open_reader(dir.get(), 4, 0600).is_ok());
}

TEST_F(WakeupTest, SignalFromAnotherProcess) {
  CELERIAC_TEST_FORKS();
  const Fd fd = reader(5);
  Child other = Child::run([&] { return writers.signal(dir.get(), 5); });
  EXPECT_TRUE(readable(fd.get(), 5000));
  EXPECT_EQ(other.wait(), 0);
}

TEST_F(WakeupTest, ConcurrentSignalsOpenOneDescriptor) {
  const Fd fd = reader(6);
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i) {
    all.emplace_back([&] {
      for (int k = 0; k < 500; ++k) EXPECT_TRUE(writers.signal(dir.get(), 6));
    });
  }
  for (std::thread& t : all) t.join();
  EXPECT_TRUE(Fifo::drain(fd.get()));
}

TEST_F(WakeupTest, BellRingsOnceForManyRings) {
  const Fd bell = Bell::open();
  EXPECT_FALSE(readable(bell.get()));
  Bell::ring(bell.get());
  Bell::ring(bell.get());
  EXPECT_TRUE(readable(bell.get()));
  EXPECT_TRUE(Bell::drain(bell.get()));
  EXPECT_FALSE(readable(bell.get()));
  Bell::ring(-1);
}

TEST_F(WakeupTest, AlarmFiresAtItsTimeAndNotBefore) {
  const Fd alarm = Alarm::open();
  const std::uint64_t when = now_ns() + 15 * kMillisecond;
  Alarm::set(alarm.get(), when);
  EXPECT_TRUE(readable(alarm.get(), 5000));
  EXPECT_GE(now_ns(), when);
  EXPECT_TRUE(Alarm::drain(alarm.get()));
  EXPECT_FALSE(readable(alarm.get()));
}

TEST_F(WakeupTest, AlarmInThePastFiresNowAndNeverDisarms) {
  const Fd alarm = Alarm::open();
  Alarm::set(alarm.get(), 0);
  EXPECT_TRUE(readable(alarm.get(), 5000));
  Alarm::set(alarm.get(), now_ns() + 5 * kMillisecond);
  Alarm::set(alarm.get(), kNever);
  EXPECT_FALSE(readable(alarm.get(), 30));
}

TEST_F(WakeupTest, PollerIsADescriptorThatSumsUp) {
  const Result<Fd> epoll = Poller::open();
  const Fd bell = Bell::open();
  const Fd fifo = reader(2);
  ASSERT_TRUE(Poller::add(epoll.value().get(), bell.get()));
  ASSERT_TRUE(Poller::add(epoll.value().get(), fifo.get()));
  EXPECT_FALSE(Poller::add(epoll.value().get(), -1));
  EXPECT_FALSE(Poller::wait(epoll.value().get(), now_ns()));
  writers.signal(dir.get(), 2);
  EXPECT_TRUE(readable(epoll.value().get()));
  EXPECT_TRUE(Poller::wait(epoll.value().get(), kNever));
}

TEST_F(WakeupTest, PollerHonoursItsDeadline) {
  const Result<Fd> epoll = Poller::open();
  const std::uint64_t deadline = now_ns() + 10 * kMillisecond;
  EXPECT_FALSE(Poller::wait(epoll.value().get(), deadline));
  EXPECT_GE(now_ns(), deadline);
}

TEST_F(WakeupTest, DeathWatchFiresOnSigkill) {
  CELERIAC_TEST_FORKS();
  OwnerLock mine = OwnerLock::open(dir.get(), 0600, root.path()).take();
  const Fd watch = DeathWatch::open(root.file("owners.lock"));
  if (!watch.valid())
    GTEST_SKIP() << "no inotify instance left: raise fs.inotify.max_user_instances";
  for (int round = 0; round < 20; ++round) {
    const Gate ready;
    Child other = Child::run([&] {
      OwnerLock theirs = OwnerLock::open(dir.get(), 0600, root.path()).take();
      mine.close();  // as the fork listener does
      const bool got = theirs.try_lock(OwnerLock::kFirstOwnerByte);
      ready.open();
      for (;;) pause();
      return got;
    });
    ASSERT_TRUE(ready.pass());
    DeathWatch::drain(watch.get());
    ASSERT_FALSE(readable(watch.get()));
    other.kill();
    ASSERT_TRUE(readable(watch.get(), 5000)) << round;
    ASSERT_TRUE(DeathWatch::drain(watch.get()));
  }
}

TEST_F(WakeupTest, DeathWatchWithoutFileIsInvalid) {
  EXPECT_FALSE(DeathWatch::open(root.file("absent")).valid());
}

TEST_F(WakeupTest, ThreadsOfOursTakeNoSignals) {
  std::thread([] {
    block_all_signals();
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    for (const int s : {SIGINT, SIGTERM, SIGCHLD, SIGUSR1}) EXPECT_EQ(sigismember(&now, s), 1);
  }).join();
}

}  // namespace
}  // namespace celeriac
