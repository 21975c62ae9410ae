// Journals as files: conversion only.
#include "bindings/bindings.hpp"
#include "bindings/errors.hpp"
#include "engine/engine.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

py::str text(const std::string& s) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "replace"));
}

py::dict verify(const std::string& path, bool messages) {
  py::dict of;
  std::function<void(std::uint64_t, const JournalReport::Message&)> each;
  if (messages) {
    each = [&](std::uint64_t id, const JournalReport::Message& m) {
      of[py::int_(id)] =
          py::make_tuple(m.queue, m.state, m.deliveries, m.priority, m.place, py::bytes(m.reason),
                         py::bytes(m.headers), py::bytes(m.body));
    };
  }
  const JournalReport r = take(verify_journal(path, each));
  py::dict all;
  all["segments"] = r.segments;
  all["records"] = r.records;
  all["messages"] = r.messages;
  all["next_number"] = r.next_number;
  all["synced"] = r.synced;
  all["damaged"] = r.damaged;
  py::list damages;
  for (const std::string& d : r.damages) damages.append(text(d));
  all["damages"] = damages;
  py::dict queues;
  for (const auto& [number, q] : r.names) {
    queues[py::int_(number)] = py::make_tuple(text(q.first), text(q.second));
  }
  all["queues"] = queues;
  py::list keys;
  for (const JournalReport::Key& k : r.keys) {
    keys.append(py::make_tuple(k.message, k.queue, k.until_wall_ns, py::bytes(k.text)));
  }
  all["keys"] = keys;
  if (messages) all["contents"] = of;
  return all;
}

}  // namespace

void register_journal(py::module_& m) {
  m.def("verify_journal", &verify, py::arg("path"), py::arg("messages") = false);
  m.def(
      "restore_journal",
      [](const std::string& directory, const std::string& backup, unsigned mode) {
        check(restore_journal(directory, backup, mode));
      },
      py::arg("directory"), py::arg("backup"), py::arg("mode"));
}

}  // namespace celeriac::bindings
