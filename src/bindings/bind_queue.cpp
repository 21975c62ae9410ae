// Queue, message and waiter handles: conversion only.
#include "bindings/bindings.hpp"
#include "bindings/codec.hpp"
#include "bindings/errors.hpp"
#include "bindings/handles.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

std::uint64_t put(QueueHandle& q, py::handle body, const py::bytes& headers, std::uint8_t priority,
                  double delay, py::handle ttl) {
  PutRequest m;
  m.body = key_bytes(body);
  m.headers = headers;
  m.priority = priority;
  m.due = delay > 0 ? deadline_after(delay) : 0;
  m.expires = expiry(ttl);
  return take(q.engine->put(m));
}

py::object get(QueueHandle& q, py::handle timeout) {
  // None waits for ever; zero and below don't wait.
  const bool wait = timeout.is_none() || PyFloat_AsDouble(timeout.ptr()) > 0;
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  std::unique_ptr<EngineMessage> m = take(q.engine->get(wait ? expiry(timeout) : 0));
  if (!m) return py::none();
  MessageHandle handle;
  handle.body = py::bytes(m->body().data(), m->body().size());
  handle.headers = py::bytes(m->headers().data(), m->headers().size());
  handle.engine = std::move(m);
  return py::cast(std::move(handle));
}

py::tuple counts(QueueHandle& q) {
  const EngineCounts n = take(q.engine->counts());
  return py::make_tuple(n.ready, n.delayed, n.reserved, n.dead, n.done, n.dropped);
}

// [(id, body or None where it is damaged, headers, priority, deliveries, seconds until due)]
py::list peek(QueueHandle& q, const std::string& state, std::size_t limit) {
  const Peek which = state == "ready"     ? Peek::kReady
                     : state == "delayed" ? Peek::kDelayed
                                          : Peek::kDead;
  py::list all;
  const std::uint64_t now = now_ns();
  for (const PeekedMessage& p : take(q.engine->peek(which, limit))) {
    const double left = p.due > now ? static_cast<double>(p.due - now) / 1e9 : 0.0;
    const py::object body = p.damaged ? py::object(py::none()) : py::object(py::bytes(p.body));
    all.append(py::make_tuple(p.id, body, py::bytes(p.headers), p.priority, p.deliveries, left));
  }
  return all;
}

}  // namespace

void register_queue(py::module_& m) {
  py::class_<MessageHandle>(m, "Message")
      .def_property_readonly("body", [](const MessageHandle& h) { return h.body; })
      .def_property_readonly("headers", [](const MessageHandle& h) { return h.headers; })
      .def_property_readonly("id", [](const MessageHandle& h) { return h.engine->id(); })
      .def_property_readonly("deliveries",
                             [](const MessageHandle& h) { return h.engine->deliveries(); })
      .def_property_readonly("priority",
                             [](const MessageHandle& h) { return h.engine->priority(); })
      .def("ack", [](MessageHandle& h) { check(h.engine->ack()); })
      .def(
          "nack",
          [](MessageHandle& h, double delay) {
            check(h.engine->nack(delay > 0 ? deadline_after(delay) : 0));
          },
          py::arg("delay") = 0.0);

  py::class_<QueueHandle>(m, "Queue")
      .def("put", &put, py::arg("body"), py::arg("headers"), py::arg("priority"), py::arg("delay"),
           py::arg("ttl"))
      .def("get", &get, py::arg("timeout"))
      .def("counts", &counts)
      .def("peek", &peek, py::arg("state"), py::arg("limit"))
      .def("purge", [](QueueHandle& q) { return take(q.engine->purge()); })
      .def("remove", [](QueueHandle& q) { return take(q.engine->remove()); });

  py::class_<WaiterHandle>(m, "Waiter")
      .def("fileno", [](WaiterHandle& w) { return take(w.engine->fd()); })
      .def(
          "watch", [](WaiterHandle& w, QueueHandle& q) { check(w.engine->watch(*q.engine)); },
          py::arg("queue"))
      .def(
          "unwatch", [](WaiterHandle& w, QueueHandle& q) { check(w.engine->unwatch(*q.engine)); },
          py::arg("queue"))
      .def("arm", [](WaiterHandle& w) { return take(w.engine->arm()); })
      .def("drain", [](WaiterHandle& w) { check(w.engine->drain()); })
      .def("nudge", [](WaiterHandle& w) { w.engine->nudge(); })
      .def("disarm", [](WaiterHandle& w) { check(w.engine->disarm()); })
      .def("close", [](WaiterHandle& w) { w.engine->close(); });
}

}  // namespace celeriac::bindings
