// One namespace as one attachment sees it, with verbs for tests.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "platform/clock.hpp"
#include "support/local_store.hpp"

namespace celeriac::test {

class Space {
 public:
  Space(LocalCore& core, std::string_view name, bool pinned = false)
      : core_(core), index_(must(core.cache().namespaces().open(name, pinned, me()))) {}

  OwnerTag me() const { return must(core_.enter()); }
  std::uint32_t index() const { return index_; }

  Result<bool> store(std::string_view key, std::string_view value, StoreMode mode,
                     std::uint64_t expires = kNever, std::uint64_t version = 0) {
    return core_.cache().store(index_, key, {Codec::kBytes, value}, expires, mode, version, me());
  }
  bool set(std::string_view key, std::string_view value, std::uint64_t expires = kNever) {
    return must(store(key, value, StoreMode::kSet, expires));
  }
  bool set_int(std::string_view key, std::int64_t n) {
    const std::string_view bytes(reinterpret_cast<const char*>(&n), sizeof n);
    return must(
        core_.cache().store(index_, key, {Codec::kInt, bytes}, kNever, StoreMode::kSet, 0, me()));
  }
  std::optional<std::string> get(std::string_view key) {
    ValueBuffer v;
    if (!core_.cache().get(index_, key, v, true, me())) return std::nullopt;
    return std::string(v.bytes());
  }
  bool has(std::string_view key) { return core_.cache().probe(index_, key, me()) != Met::kNothing; }
  std::uint64_t version(std::string_view key) {
    ValueBuffer v;
    return core_.cache().get(index_, key, v, false, me()) ? v.version : 0;
  }
  bool erase(std::string_view key) {
    return must(core_.cache().erase(index_, key, me())) != Met::kNothing;
  }
  bool touch(std::string_view key, std::uint64_t expires) {
    return must(core_.cache().touch(index_, key, expires, me())) != Met::kNothing;
  }
  IncrementResult increment(std::string_view key, std::int64_t by, std::int64_t* sum) {
    return must(core_.cache().increment(index_, key, by, sum, me()));
  }
  CacheCounts counts() { return core_.cache().counts(index_); }
  bool clear() { return must(core_.cache().clear(index_, me())); }
  bool limit(std::uint32_t max_entries) {
    return must(core_.cache().limit(index_, max_entries, me()));
  }
  std::uint64_t walk() {
    std::uint64_t n = 0;
    core_.cache().each(index_, me(),
                       [&](std::string_view, const ValueBuffer&) { return ++n, true; });
    return n;
  }

 private:
  LocalCore& core_;
  std::uint32_t index_;
};

// A value that can be checked: all of it follows from its first words.
inline std::string checkable(std::uint64_t seed, std::size_t size) {
  std::string v(size < 8 ? 8 : size, '\0');
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = static_cast<char>(i < 8 ? seed >> (i * 8) : (seed * 31 + i * 7) ^ (seed >> 9U));
  }
  return v;
}
inline std::uint64_t seed_of(std::string_view v) {
  std::uint64_t seed = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    seed |= static_cast<std::uint64_t>(static_cast<unsigned char>(v[i])) << (i * 8);
  }
  return seed;
}
inline bool is_whole(std::string_view v) {
  return v.size() >= 8 && v == checkable(seed_of(v), v.size());
}

}  // namespace celeriac::test
