// What the Python objects hold.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "engine/engine.hpp"

namespace celeriac::bindings {

struct CacheHandle {
  std::unique_ptr<CacheEngine> engine;
  bool pickle_all = false;
  // False: what was pickled, by a cache of that name with another serializer, is no value here.
  bool unpickles = true;
  bool tallied = false;  // of the user's, so that a request's reads of it count (tally.hpp)
};

// May this entry be less than a plain value here, and even absent? Python knows.
inline bool is_packed(const CacheHandle& c, Codec codec) {
  return codec == Codec::kNamed || (codec == Codec::kPickle && !c.unpickles);
}

// That of a `_core.Cache`. REQUIRES: `self` is one, or of a subclass.
inline CacheHandle& cache_handle(PyObject* self) {
  auto* instance = reinterpret_cast<pybind11::detail::instance*>(self);
  void* held = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
  if (held == nullptr) throw pybind11::type_error("this Cache wasn't made by Store.cache()");
  return *static_cast<CacheHandle*>(held);
}

struct QueueHandle {
  std::unique_ptr<QueueEngine> engine;
};

struct MessageHandle {
  std::unique_ptr<EngineMessage> engine;
  pybind11::bytes body;  // copied at once: the message's own views end with ack
  pybind11::bytes headers;
};

// A series, or one value of it. `quiet`: a store that can't be used is no error, and what it would
// have been told is kept in `kept`, for this process alone.
struct MetricHandle {
  std::shared_ptr<MetricSeriesEngine> engine;
  std::uint32_t cell = 0;
  bool rises = false;  // a counter
  bool quiet = false;
  double kept = 0;
};

struct MetricFamilyHandle {
  std::unique_ptr<MetricFamilyEngine> engine;
  bool rises = false;
};

struct MetricsHandle {
  std::unique_ptr<MetricsEngine> engine;
};

struct WaiterHandle {
  std::unique_ptr<WaiterEngine> engine;
};

struct LimiterHandle {
  std::unique_ptr<LimiterEngine> engine;
  std::vector<pybind11::object> policies;  // of each rate, as a Decision names it
  std::vector<std::uint64_t> limits;
  bool shadow = false;  // whatever is decided, it is allowed
};

struct ConcurrencyHandle {
  std::unique_ptr<ConcurrencyEngine> engine;
};

struct LockHandle {
  std::unique_ptr<LockEngine> engine;
};

struct StoreHandle {
  std::shared_ptr<StoreEngine> engine;
};

// All who hold a lock of the store or wait for one (bind_lock.cpp).
pybind11::list locks_of(StoreHandle& store);

}  // namespace celeriac::bindings
