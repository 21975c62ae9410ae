// How often the reads of one context (a request, a task) have hit and missed.
//
// A context variable of Python's names the tally that counts; where nobody has set one, a read
// costs a look at one flag. Several threads of one context (a view that hands work to a pool) may
// count into the same tally, under the interpreter lock.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string_view>

#include "bindings/handles.hpp"

namespace celeriac::bindings {

struct Tally {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
};

// The tally of the running context, or nullptr. REQUIRES: the interpreter lock.
Tally* current_tally();

// engine->get() of a cache of the user's, counted as a read in its statistics and in the tally.
inline Result<bool> read(const CacheHandle& c, std::string_view key, ValueBuffer& to) {
  Result<bool> found = c.engine->get(key, to, true);
  if (!c.tallied || !found) return found;
  if (Tally* tally = current_tally()) ++(found.value() ? tally->hits : tally->misses);
  return found;
}

// What read() has just counted as a hit was none.
inline void tally_miss(const CacheHandle& c) {
  Tally* tally = c.tallied ? current_tally() : nullptr;
  if (tally == nullptr || tally->hits == 0) return;
  --tally->hits;
  ++tally->misses;
}

}  // namespace celeriac::bindings
