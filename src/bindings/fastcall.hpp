// Methods that CPython calls straight away, without pybind11's dispatcher (which costs as much as a
// whole lookup in a cache). For the few calls that are hot.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <exception>
#include <new>

namespace celeriac::bindings {

using FastCall = PyObject* (*)(PyObject* self, PyObject* const* args, Py_ssize_t n,
                               PyObject* names);

// What a call was given: positional arguments, then those by name.
struct Given {
  PyObject* const* args;
  Py_ssize_t n;
  PyObject* names;  // a tuple, or nullptr

  // Puts each in its place by position or name; what isn't given stays nullptr. False for too
  // many, an unknown name, one given twice, or a missing one of the first `required`.
  template <std::size_t size>
  bool sort(const std::array<PyObject*, size>& known, std::size_t required,
            std::array<PyObject*, size>* to) const {
    if (n > static_cast<Py_ssize_t>(size)) return false;
    for (Py_ssize_t i = 0; i < n; ++i) (*to)[static_cast<std::size_t>(i)] = args[i];
    const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < named; ++i) {
      const std::size_t place = find(known, PyTuple_GET_ITEM(names, i));
      if (place == size || (*to)[place] != nullptr) return false;
      (*to)[place] = args[n + i];
    }
    for (std::size_t i = 0; i < required; ++i) {
      if ((*to)[i] == nullptr) return false;
    }
    return true;
  }

 private:
  template <std::size_t size>
  static std::size_t find(const std::array<PyObject*, size>& known, PyObject* name) {
    std::size_t place = 0;
    while (place < size && known[place] != name) ++place;
    if (place < size) return place;  // names in source code are interned, as ours are
    for (place = 0; place < size; ++place) {
      if (PyUnicode_Compare(known[place], name) == 0) break;
    }
    return place;
  }
};

template <class... Names>
std::array<PyObject*, sizeof...(Names)> interned(const Names*... names) {
  return {PyUnicode_InternFromString(names)...};
}

// Runs what may throw, as CPython wants it: nullptr with the error set.
template <class Call>
PyObject* guarded(const Call& call) {
  try {
    return call();
  } catch (pybind11::error_already_set& e) {
    e.restore();
  } catch (const pybind11::builtin_exception& e) {
    e.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return nullptr;
}

inline PyObject* truth(bool value) { return Py_NewRef(value ? Py_True : Py_False); }

// An entry of a table of methods. `doc` begins with the signature, as in "get($self, key)\n--\n\n".
inline PyMethodDef fast_method(const char* name, FastCall call, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)),
          METH_FASTCALL | METH_KEYWORDS, doc};
}

// The method as a function, of the object and the method's arguments.
template <FastCall call>
PyObject* as_function(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  if (n > 0) return call(args[0], args + 1, n - 1, names);
  PyErr_SetString(PyExc_TypeError, "a method needs its object");
  return nullptr;
}

// Gives a type a method that has a `__func__` where it is looked up, as one in Python has.
inline void add_bound_method(PyObject* type, PyMethodDef* function) {
  namespace py = pybind11;
  const auto f = py::reinterpret_steal<py::object>(PyCFunction_New(function, nullptr));
  if (!f) throw py::error_already_set();
  const auto method = py::reinterpret_steal<py::object>(PyInstanceMethod_New(f.ptr()));
  if (!method) throw py::error_already_set();
  py::setattr(type, function->ml_name, method);
}

// Gives a type a table of methods, which ends with an empty one and lives as long as the process.
inline void add_methods(PyTypeObject* type, PyMethodDef* methods) {
  for (; methods->ml_name != nullptr; ++methods) {
    PyObject* method = PyDescr_NewMethod(type, methods);
    if (method == nullptr) throw pybind11::error_already_set();
    const auto owned = pybind11::reinterpret_steal<pybind11::object>(method);
    pybind11::setattr(reinterpret_cast<PyObject*>(type), methods->ml_name, owned);
  }
}

}  // namespace celeriac::bindings
