// Queue, message and waiter handles: conversion only.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>

#include "bindings/bindings.hpp"
#include "bindings/codec.hpp"
#include "bindings/errors.hpp"
#include "bindings/handles.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

PutRequest request(const py::bytes& headers, std::uint8_t priority, double delay, py::handle ttl) {
  PutRequest m;
  m.headers = headers;
  m.priority = priority;
  m.due = delay > 0 ? deadline_after(delay) : 0;
  m.expires = expiry(ttl);
  return m;
}

// None waits for ever; zero and below don't wait.
std::uint64_t wait_until(py::handle timeout) {
  const bool wait = timeout.is_none() || PyFloat_AsDouble(timeout.ptr()) > 0;
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return wait ? expiry(timeout) : 0;
}

std::uint64_t nanoseconds(double seconds) {
  return seconds > 0 ? static_cast<std::uint64_t>(std::min(seconds, 9e9) * 1e9) : 0;
}

// An id as users see it: 16 hexadecimal digits.
py::str shown(std::uint64_t id) {
  std::array<char, 16> digits{};
  for (std::size_t i = digits.size(); i-- > 0; id >>= 4U) digits[i] = "0123456789abcdef"[id & 0xFU];
  return {digits.data(), digits.size()};
}

py::str put(QueueHandle& q, py::handle body, const py::bytes& headers, std::uint8_t priority,
            double delay, py::handle ttl) {
  PutRequest m = request(headers, priority, delay, ttl);
  m.body = key_bytes(body);
  return shown(take(q.engine->put(m)));
}

// The same for puts that may wait, or have a key. `window` None: the queue's.
py::str put_with(QueueHandle& q, py::handle body, const py::bytes& headers, std::uint8_t priority,
                 double delay, py::handle ttl, py::handle key, const std::optional<double>& window,
                 py::handle timeout) {
  PutRequest m = request(headers, priority, delay, ttl);
  m.body = key_bytes(body);
  if (!key.is_none()) m.key = key_bytes(key);
  if (window) m.key_ns = nanoseconds(*window);
  m.deadline_ns = wait_until(timeout);
  return shown(take(q.engine->put(m)));
}

// REQUIRES: `bodies` are str and bytes, and stay as they are meanwhile.
py::list put_many(QueueHandle& q, const py::list& bodies, const py::bytes& headers,
                  std::uint8_t priority, double delay, py::handle ttl, py::handle timeout) {
  PutRequest m = request(headers, priority, delay, ttl);
  m.deadline_ns = wait_until(timeout);
  std::vector<PutRequest> messages(bodies.size(), m);
  for (std::size_t i = 0; i < messages.size(); ++i) messages[i].body = key_bytes(bodies[i]);
  std::vector<std::uint64_t> ids;
  ids.reserve(messages.size());
  const Status status = q.engine->put_many(messages, &ids);
  py::list put(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) put[i] = shown(ids[i]);
  if (!status) raise_with(status, "ids", put);
  return put;
}

// Nothing when the reservation ended before the message was copied.
std::optional<MessageHandle> message(std::unique_ptr<EngineMessage> m) {
  MessageHandle handle;
  handle.body = py::bytes(m->body().data(), m->body().size());
  handle.headers = py::bytes(m->headers().data(), m->headers().size());
  if (!m->held()) return std::nullopt;
  handle.engine = std::move(m);
  return handle;
}

py::object get(QueueHandle& q, py::handle timeout) {
  const std::uint64_t deadline = wait_until(timeout);
  for (;;) {
    std::unique_ptr<EngineMessage> m = take(q.engine->get(deadline));
    if (!m) return py::none();
    if (auto found = message(std::move(m))) return py::cast(std::move(*found));
  }
}

py::list get_many(QueueHandle& q, std::size_t n, py::handle timeout) {
  std::vector<std::unique_ptr<EngineMessage>> found;
  const Status status = q.engine->get_many(n, wait_until(timeout), &found);
  if (found.empty()) check(status);  // else it comes again with the next call
  py::list all;
  for (auto& m : found) {
    if (auto held = message(std::move(m))) all.append(py::cast(std::move(*held)));
  }
  return all;
}

