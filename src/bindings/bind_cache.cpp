// Cache and table handles: conversion only.
#include "bindings/bindings.hpp"
#include "bindings/codec.hpp"
#include "bindings/errors.hpp"
#include "bindings/handles.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

py::object get(CacheHandle& c, py::handle key, py::object otherwise) {
  ValueBuffer value;
  if (!take(c.engine->get(key_bytes(key), value, true))) return otherwise;
  return decode(value.codec, value.bytes());
}

py::object get_versioned(CacheHandle& c, py::handle key) {
  ValueBuffer value;
  if (!take(c.engine->get(key_bytes(key), value, true))) return py::make_tuple(py::none(), 0);
  return py::make_tuple(decode(value.codec, value.bytes()), value.version);
}

py::dict get_many(CacheHandle& c, py::iterable keys) {
  py::dict found;
  ValueBuffer value;
  for (const py::handle key : keys) {
    if (take(c.engine->get(key_bytes(key), value, true))) {
      found[key] = decode(value.codec, value.bytes());
    }
  }
  return found;
}

template <StoreMode mode>
bool store(CacheHandle& c, py::handle key, py::handle object, py::handle ttl) {
  Encoded e;
  encode(object, c.pickle_all, &e);
  return take(c.engine->store(key_bytes(key), e.value, expiry(ttl), mode, 0));
}

bool compare_and_set(CacheHandle& c, py::handle key, std::uint64_t version, py::handle object,
                     py::handle ttl) {
  Encoded e;
  encode(object, c.pickle_all, &e);
  return take(c.engine->store(key_bytes(key), e.value, expiry(ttl), StoreMode::kCompare, version));
}

// The sum; None when the key is missing, False when it isn't an int, True beyond 64 bits.
py::object increment(CacheHandle& c, py::handle key, std::int64_t delta) {
  std::int64_t sum = 0;
  switch (take(c.engine->increment(key_bytes(key), delta, &sum))) {
    case IncrementResult::kDone:
      return py::int_(sum);
    case IncrementResult::kMissing:
      return py::none();
    case IncrementResult::kNotInteger:
      return py::bool_(false);
    case IncrementResult::kOverflow:
      break;
  }
  return py::bool_(true);
}

// Seconds left; None = no expiry; below zero = missing.
py::object ttl(CacheHandle& c, py::handle key) {
  ValueBuffer value;
  if (!take(c.engine->get(key_bytes(key), value, false))) return py::float_(-1.0);
  if (value.expires == kNever) return py::none();
  const std::uint64_t now = now_ns();
  return py::float_(value.expires > now ? static_cast<double>(value.expires - now) / 1e9 : 0.0);
}

py::tuple counts(CacheHandle& c) {
  const CacheCounts n = take(c.engine->counts());
  return py::make_tuple(n.hits, n.misses, n.sets, n.deletes, n.evictions, n.expirations, n.entries,
                        n.bytes, n.bytes_limit);
}

py::list items(CacheHandle& c) {
  py::list all;
  check(c.engine->each([&](std::string_view key, const ValueBuffer& value) {
    PyObject* text = PyUnicode_DecodeUTF8(key.data(), static_cast<Py_ssize_t>(key.size()), nullptr);
    if (text == nullptr) PyErr_Clear();
    const py::object name = text != nullptr ? py::reinterpret_steal<py::object>(text)
                                            : py::object(py::bytes(key.data(), key.size()));
    all.append(py::make_tuple(name, decode(value.codec, value.bytes())));
    return true;
  }));
  return all;
}

bool wait_for_change(CacheHandle& c, py::handle key, std::uint32_t seen, py::handle timeout) {
  return take(c.engine->wait_for_change(key_bytes(key), seen, expiry(timeout)));
}

}  // namespace

void register_cache(py::module_& m) {
  py::class_<CacheHandle>(m, "Cache")
      .def("get", &get, py::arg("key"), py::arg("default") = py::none())
      .def("get_versioned", &get_versioned, py::arg("key"))
      .def("get_many", &get_many, py::arg("keys"))
      .def("set", &store<StoreMode::kSet>, py::arg("key"), py::arg("value"), py::arg("ttl"))
      .def("add", &store<StoreMode::kAdd>, py::arg("key"), py::arg("value"), py::arg("ttl"))
      .def("replace", &store<StoreMode::kReplace>, py::arg("key"), py::arg("value"), py::arg("ttl"))
      .def("compare_and_set", &compare_and_set, py::arg("key"), py::arg("version"),
           py::arg("value"), py::arg("ttl"))
      .def(
          "delete",
          [](CacheHandle& c, py::handle key) { return take(c.engine->erase(key_bytes(key))); },
          py::arg("key"))
      .def(
          "touch",
          [](CacheHandle& c, py::handle key, py::handle ttl) {
            return take(c.engine->touch(key_bytes(key), expiry(ttl)));
          },
          py::arg("key"), py::arg("ttl"))
      .def(
          "contains",
          [](CacheHandle& c, py::handle key) { return take(c.engine->contains(key_bytes(key))); },
          py::arg("key"))
      .def("increment", &increment, py::arg("key"), py::arg("delta"))
      .def("ttl", &ttl, py::arg("key"))
      .def("clear", [](CacheHandle& c) { check(c.engine->clear()); })
      .def(
          "cull", [](CacheHandle& c, std::uint64_t n) { return take(c.engine->cull(n)); },
          py::arg("n"))
      .def(
          "limit",
          [](CacheHandle& c, std::uint32_t max_entries) { check(c.engine->limit(max_entries)); },
          py::arg("max_entries"))
      .def("entries", [](CacheHandle& c) { return take(c.engine->entries()); })
      .def("counts", &counts)
      .def("items", &items)
      .def(
          "change_count",
          [](CacheHandle& c, py::handle key) {
            return take(c.engine->change_count(key_bytes(key)));
          },
          py::arg("key"))
      .def("wait_for_change", &wait_for_change, py::arg("key"), py::arg("seen"),
           py::arg("timeout"));
}

}  // namespace celeriac::bindings
