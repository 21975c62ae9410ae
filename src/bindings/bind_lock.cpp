// Lock handles: conversion only. Taking what is free and releasing it, which is what most calls
// are, go without pybind11's dispatcher (fastcall.hpp).
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/bindings.hpp"
#include "bindings/errors.hpp"
#include "bindings/fastcall.hpp"
#include "bindings/handles.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

std::uint64_t lease(double seconds) {
  return seconds > 0 ? static_cast<std::uint64_t>(std::min(seconds, 9e9) * 1e9) + 1 : 0;
}

// Below zero waits for ever; zero doesn't wait.
std::uint64_t until(double timeout) {
  return timeout < 0 ? kNever : timeout == 0 ? 0 : deadline_after(timeout);
}

py::tuple taken(const LockTaken& t) { return py::make_tuple(t.place, t.token); }

LockHandle& handle(PyObject* self) { return *py::handle(self).cast<LockHandle*>(); }

PyObject* take_now(PyObject* self, PyObject* const*, Py_ssize_t n, PyObject* names) {
  return guarded([&]() -> PyObject* {
    if (n != 0 || names != nullptr) throw py::type_error("take() has no arguments");
    const LockTaken t = take(handle(self).engine->acquire(0, 0));
    return t.place == 0 ? Py_NewRef(Py_None) : taken(t).release().ptr();
  });
}

PyObject* release(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  return guarded([&]() -> PyObject* {
    static const auto known = interned("place");
    std::array<PyObject*, 1> place{};
    if (!Given{args, n, names}.sort(known, 1, &place)) {
      throw py::type_error("release() has one argument, place");
    }
    const std::uint64_t number = PyLong_AsUnsignedLongLong(place[0]);
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    check(handle(self).engine->release(number));
    return Py_NewRef(Py_None);
  });
}

PyMethodDef fast[] = {
    fast_method("take", &take_now, "take($self)\n--\n\n"),
    fast_method("release", &release, "release($self, place)\n--\n\n"),
    {},
};

py::dict shown(const EngineHolder& h) {
  const std::uint64_t now = now_ns();
  const auto seconds = [](std::uint64_t from, std::uint64_t to) {
    return to > from ? static_cast<double>(to - from) / 1e9 : 0.0;
  };
  const auto text = [](const std::string& s) {
    return py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "replace"));
  };
  py::dict one;
  one["name"] = text(h.name);
  one["pid"] = h.pid;
  one["command"] = text(h.command);
  one["token"] = h.token;
  one["age"] = seconds(h.since, now);
  one["ttl"] = h.until == kNever ? py::object(py::none()) : py::float_(seconds(now, h.until));
  one["permits"] = h.permits;
  one["holds"] = h.holds;
  return one;
}

py::list shown(const std::vector<EngineHolder>& all) {
  py::list list;
  for (const EngineHolder& h : all) list.append(shown(h));
  return list;
}

}  // namespace

py::list locks_of(StoreHandle& s) { return shown(take(s.engine->locks())); }

void register_lock(py::module_& m) {
  py::class_<LockHandle> lock(m, "Lock");
  lock.def(
          "acquire",
          [](LockHandle& l, double ttl, double timeout) {
            return taken(take(l.engine->acquire(lease(ttl), until(timeout))));
          },
          py::arg("ttl"), py::arg("timeout"))
      .def(
          "enter",
          [](LockHandle& l, double ttl) { return taken(take(l.engine->enter(lease(ttl)))); },
          py::arg("ttl"))
      .def(
          "wait",
          [](LockHandle& l, std::uint64_t place, double timeout) {
            return take(l.engine->wait(place, until(timeout)));
          },
          py::arg("place"), py::arg("timeout"))
      .def(
          "leave", [](LockHandle& l, std::uint64_t place) { check(l.engine->leave(place)); },
          py::arg("place"))
      .def(
          "renew",
          [](LockHandle& l, std::uint64_t place, double ttl) {
            check(l.engine->renew(place, lease(ttl)));
          },
          py::arg("place"), py::arg("ttl"))
      .def("holders", [](LockHandle& l) {
        const auto [holders, waiting] = take(l.engine->holders());
        return py::make_tuple(shown(holders), waiting);
      });
  add_methods(reinterpret_cast<PyTypeObject*>(lock.ptr()), fast);
}

}  // namespace celeriac::bindings
