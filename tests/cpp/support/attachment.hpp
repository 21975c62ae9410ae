// An arena and its owners, as one process has them. Several in one process are several owners: each
// has a lock description of its own, so `die()` is, for the kernel and for the others, a death.
#pragma once

#include <memory>
#include <stdexcept>

#include "arena/arena.hpp"
#include "arena/owners.hpp"
#include "arena/recovery.hpp"
#include "support/temporary_root.hpp"

namespace celeriac::test {

struct Attachment {
  explicit Attachment(const ArenaOptions& options) {
    Result<std::unique_ptr<Arena>> a = Arena::open(options);
    if (!a) throw std::runtime_error(a.status().message());
    arena = a.take();
    Result<std::unique_ptr<Owners>> o = Owners::open(*arena);
    if (!o) throw std::runtime_error(o.status().message());
    owners = o.take();
    recovery = std::make_unique<Recovery>(*owners);
  }

  OwnerTag join() {
    Result<OwnerTag> tag = owners->identity();
    if (!tag) throw std::runtime_error(tag.status().message());
    return tag.value();
  }
  // Ends without a word, as if killed.
  void die() { owners->lock().close(); }

  std::unique_ptr<Arena> arena;
  std::unique_ptr<Owners> owners;
  std::unique_ptr<Recovery> recovery;
};

}  // namespace celeriac::test
