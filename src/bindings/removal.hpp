// Deleting a key, as Python's Cache.delete() does it, for the keys that ask for nothing more.
#pragma once

#include <cstring>
#include <optional>
#include <string_view>

#include "engine/engine.hpp"

namespace celeriac::bindings {

// True when the key was there, and is gone. Nothing, and nothing was done, where more is to do than
// that: the key is being computed, or its entry is packed with more than a value.
// `flights`, `space`: the table of single_flight.py, and what stands before a key there. It is
// looked at before the key goes (F4 there): a flight that takes off later reads what is true then.
inline Result<std::optional<bool>> remove_plain(CacheEngine& cache, CacheEngine& flights,
                                                std::string_view space, std::string_view key) {
  char place[2048];
  if (space.size() + key.size() > sizeof place) return std::optional<bool>();
  std::memcpy(place, space.data(), space.size());
  std::memcpy(place + space.size(), key.data(), key.size());
  const Result<Met> flight = flights.probe({place, space.size() + key.size()});
  if (!flight) return flight.status();
  if (flight.value() != Met::kNothing) return std::optional<bool>();
  const Result<Met> removed = cache.erase(key, 0, Which::kPlain);
  if (!removed) return removed.status();
  if (removed.value() == Met::kPacked) return std::optional<bool>();
  return std::optional<bool>(removed.value() == Met::kPlain);
}

}  // namespace celeriac::bindings
