// Limiter and concurrency handles: conversion only. hit() and peek() don't go through pybind11's
// dispatcher (fastcall.hpp), and make their Decision, a named tuple of Python's, themselves.
#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "bindings/codec.hpp"
#include "bindings/errors.hpp"
#include "bindings/fastcall.hpp"
#include "bindings/handles.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

PyTypeObject* g_decision = nullptr;  // kept for the life of the process

// REQUIRES: a named tuple of six fields.
void set_decision_type(const py::type& type) {
  Py_XSETREF(g_decision, reinterpret_cast<PyTypeObject*>(Py_NewRef(type.ptr())));
}

LimiterHandle& limiter_handle(PyObject* self) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  void* held = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
  if (held == nullptr) throw py::type_error("this Limiter wasn't made by Store.limiter()");
  return *static_cast<LimiterHandle*>(held);
}

// TypeError, ConfigurationError; what is above what a rate can give is the core's to say.
std::uint64_t cost_of(PyObject* cost) {
  if (cost == nullptr) return 1;
  if (!PyLong_Check(cost) || PyBool_Check(cost)) {
    throw py::type_error(std::string("cost is an int, not ") + Py_TYPE(cost)->tp_name);
  }
  int beyond = 0;
  const long long value = PyLong_AsLongLongAndOverflow(cost, &beyond);
  if (beyond == 0 && value >= 1) return static_cast<std::uint64_t>(value);
  raise({Code::kConfiguration, "cost=" + std::string(py::str(cost)) +
                                   (beyond > 0 ? ": more than any rate gives" : ": at least 1")});
}

PyObject* decision(const LimiterHandle& l, const LimitDecision& d) {
  if (g_decision == nullptr) throw py::type_error("no type for decisions");
  const std::size_t which = d.which < l.policies.size() ? d.which : 0;
  PyObject* tuple = g_decision->tp_alloc(g_decision, 6);
  if (tuple == nullptr) throw py::error_already_set();
  const auto owned = py::reinterpret_steal<py::object>(tuple);
  const auto seconds = [](std::uint64_t ns) {
    return PyFloat_FromDouble(static_cast<double>(ns) / 1e9);
  };
  PyTuple_SET_ITEM(tuple, 0, truth(d.allowed || l.shadow));
  PyTuple_SET_ITEM(tuple, 1, PyLong_FromUnsignedLongLong(l.limits[which]));
  PyTuple_SET_ITEM(tuple, 2, PyLong_FromUnsignedLongLong(d.remaining));
  PyTuple_SET_ITEM(tuple, 3, seconds(d.retry_ns));
  PyTuple_SET_ITEM(tuple, 4, seconds(d.reset_ns));
  PyTuple_SET_ITEM(tuple, 5, Py_NewRef(l.policies[which].ptr()));
  for (Py_ssize_t i = 1; i < 5; ++i) {
    if (PyTuple_GET_ITEM(tuple, i) == nullptr) throw py::error_already_set();
  }
  return Py_NewRef(tuple);
}

template <Result<LimitDecision> (LimiterEngine::*call)(std::string_view, std::uint64_t)>
PyObject* ask(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("key", "cost"));
  return guarded([&] {
    std::array<PyObject*, 2> given{};
    if (!Given{args, n, names}.sort(known, 1, &given)) {
      throw py::type_error("wrong arguments; help() shows those of this method");
    }
    LimiterHandle& l = limiter_handle(self);
    const std::uint64_t cost = cost_of(given[1]);
    return decision(l, take(((*l.engine).*call)(key_bytes(given[0]), cost)));
  });
}

PyMethodDef* limiter_methods() {
  static PyMethodDef all[] = {
      fast_method("hit", &ask<&LimiterEngine::hit>, "hit($self, key, cost=1)\n--\n\n"),
      fast_method("peek", &ask<&LimiterEngine::peek>, "peek($self, key, cost=1)\n--\n\n"),
      {nullptr, nullptr, 0, nullptr},
  };
  return all;
}

// None waits for ever; zero and below don't wait.
std::uint64_t until(py::handle timeout) {
  const bool wait = timeout.is_none() || PyFloat_AsDouble(timeout.ptr()) > 0;
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return wait ? expiry(timeout) : 0;
}

// For tests: the arithmetic of a rate, at any time. (allowed, word, remaining, retry, reset) in ns.
py::tuple decide_rate(const std::tuple<unsigned, std::uint64_t, std::uint64_t, std::uint64_t>& rate,
                      std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  const auto [form, count, period, burst] = rate;
  const Rate r{static_cast<RateForm>(form), count, period, burst};
  check(check_rate(r));
  if (cost > r.most()) throw py::value_error("cost");
  const Verdict v = celeriac::decide(r, word, now, cost);
  return py::make_tuple(v.allowed, v.word, v.remaining, v.retry_ns, v.reset_ns);
}

std::uint64_t refund_rate(
    const std::tuple<unsigned, std::uint64_t, std::uint64_t, std::uint64_t>& rate,
    std::uint64_t word, std::uint64_t now, std::uint64_t cost) {
  const auto [form, count, period, burst] = rate;
  const Rate r{static_cast<RateForm>(form), count, period, burst};
  check(check_rate(r));
  return refunded(r, word, now, cost);
}

}  // namespace

// (name, limit, how many are in) of each that somebody is in.
py::list concurrencies_of(StoreHandle& s) {
  py::list all;
  for (const EngineUse& use : take(s.engine->concurrencies())) {
    PyObject* name =
        PyUnicode_DecodeUTF8(use.name.data(), static_cast<Py_ssize_t>(use.name.size()), "replace");
    all.append(py::make_tuple(py::reinterpret_steal<py::object>(name), use.limit, use.inside));
  }
  return all;
}

void register_limits(py::module_& m) {
  py::class_<LimiterHandle> limiter(m, "Limiter");
  add_methods(reinterpret_cast<PyTypeObject*>(limiter.ptr()), limiter_methods());
  limiter
      .def(
          "reset", [](LimiterHandle& l, py::handle key) { check(l.engine->reset(key_bytes(key))); },
          py::arg("key"))
      .def(
          "refund",
          [](LimiterHandle& l, py::handle key, py::handle cost) {
            check(l.engine->refund(key_bytes(key), cost_of(cost.ptr())));
          },
          py::arg("key"), py::arg("cost"));
  py::class_<ConcurrencyHandle>(m, "Concurrency")
      .def(
          "enter",
          [](ConcurrencyHandle& c, py::handle timeout) {
            return take(c.engine->enter(until(timeout)));
          },
          py::arg("timeout"))
      .def(
          "leave", [](ConcurrencyHandle& c, std::uint64_t place) { check(c.engine->leave(place)); },
          py::arg("place"))
      .def("await_room", [](ConcurrencyHandle& c) { return take(c.engine->await()); })
      .def(
          "wait",
          [](ConcurrencyHandle& c, std::uint32_t seen, py::handle timeout) {
            return take(c.engine->wait(seen, expiry(timeout)));
          },
          py::arg("seen"), py::arg("timeout"))
      .def("inside", [](ConcurrencyHandle& c) { return take(c.engine->inside()); })
      .def("limit", [](ConcurrencyHandle& c) { return take(c.engine->limit()); });
  m.def("set_decision_type", &set_decision_type, py::arg("type"));
  m.def("decide_rate", &decide_rate, py::arg("rate"), py::arg("word"), py::arg("now"),
        py::arg("cost"));
  m.def("refund_rate", &refund_rate, py::arg("rate"), py::arg("word"), py::arg("now"),
        py::arg("cost"));
}

}  // namespace celeriac::bindings
