#include "engine/local/cache.hpp"

#include <algorithm>

namespace celeriac {
namespace {

constexpr int kMostMoves = 64;

}  // namespace

Result<std::uint32_t> open_space(LocalHandle& handle, const CacheRequest& request, bool create,
                                 OwnerTag me) {
  Cache& cache = handle.core().cache();
  const NamespaceRequest wanted{request.name, request.table, request.overflow, create,
                                request.lead};
  if (cache.namespaces().sweep_due()) cache.eviction().drop_absent(me);
  Result<std::uint32_t> space = cache.namespaces().open(wanted, me);
  if (space || space.status().code() != Code::kNotEnoughMemory) return space;
  cache.eviction().drop_absent(me);  // caches whose entries have all expired are empty after it
  return cache.namespaces().open(wanted, me);
}

Result<OwnerTag> LocalCache::enter(std::string_view key) {
  if (key.size() > kMaxKeyBytes) {
    return Status(Code::kValueTooLarge, "a key of " + std::to_string(key.size()) +
                                            " bytes is longer than the limit of " +
                                            std::to_string(kMaxKeyBytes));
  }
  return handle_->enter();
}

Result<std::uint32_t> LocalCache::place(bool create, OwnerTag me) {
  const std::uint32_t space = space_.load(std::memory_order_relaxed);
  if (handle_->core().cache().namespaces().good(space)) return space;
  Result<std::uint32_t> found = open_space(*handle_, request_, create, me);
  if (!found) return found;
  if (const std::uint64_t most = limit_.load(std::memory_order_relaxed); most != kNever) {
    const Result<bool> limited =
        handle_->core().cache().limit(found.value(), static_cast<std::uint32_t>(most), me);
    if (!limited) return limited.status();
  }
  space_.store(found.value(), std::memory_order_relaxed);
  return found;
}

template <class T, class Call>
Result<T> LocalCache::in_space(std::string_view key, bool create, T absent, const Call& call) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  for (int i = 0; i < kMostMoves; ++i) {
    const Result<std::uint32_t> space = place(create, me.value());
    if (!space && space.status().code() == Code::kNotFound) return absent;
    if (!space) return space.status();
    Result<T> result = call(space.value(), me.value());
    if (handle_->core().cache().namespaces().good(space.value())) return result;
  }
  return moved_too_often();
}

Status LocalCache::moved_too_often() const {
  return {Code::kLockTimeout, "the cache \"" + request_.name +
                                  "\" loses its place to others again and again: the store has too "
                                  "many caches in use at once; try again"};
}

Result<bool> LocalCache::get(std::string_view key, ValueBuffer& to, bool counted) {
  return in_space(key, false, false, [&](std::uint32_t space, OwnerTag me) -> Result<bool> {
    return handle_->core().cache().get(space, key, to, counted, me);
  });
}

Result<Met> LocalCache::probe(std::string_view key) {
  return in_space(key, false, Met::kNothing, [&](std::uint32_t space, OwnerTag me) -> Result<Met> {
    return handle_->core().cache().probe(space, key, me);
  });
}

Result<bool> LocalCache::store(std::string_view key, const Value& value, std::uint64_t expires,
                               StoreMode mode, std::uint64_t version) {
  return in_space(key, true, false, [&](std::uint32_t space, OwnerTag me) {
    return handle_->core().cache().store(space, key, value, expires, mode, version, me);
  });
}

Result<Met> LocalCache::erase(std::string_view key, std::uint64_t version, Which which) {
  return in_space(key, false, Met::kNothing, [&](std::uint32_t space, OwnerTag me) {
    return handle_->core().cache().erase(space, key, me, version, which);
  });
}

Result<Met> LocalCache::touch(std::string_view key, std::uint64_t expires, Which which) {
  return in_space(key, false, Met::kNothing, [&](std::uint32_t space, OwnerTag me) {
    return handle_->core().cache().touch(space, key, expires, me, which);
  });
}

Result<IncrementResult> LocalCache::increment(std::string_view key, std::int64_t delta,
                                              std::int64_t* result) {
  return in_space(key, false, IncrementResult::kMissing, [&](std::uint32_t space, OwnerTag me) {
    return handle_->core().cache().increment(space, key, delta, result, me);
  });
}

Result<bool> LocalCache::clear() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Cache& cache = handle_->core().cache();
  for (int i = 0; i < kMostMoves; ++i) {
    const Result<std::uint32_t> space = place(false, me.value());
    if (!space && space.status().code() == Code::kNotFound) return true;  // nothing to remove
    if (!space) return space.status();
    if (!request_.overflow.empty() && cache.namespaces().is_overflow(space.value())) return false;
    Result<bool> cleared = cache.clear(space.value(), me.value());
    if (!cleared || cleared.value()) return cleared;
  }
  return moved_too_often();
}

Result<std::uint64_t> LocalCache::cull(std::uint64_t n) {
  return in_space({}, false, std::uint64_t{0},
                  [&](std::uint32_t space, OwnerTag me) -> Result<std::uint64_t> {
                    return handle_->core().cache().eviction().cull(space, n, me);
                  });
}

Status LocalCache::limit(std::uint32_t max_entries) {
  limit_.store(max_entries, std::memory_order_relaxed);
  return in_space({}, true, true,
                  [&](std::uint32_t space, OwnerTag me) {
                    return handle_->core().cache().limit(space, max_entries, me);
                  })
      .status();
}

Result<std::uint64_t> LocalCache::entries() {
  return in_space({}, false, std::uint64_t{0},
                  [&](std::uint32_t space, OwnerTag) -> Result<std::uint64_t> {
                    return handle_->core().cache().entries(space);
                  });
}

Result<CacheCounts> LocalCache::counts() {
  CacheCounts none;
  none.bytes_limit = handle_->core().arena().capacity();
  return in_space({}, false, none, [&](std::uint32_t space, OwnerTag) -> Result<CacheCounts> {
    return handle_->core().cache().counts(space);
  });
}

Result<PrefixRows> LocalCache::prefixes() {
  return in_space({}, false, PrefixRows{}, [&](std::uint32_t space, OwnerTag) {
    return Result<PrefixRows>(
        handle_->core().cache().namespaces().prefixes().list(space_index(space)));
  });
}

Status LocalCache::each(const std::function<bool(std::string_view, const ValueBuffer&)>& visit) {
  return in_space({}, false, true,
                  [&](std::uint32_t space, OwnerTag me) -> Result<bool> {
                    handle_->core().cache().each(space, me, visit);
                    return true;
                  })
      .status();
}

Result<std::uint32_t> LocalCache::change_count(std::string_view key) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().change_count(space_.load(std::memory_order_relaxed), key);
}

Result<bool> LocalCache::wait_for_change(std::string_view key, std::uint32_t seen,
                                         std::uint64_t deadline_ns) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  for (;;) {
    // The watcher sees to it that an owner's death wakes us; without it we look for ourselves.
    const std::uint64_t poll = handle_->core().poll_interval();
    const std::uint64_t until =
        poll == kNever ? deadline_ns : std::min(deadline_ns, now_ns() + poll);
    Result<bool> changed = handle_->core().cache().wait_for_change(
        space_.load(std::memory_order_relaxed), key, seen, until);
    const Result<OwnerTag> still = handle_->enter();  // it may have been closed while we slept
    if (!still) return still.status();
    if (!changed || changed.value() || until == deadline_ns) return changed;
    handle_->core().recovery().run();
  }
}

}  // namespace celeriac
