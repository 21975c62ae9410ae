#include "engine/local/cache.hpp"

#include <algorithm>

namespace celeriac {

Result<OwnerTag> LocalCache::enter(std::string_view key) {
  if (key.size() > kMaxKeyBytes) {
    return Status(Code::kValueTooLarge, "a key of " + std::to_string(key.size()) +
                                            " bytes is longer than the limit of " +
                                            std::to_string(kMaxKeyBytes));
  }
  return handle_->enter();
}

Result<bool> LocalCache::get(std::string_view key, ValueBuffer& to, bool counted) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().get(space_, key, to, counted, me.value());
}

Result<bool> LocalCache::contains(std::string_view key) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().contains(space_, key, me.value());
}

Result<bool> LocalCache::store(std::string_view key, const Value& value, std::uint64_t expires,
                               StoreMode mode, std::uint64_t version) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().store(space_, key, value, expires, mode, version, me.value());
}

Result<bool> LocalCache::erase(std::string_view key) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().erase(space_, key, me.value());
}

Result<bool> LocalCache::touch(std::string_view key, std::uint64_t expires) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().touch(space_, key, expires, me.value());
}

Result<IncrementResult> LocalCache::increment(std::string_view key, std::int64_t delta,
                                              std::int64_t* result) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().increment(space_, key, delta, result, me.value());
}

Status LocalCache::clear() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  handle_->core().cache().clear(space_, me.value());
  return Status::ok();
}

Result<std::uint64_t> LocalCache::cull(std::uint64_t n) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().cache().eviction().cull(space_, n, me.value());
}

Status LocalCache::limit(std::uint32_t max_entries) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  handle_->core().cache().limit(space_, max_entries, me.value());
  return Status::ok();
}

Result<std::uint64_t> LocalCache::entries() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().cache().entries(space_);
}

Result<CacheCounts> LocalCache::counts() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().cache().counts(space_);
}

Status LocalCache::each(const std::function<bool(std::string_view, const ValueBuffer&)>& visit) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  handle_->core().cache().each(space_, me.value(), visit);
  return Status::ok();
}

Result<std::uint32_t> LocalCache::change_count(std::string_view key) {
  const Result<OwnerTag> me = enter(key);
  if (!me) return me.status();
  return handle_->core().cache().change_count(space_, key);
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
    Result<bool> changed = handle_->core().cache().wait_for_change(space_, key, seen, until);
    const Result<OwnerTag> still = handle_->enter();  // it may have been closed while we slept
    if (!still) return still.status();
    if (!changed || changed.value() || until == deadline_ns) return changed;
    handle_->core().recovery().run();
  }
}

}  // namespace celeriac
