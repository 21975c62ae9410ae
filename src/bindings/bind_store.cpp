// Store handles: conversion only.
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/bindings.hpp"
#include "bindings/errors.hpp"
#include "bindings/handles.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

StoreHandle open_local_store(const std::string& root, const std::string& name, std::uint64_t memory,
                             bool memory_given, unsigned mode, bool create, unsigned durability) {
  LocalOptions options;
  options.root = root;
  options.name = name;
  options.memory = memory;
  options.memory_given = memory_given;
  options.mode = mode;
  options.create = create;
  options.durability = static_cast<Durability>(durability);
  return {take(open_local(options))};
}

CacheHandle cache(StoreHandle& s, const std::string& name, bool table, bool pickle_all,
                  bool unpickles, const std::string& overflow, std::uint32_t lead) {
  return {take(s.engine->cache({name, table, overflow, lead})), pickle_all, unpickles,
          !table && !name.starts_with("celeriac.")};
}

QueueHandle queue(StoreHandle& s, const std::string& name, bool create, bool given,
                  std::uint64_t max_length, std::uint64_t max_deliveries, bool drop_oldest,
                  bool owner_bound, const std::string& dead_letter, double visibility,
                  double dedup_ttl, const std::pair<std::uint64_t, double>& keep_done,
                  const std::pair<std::uint64_t, double>& keep_failed) {
  const auto nanoseconds = [](double seconds) {
    return seconds > 0 ? static_cast<std::uint64_t>(std::min(seconds, 9e9) * 1e9) : 0;
  };
  QueueOptions options;
  options.create = create;
  options.given = given;
  options.max_length = max_length;
  options.max_deliveries = max_deliveries;
  options.drop_oldest = drop_oldest;
  options.owner_bound = owner_bound;
  options.dead_letter = dead_letter;
  options.visibility_ns = nanoseconds(visibility);
  options.dedup_ns = nanoseconds(dedup_ttl);
  options.keep_done = keep_done.first;
  options.keep_done_ns = nanoseconds(keep_done.second);
  options.keep_dead = keep_failed.first;
  options.keep_dead_ns = nanoseconds(keep_failed.second);
  return {take(s.engine->queue(name, options))};
}

// `rates`: (form, count, period in ns, burst) of each.
LimiterHandle limiter(StoreHandle& s, const std::string& name, const py::list& rates,
                      const py::list& policies, bool shadow) {
  LimiterHandle made;
  std::vector<Rate> all;
  for (const py::handle rate : rates) {
    const auto [form, count, period, burst] =
        py::cast<std::tuple<unsigned, std::uint64_t, std::uint64_t, std::uint64_t>>(rate);
    all.push_back({static_cast<RateForm>(form), count, period, burst});
    made.limits.push_back(all.back().most());
  }
  for (const py::handle policy : policies) {
    made.policies.push_back(py::reinterpret_borrow<py::object>(policy));
  }
  if (made.policies.size() != all.size()) throw py::value_error("a policy for each rate");
  made.engine = take(s.engine->limiter(name, all));
  made.shadow = shadow;
  return made;
}

py::dict stats(StoreHandle& s) {
  py::dict all;
  for (const auto& [name, value] : take(s.engine->stats())) all[name.c_str()] = value;
  return all;
}

// One that isn't UTF-8 any more is damaged: nobody can ask for it.
py::list readable(const std::vector<std::string>& names) {
  py::list all;
  for (const std::string& name : names) {
    PyObject* text =
        PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), nullptr);
    if (text == nullptr) {
      PyErr_Clear();
      continue;
    }
    all.append(py::reinterpret_steal<py::object>(text));
  }
  return all;
}

py::list owners(StoreHandle& s) {
  py::list all;
  for (const EngineOwner& o : take(s.engine->owners())) {
    py::dict one;
    one["slot"] = o.slot;
    one["epoch"] = o.epoch;
    one["pid"] = o.pid;
    one["started"] = static_cast<double>(o.started_wall_ns) / 1e9;
    one["command"] = py::str(PyUnicode_DecodeUTF8(
        o.command.data(), static_cast<Py_ssize_t>(o.command.size()), "replace"));
    one["alive"] = o.alive;
    all.append(one);
  }
  return all;
}

}  // namespace

void register_store(py::module_& m) {
  py::class_<StoreHandle>(m, "Store")
      .def("cache", &cache, py::arg("name"), py::arg("table"), py::arg("pickle_all"),
           py::arg("unpickles") = true, py::arg("overflow") = "", py::arg("lead") = 0)
      .def("queue", &queue, py::arg("name"), py::arg("create"), py::arg("given"),
           py::arg("max_length"), py::arg("max_deliveries"), py::arg("drop_oldest"),
           py::arg("owner_bound"), py::arg("dead_letter"), py::arg("visibility"),
           py::arg("dedup_ttl"), py::arg("keep_done"), py::arg("keep_failed"))
      .def("limiter", &limiter, py::arg("name"), py::arg("rates"), py::arg("policies"),
           py::arg("shadow"))
      .def(
          "concurrency",
          [](StoreHandle& s, const std::string& name, std::uint32_t limit) {
            return ConcurrencyHandle{take(s.engine->concurrency(name, limit))};
          },
          py::arg("name"), py::arg("limit"))
      .def(
          "lock",
          [](StoreHandle& s, const std::string& name, std::uint32_t permits) {
            return LockHandle{take(s.engine->lock(name, permits))};
          },
          py::arg("name"), py::arg("permits"))
      .def("locks", &locks_of)
      .def(
          "is_locked",
          [](StoreHandle& s, const std::string& name) { return take(s.engine->is_locked(name)); },
          py::arg("name"))
      .def("metrics", [](StoreHandle& s) { return MetricsHandle{s.engine->metrics()}; })
      .def("caches", [](StoreHandle& s) { return readable(take(s.engine->caches(false))); })
      .def("tables", [](StoreHandle& s) { return readable(take(s.engine->caches(true))); })
      .def(
          "has_queue",
          [](StoreHandle& s, const std::string& name) { return take(s.engine->has_queue(name)); },
          py::arg("name"))
      .def("queues", [](StoreHandle& s) { return readable(take(s.engine->queues())); })
      .def("waiter", [](StoreHandle& s) { return WaiterHandle{take(s.engine->waiter())}; })
      .def("stats", &stats)
      .def("owners", &owners)
      .def("identity", [](StoreHandle& s) { return take(s.engine->identity()); })
      .def(
          "is_alive",
          [](StoreHandle& s, const std::string& who) { return take(s.engine->is_alive(who)); },
          py::arg("identity"))
      .def("recover", [](StoreHandle& s) { return take(s.engine->recover()); })
      .def(
          "resize",
          [](StoreHandle& s, std::uint64_t memory) { return take(s.engine->resize(memory)); },
          py::arg("memory"))
      .def(
          "backup", [](StoreHandle& s, const std::string& to) { check(s.engine->backup(to)); },
          py::arg("path"))
      .def_property_readonly("path", [](StoreHandle& s) { return s.engine->path(); })
      .def("close", [](StoreHandle& s) { check(s.engine->close()); })
      .def_property_readonly("closed", [](StoreHandle& s) { return !s.engine->is_open(); })
      .def(
          "destroy", [](StoreHandle& s, bool force) { check(s.engine->destroy(force)); },
          py::arg("force"));
  m.def("open_local", &open_local_store, py::arg("root"), py::arg("name"), py::arg("memory"),
        py::arg("memory_given"), py::arg("mode"), py::arg("create"), py::arg("durability") = 1);
}

}  // namespace celeriac::bindings
