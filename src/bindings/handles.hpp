// What the Python objects hold.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "engine/engine.hpp"

namespace celeriac::bindings {

struct CacheHandle {
  std::unique_ptr<CacheEngine> engine;
  bool pickle_all = false;
};

struct QueueHandle {
  std::unique_ptr<QueueEngine> engine;
};

struct MessageHandle {
  std::unique_ptr<EngineMessage> engine;
  pybind11::bytes body;  // copied at once: the message's own views end with ack
  pybind11::bytes headers;
};

struct WaiterHandle {
  std::unique_ptr<WaiterEngine> engine;
};

struct StoreHandle {
  std::shared_ptr<StoreEngine> engine;
};

}  // namespace celeriac::bindings
