// A store for tests of cache and queue: verbs that keep each test a few lines long.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/local/core.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"
#include "support/temporary_root.hpp"

namespace celeriac::test {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.status().message());
  return result.take();
}

inline std::shared_ptr<LocalCore> open_core(const ArenaOptions& options) {
  return must(LocalCore::open(options));
}

// Another attachment of this process to the same store, with a mapping of its own. ThreadSanitizer
// knows words by their address: what one mapping releases and the other acquires isn't an order to
// it, and it would report what isn't there. So with it, it is the same attachment.
inline std::shared_ptr<LocalCore> second_core(const std::shared_ptr<LocalCore>& first,
                                              const ArenaOptions& options) {
  return kThreadSanitizer ? first : open_core(options);
}

// First line of each test that can't do with the same attachment.
#define CELERIAC_TEST_NEEDS_TWO_MAPPINGS()                                                  \
  if (::celeriac::test::kThreadSanitizer) {                                                 \
    GTEST_SKIP() << "ThreadSanitizer takes two mappings of a file for two memories: build " \
                    "without CELERIAC_SANITIZE=thread";                                     \
  }                                                                                         \
  static_cast<void>(0)

// Ends without a word, as if killed; destroy it only after a recovery.
inline void die(LocalCore& core) { core.base().owners.lock().close(); }

class LocalStoreTest : public ::testing::Test {
 protected:
  explicit LocalStoreTest(std::uint64_t memory = 16ULL << 20U)
      : options(root.options(memory)), core(open_core(options)) {}

  OwnerTag me() { return must(core->enter()); }
  Heap& heap() { return core->base().heap; }
  // Reaps the dead and frees what they left, by whatever it takes.
  int recover(LocalCore& by) {
    const OwnerTag who = must(by.enter());
    const int reaped = by.recovery().run();
    by.base().heap.sweep(who);
    return reaped;
  }
  int recover() { return recover(*core); }

  TemporaryRoot root;
  ArenaOptions options;
  std::shared_ptr<LocalCore> core;
};

}  // namespace celeriac::test
