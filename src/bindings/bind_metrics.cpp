// Metric handles: conversion only. What changes a value doesn't go through pybind11's dispatcher
// (fastcall.hpp).
#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "bindings/errors.hpp"
#include "bindings/fastcall.hpp"
#include "bindings/handles.hpp"
#include "store/metric_text.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

MetricHandle& metric_handle(PyObject* self) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  void* held = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
  if (held == nullptr) throw py::type_error("this series wasn't made by a store");
  return *static_cast<MetricHandle*>(held);
}

double number(PyObject* value) {
  const double d = PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
  if (d == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return d;
}

// The one argument that these methods have, by position or name; null when it isn't given.
PyObject* only(PyObject* const* args, Py_ssize_t n, PyObject* names, const char* name) {
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  if (n + named == 0) return nullptr;
  if (n + named > 1 ||
      (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), name) != 0)) {
    throw py::type_error(std::string("wrong arguments: at most one, ") + name);
  }
  return args[0];
}

PyObject* added(MetricHandle& m, double amount) {
  Status done = m.engine->add(m.cell, amount);
  if (!done) {
    if (!m.quiet) raise(done);
    m.kept += amount;
  }
  return Py_NewRef(Py_None);
}

PyObject* inc(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  return guarded([&] {
    MetricHandle& m = metric_handle(self);
    PyObject* given = only(args, n, names, "amount");
    const double amount = given == nullptr ? 1.0 : number(given);
    if (m.rises && !(amount >= 0)) {
      throw py::value_error("counters can only be incremented by non-negative amounts");
    }
    return added(m, amount);
  });
}

PyObject* dec(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  return guarded([&] {
    PyObject* given = only(args, n, names, "amount");
    return added(metric_handle(self), given == nullptr ? -1.0 : -number(given));
  });
}

PyObject* observe(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  return guarded([&] {
    MetricHandle& m = metric_handle(self);
    PyObject* given = only(args, n, names, "amount");
    if (given == nullptr) throw py::type_error("observe() needs an amount");
    Status done = m.engine->observe(number(given));
    if (!done && !m.quiet) raise(done);
    return Py_NewRef(Py_None);
  });
}

PyObject* set(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  static const auto& known = *new auto(interned("value", "timestamp"));
  return guarded([&] {
    MetricHandle& m = metric_handle(self);
    std::array<PyObject*, 2> given{};
    if (!Given{args, n, names}.sort(known, 1, &given)) {
      throw py::type_error("wrong arguments: set(value, timestamp=None)");
    }
    const double value = number(given[0]);
    const double time = given[1] == nullptr || given[1] == Py_None
                            ? static_cast<double>(wall_ns()) / 1e9
                            : number(given[1]);
    Status done = m.engine->set(m.cell, value, time);
    if (!done) {
      if (!m.quiet) raise(done);
      m.kept = value;
    }
    return Py_NewRef(Py_None);
  });
}

PyMethodDef* metric_methods() {
  static PyMethodDef all[] = {
      fast_method("inc", &inc, "inc($self, amount=1)\n--\n\n"),
      fast_method("dec", &dec, "dec($self, amount=1)\n--\n\n"),
      fast_method("observe", &observe, "observe($self, amount)\n--\n\n"),
      fast_method("set", &set, "set($self, value, timestamp=None)\n--\n\n"),
      {nullptr, nullptr, 0, nullptr},
  };
  return all;
}

