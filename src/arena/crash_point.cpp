#include "arena/crash_point.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <mutex>

namespace celeriac {
namespace {

struct Armed {
  std::mutex mutex;
  std::string name;
  std::string action;
  unsigned left = 0;
  std::vector<std::string> passed;
  std::atomic<bool> any{false};
};

void load_environment(Armed& a) {
  const char* spec = std::getenv("CELERIAC_CRASH");  // NOLINT(concurrency-mt-unsafe): read once
  if (spec == nullptr) return;
  const std::string text = spec;
  const std::size_t first = text.find(':');
  const std::size_t second = text.find(':', first == std::string::npos ? first : first + 1);
  a.name = text.substr(0, first);
  a.left = first == std::string::npos
               ? 1U
               : static_cast<unsigned>(std::strtoul(text.c_str() + first + 1, nullptr, 10));
  a.action = second == std::string::npos ? "kill" : text.substr(second + 1);
  a.any.store(true, std::memory_order_relaxed);
}

Armed& armed() {
  static Armed* a = [] {
    auto* made = new Armed;
    load_environment(*made);
    return made;
  }();
  return *a;
}

}  // namespace

bool crash_points_compiled_in() {
#if defined(CELERIAC_CRASH_POINTS) && CELERIAC_CRASH_POINTS
  return true;
#else
  return false;
#endif
}

void arm_crash_point(const std::string& name, unsigned nth, const std::string& action) {
  Armed& a = armed();
  const std::lock_guard lock(a.mutex);
  a.name = name;
  a.left = nth;
  a.action = action;
  a.passed.clear();
  a.any.store(true, std::memory_order_relaxed);
}

std::vector<std::string> crash_points_passed() {
  Armed& a = armed();
  const std::lock_guard lock(a.mutex);
  return a.passed;
}

#if defined(CELERIAC_CRASH_POINTS) && CELERIAC_CRASH_POINTS
void crash_point(const char* name) {
  Armed& a = armed();
  if (!a.any.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(a.mutex);
  if (std::find(a.passed.begin(), a.passed.end(), name) == a.passed.end()) {
    a.passed.emplace_back(name);
  }
  if (a.action == "count" || a.left == 0 || a.name != name || --a.left > 0) return;
  std::raise(a.action == "stop" ? SIGSTOP : SIGKILL);
}
#endif

}  // namespace celeriac
