#include "platform/wakeup.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>

#include "platform/blocking.hpp"
#include "platform/clock.hpp"

namespace celeriac {
namespace {

std::string fifo_name(unsigned slot) { return "wake." + std::to_string(slot); }

bool drain_fd(int fd) {
  std::array<char, 4096> sink{};
  bool any = false;
  while (fd >= 0) {
    const ssize_t n = read(fd, sink.data(), sink.size());
    if (n > 0) any = true;
    if (n > 0 && static_cast<std::size_t>(n) == sink.size()) continue;
    if (n < 0 && errno == EINTR) continue;
    break;
  }
  return any;
}

}  // namespace

Result<Fd> Fifo::open_reader(int dir, unsigned slot, unsigned mode) {
  const std::string name = fifo_name(slot);
  const bool made = mkfifoat(dir, name.c_str(), mode) == 0;
  if (!made && errno != EEXIST) return Status::system("make FIFO " + name, errno);
  Fd fd(openat(dir, name.c_str(), O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return Status::system("open FIFO " + name, errno);
  struct stat s {};
  if (fstat(fd.get(), &s) != 0) return Status::system("fstat " + name, errno);
  if (!S_ISFIFO(s.st_mode) || s.st_uid != geteuid()) {
    return Status(Code::kConfiguration, name + " is not a FIFO of this user: remove it");
  }
  if (made) fchmod(fd.get(), mode);
  drain(fd.get());  // what a predecessor in this slot left
  return fd;
}

bool Fifo::drain(int fd) { return drain_fd(fd); }

FifoWriters::~FifoWriters() {
  for (unsigned i = 0; i < slots_; ++i) {
    const int fd = fds_[i].load(std::memory_order_relaxed);
    if (fd >= 0) close(fd);
  }
  delete[] fds_;
}

bool FifoWriters::signal(int dir, unsigned slot) {
  if (slot >= slots_) return false;
  std::atomic<int>& cell = fds_[slot];
  int fd = cell.load(std::memory_order_acquire);
  if (fd < 0) {
    const int fresh =
        openat(dir, fifo_name(slot).c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fresh < 0) return false;  // ENXIO: nobody reads
    int expected = -1;
    // acq_rel pairs with the acquire above: whoever sees the descriptor may use it.
    if (cell.compare_exchange_strong(expected, fresh, std::memory_order_acq_rel)) {
      fd = fresh;
    } else {
      close(fresh);
      fd = expected;
    }
  }
  // Python ignores SIGPIPE, and the reader holds the pipe open for writing too.
  const ssize_t n = write(fd, "!", 1);
  return n == 1 || errno == EAGAIN;
}

Fd DeathWatch::open(const std::string& lock_path) {
  Fd fd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (fd.valid() && inotify_add_watch(fd.get(), lock_path.c_str(), IN_CLOSE_WRITE) < 0) fd.reset();
  return fd;
}

bool DeathWatch::drain(int fd) { return drain_fd(fd); }

Fd Bell::open() { return Fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

void Bell::ring(int fd) {
  const std::uint64_t one = 1;
  if (fd >= 0) {
    [[maybe_unused]] const ssize_t n = write(fd, &one, sizeof one);  // full = rung already
  }
}

bool Bell::drain(int fd) { return drain_fd(fd); }

Fd Alarm::open() { return Fd(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)); }

void Alarm::set(int fd, std::uint64_t when) {
  itimerspec t{};
  if (when != kNever) {
    when = std::max<std::uint64_t>(when, 1);  // zero would disarm
    t.it_value.tv_sec = static_cast<time_t>(when / kSecond);
    t.it_value.tv_nsec = static_cast<long>(when % kSecond);
  }
  timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, nullptr);
}

bool Alarm::drain(int fd) { return drain_fd(fd); }

Result<Fd> Poller::open() {
  Fd fd(epoll_create1(EPOLL_CLOEXEC));
  if (!fd.valid()) return Status::system("epoll_create1", errno);
  return fd;
}

bool Poller::add(int epoll, int fd) {
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.fd = fd;
  return fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

bool Poller::wait(int epoll, std::uint64_t deadline_ns) {
  int timeout = -1;
  if (deadline_ns != kNever) {
    const std::uint64_t now = now_ns();
    const std::uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    timeout = static_cast<int>(
        std::min<std::uint64_t>((left + kMillisecond - 1) / kMillisecond, INT_MAX));
  }
  epoll_event e{};
  BlockingRegion sleeping;
  return epoll_wait(epoll, &e, 1, timeout) > 0;
}

std::size_t Poller::ready(int epoll, std::span<int> fds) {
  std::array<epoll_event, 8> events{};
  const int most = static_cast<int>(std::min(fds.size(), events.size()));
  const int found = epoll_wait(epoll, events.data(), most, 0);
  for (int i = 0; i < found; ++i) fds[static_cast<std::size_t>(i)] = events[i].data.fd;
  return static_cast<std::size_t>(std::max(found, 0));
}

bool Poller::wait_two(int a, int b, int timeout_ms) {
  std::array<pollfd, 2> fds{{{a, POLLIN, 0}, {b, POLLIN, 0}}};
  return poll(fds.data(), fds.size(), timeout_ms) > 0;
}

void block_all_signals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace celeriac
