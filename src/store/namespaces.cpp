#include "store/namespaces.hpp"

#include <algorithm>
#include <cstring>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t pack(std::uint64_t state, std::uint64_t flags, std::uint32_t generation) {
  return state << 56U | flags << 48U | generation;
}

}  // namespace

std::uint32_t Namespaces::count() const {
  return std::min(base_.arena.header().namespace_high.load(std::memory_order_acquire),
                  layout::kMaxNamespaces);
}

std::uint32_t Namespaces::generation(std::uint32_t index) const {
  return static_cast<std::uint32_t>(record(index).word.load(std::memory_order_acquire));
}

bool Namespaces::pinned(std::uint32_t index) const {
  return (record(index).word.load(std::memory_order_relaxed) >> 48U & kPinned) != 0;
}

Result<std::uint32_t> Namespaces::open(std::string_view name, bool pinned, OwnerTag me) {
  if (name.empty() || name.size() > sizeof(layout::NamespaceRecord::name)) {
    return Status(Code::kConfiguration, "a namespace's name has 1 to 240 bytes, this one has " +
                                            std::to_string(name.size()));
  }
  OwnerMutex mutex(base_.arena.header().directory, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of namespaces");
  const std::uint32_t n = count();
  for (std::uint32_t i = 0; i < n; ++i) {
    const layout::NamespaceRecord& r = record(i);
    const std::uint32_t length = r.name_length.load(std::memory_order_relaxed);
    if (length != name.size() || std::memcmp(r.name, name.data(), length) != 0) continue;
    if (this->pinned(i) != pinned) {
      return Status(Code::kConfiguration,
                    "\"" + std::string(name) + "\" is a " + (pinned ? "cache" : "table") +
                        " of this store and can't be opened as a " + (pinned ? "table" : "cache"));
    }
    return i;
  }
  if (n == layout::kMaxNamespaces) {
    return Status(Code::kNotEnoughMemory,
                  "the store has " + std::to_string(layout::kMaxNamespaces) +
                      " namespaces and room for no more: need one, have none; put a prefix into "
                      "the keys instead");
  }
  layout::NamespaceRecord& r = record(n);
  std::memcpy(r.name, name.data(), name.size());
  r.name_length.store(static_cast<std::uint32_t>(name.size()), std::memory_order_relaxed);
  r.word.store(pack(1, pinned ? kPinned : 0, 1), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("namespaces.open.written");
  // release pairs with the acquire in count()
  base_.arena.header().namespace_high.store(n + 1, std::memory_order_release);
  CELERIAC_CRASH_POINT("namespaces.open.counted");
  return n;
}

void Namespaces::clear(std::uint32_t index) {
  layout::Word& w = record(index).word;
  std::uint64_t old = w.load(std::memory_order_relaxed);
  std::uint64_t next = 0;
  do {
    std::uint32_t generation = static_cast<std::uint32_t>(old) + 1;
    if (generation == 0) generation = 1;
    next = (old & ~0xFFFFFFFFULL) | generation;
    // release: entries set before the clear are not seen as of the new generation
  } while (!w.compare_exchange_weak(old, next, std::memory_order_acq_rel));
  CELERIAC_CRASH_POINT("namespaces.clear.done");
}

void Namespaces::limit(std::uint32_t index, std::uint32_t max_entries) {
  record(index).max_entries.store(max_entries, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("namespaces.limit.stored");
}

std::vector<NamespaceName> Namespaces::list() const {
  std::vector<NamespaceName> all;
  const std::uint32_t n = count();
  for (std::uint32_t i = 0; i < n; ++i) {
    const layout::NamespaceRecord& r = record(i);
    const std::uint32_t length =
        std::min<std::uint32_t>(r.name_length.load(std::memory_order_relaxed), sizeof r.name);
    all.push_back({i, pinned(i), std::string(r.name, length)});
  }
  return all;
}

}  // namespace celeriac