// Label values may hold what isn't UTF-8 only in a damaged store.
py::str text(const std::string& bytes) {
  PyObject* s =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
  if (s == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(s);
}

py::tuple view(const MetricFamilyView& f) {
  py::tuple names(f.labels.size());
  for (std::size_t i = 0; i < f.labels.size(); ++i) names[i] = text(f.labels[i]);
  py::list samples;
  for (const MetricSample& s : f.samples) {
    py::tuple labels(s.labels.size());
    for (std::size_t i = 0; i < s.labels.size(); ++i) labels[i] = text(s.labels[i]);
    samples.append(py::make_tuple(labels, s.process, s.created, s.values));
  }
  return py::make_tuple(text(f.name), text(f.scope), text(f.help), static_cast<unsigned>(f.type),
                        static_cast<unsigned>(f.mode), names, f.bounds, samples);
}

MetricFamilyHandle family(MetricsHandle& m, const std::string& name, const std::string& scope,
                          const std::string& help, unsigned type, unsigned mode,
                          const std::vector<std::string>& labels, const std::vector<double>& bounds,
                          std::uint32_t cap, double created) {
  MetricFamilySpec spec;
  spec.name = name;
  spec.scope = scope;
  spec.help = help;
  spec.type = static_cast<MetricType>(type % 4);
  spec.mode = static_cast<MetricMode>(mode % kMetricModes);
  spec.labels.assign(labels.begin(), labels.end());
  spec.bounds = bounds;
  spec.cap = cap;
  spec.created = created;
  return {take(m.engine->family(spec)), spec.type == MetricType::kCounter};
}

std::vector<std::string_view> views(const std::vector<std::string>& values) {
  return {values.begin(), values.end()};
}

// What the store says of its own metrics.
MetricFamilyView counted(const char* name, const char* help, std::uint64_t value) {
  MetricFamilyView f;
  f.name = name;
  f.help = help;
  f.samples.push_back({{}, "", 0, {static_cast<double>(value)}});
  return f;
}

std::vector<MetricFamilyView> with_own(MetricsHandle& m) {
  std::vector<MetricFamilyView> all = take(m.engine->collect());
  const MetricCounts c = take(m.engine->counts());
  all.push_back(counted("celeriac_dropped_series",
                        "Label sets that had no place: over the cap, or without memory.",
                        c.dropped));
  all.push_back(counted(
      "celeriac_lost_values",
      "Changes of values that had no place: of dropped series, or without memory.", c.lost));
  return all;
}

}  // namespace

void register_metrics(py::module_& m) {
  py::class_<MetricHandle> metric(m, "Metric");
  add_methods(reinterpret_cast<PyTypeObject*>(metric.ptr()), metric_methods());
  metric
      .def("get",
           [](MetricHandle& h) {
             const Result<double> got = h.engine->get(h.cell);
             if (!got && !h.quiet) raise(got.status());
             return (got ? got.value() : 0.0) + h.kept;
           })
      .def(
          "reset",
          [](MetricHandle& h, double created) {
            h.kept = 0;
            Status done = h.engine->reset(created);
            if (!done && !h.quiet) raise(done);
          },
          py::arg("created"))
      .def("retire", [](MetricHandle& h) { h.engine->retire(); })
      .def_property_readonly("dropped", [](const MetricHandle& h) { return h.engine->dropped(); })
      .def(
          "cell",
          [](const MetricHandle& h, std::uint32_t cell) {
            return MetricHandle{h.engine, cell, h.rises, true, 0};
          },
          py::arg("number"));
  py::class_<MetricFamilyHandle>(m, "MetricFamily")
      .def(
          "series",
          [](MetricFamilyHandle& f, const std::vector<std::string>& labels, double created) {
            return MetricHandle{take(f.engine->series(views(labels), created)), 0, f.rises, false,
                                0};
          },
          py::arg("labels"), py::arg("created"))
      .def(
          "remove",
          [](MetricFamilyHandle& f, const std::vector<std::string>& labels) {
            return take(f.engine->remove(views(labels)));
          },
          py::arg("labels"))
      .def("clear", [](MetricFamilyHandle& f) { return take(f.engine->clear()); })
      .def("collect", [](MetricFamilyHandle& f) { return view(take(f.engine->collect())); });
  py::class_<MetricsHandle>(m, "Metrics")
      .def("family", &family, py::arg("name"), py::arg("scope"), py::arg("help"), py::arg("type"),
           py::arg("mode"), py::arg("labels"), py::arg("bounds"), py::arg("cap"),
           py::arg("created"))
      .def("collect",
           [](MetricsHandle& h) {
             py::list all;
             for (const MetricFamilyView& f : with_own(h)) all.append(view(f));
             return all;
           })
      .def(
          "exposition",
          [](MetricsHandle& h, bool openmetrics) {
            return py::bytes(metric_text(with_own(h), openmetrics));
          },
          py::arg("openmetrics"))
      .def("counts", [](MetricsHandle& h) {
        const MetricCounts c = take(h.engine->counts());
        py::dict all;
        all["families"] = c.families;
        all["series"] = c.series;
        all["processes"] = c.stripes;
        all["dropped"] = c.dropped;
        all["lost"] = c.lost;
        return all;
      });
}

}  // namespace celeriac::bindings