py::tuple counts(QueueHandle& q) {
  const EngineCounts n = take(q.engine->counts());
  return py::make_tuple(n.ready, n.delayed, n.reserved, n.dead, n.done, n.dropped);
}

// What people wrote or we say about it, however it was cut.
py::object text(const std::string& utf8) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "replace"));
}

// [(id, body or None where it is damaged, headers, priority, deliveries, seconds until due, reason,
// seconds since it ended)]
py::list peek(QueueHandle& q, const std::string& state, std::size_t limit) {
  const Peek which = state == "ready"     ? Peek::kReady
                     : state == "delayed" ? Peek::kDelayed
                     : state == "dead"    ? Peek::kDead
                                          : Peek::kDone;
  py::list all;
  const std::uint64_t now = now_ns();
  const auto seconds = [](std::uint64_t from, std::uint64_t to) {
    return to > from ? static_cast<double>(to - from) / 1e9 : 0.0;
  };
  for (const PeekedMessage& p : take(q.engine->peek(which, limit))) {
    const py::object body = p.damaged ? py::object(py::none()) : py::object(py::bytes(p.body));
    all.append(py::make_tuple(p.id, body, py::bytes(p.headers), p.priority, p.deliveries,
                              seconds(now, p.due), text(p.reason), seconds(p.ended, now)));
  }
  return all;
}

py::object oldest_age(QueueHandle& q) {
  const std::uint64_t put = take(q.engine->oldest());
  const std::uint64_t now = now_ns();
  if (put == kNever) return py::none();
  return py::float_(now > put ? static_cast<double>(now - put) / 1e9 : 0.0);
}

// [(slot, epoch, reserved, waiting)]
py::list consumers(QueueHandle& q) {
  py::list all;
  for (const EngineConsumer& c : take(q.engine->consumers())) {
    all.append(py::make_tuple(c.slot, c.epoch, c.reserved, c.waiting));
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
      .def_property_readonly("reason",
                             [](const MessageHandle& h) { return text(h.engine->reason()); })
      .def("ack", [](MessageHandle& h) { check(h.engine->ack()); })
      .def(
          "nack",
          [](MessageHandle& h, double delay, const std::string& reason) {
            check(h.engine->nack(delay > 0 ? deadline_after(delay) : 0, reason));
          },
          py::arg("delay") = 0.0, py::arg("reason") = "")
      .def(
          "extend",
          [](MessageHandle& h, double seconds) {
            check(h.engine->extend(deadline_after(seconds)));
          },
          py::arg("seconds"));

  py::class_<QueueHandle>(m, "Queue")
      .def("put", &put, py::arg("body"), py::arg("headers"), py::arg("priority"), py::arg("delay"),
           py::arg("ttl"))
      .def("put_with", &put_with, py::arg("body"), py::arg("headers"), py::arg("priority"),
           py::arg("delay"), py::arg("ttl"), py::arg("key"), py::arg("window"), py::arg("timeout"))
      .def("put_many", &put_many, py::arg("bodies"), py::arg("headers"), py::arg("priority"),
           py::arg("delay"), py::arg("ttl"), py::arg("timeout"))
      .def("get", &get, py::arg("timeout"))
      .def("get_many", &get_many, py::arg("n"), py::arg("timeout"))
      .def("counts", &counts)
      .def("peek", &peek, py::arg("state"), py::arg("limit"))
      .def("purge", [](QueueHandle& q) { return take(q.engine->purge()); })
      .def("remove", [](QueueHandle& q) { return take(q.engine->remove()); })
      .def(
          "retry_dead",
          [](QueueHandle& q, const std::optional<std::vector<std::uint64_t>>& ids) {
            return take(q.engine->retry_dead(ids ? &*ids : nullptr));
          },
          py::arg("ids"))
      .def("purge_dead", [](QueueHandle& q) { return take(q.engine->purge_dead()); })
      .def(
          "cancel", [](QueueHandle& q, std::uint64_t id) { return take(q.engine->cancel(id)); },
          py::arg("id"))
      .def(
          "pause", [](QueueHandle& q, bool paused) { check(q.engine->pause(paused)); },
          py::arg("paused"))
      .def("paused", [](QueueHandle& q) { return take(q.engine->paused()); })
      .def("oldest_age", &oldest_age)
      .def("consumers", &consumers);

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
