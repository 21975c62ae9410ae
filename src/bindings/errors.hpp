// Status -> Python exception.
#pragma once

#include <pybind11/pybind11.h>

#include "platform/status.hpp"

namespace celeriac::bindings {

void register_errors(pybind11::module_& m);

// The base of all of them.
pybind11::handle celeriac_error();

// Throws the Python exception for a failed Status. REQUIRES: the interpreter lock.
[[noreturn]] void raise(const Status& status);
// The same with an attribute set on the exception.
[[noreturn]] void raise_with(const Status& status, const char* name,
                             const pybind11::object& attribute);
// Throws SerializationError with the current Python error as its cause.
[[noreturn]] void raise_serialization(const char* what, pybind11::handle value);

inline void check(const Status& status) {
  if (!status.is_ok()) raise(status);
}

template <class T>
T take(Result<T> result) {
  if (!result.is_ok()) raise(result.status());
  return result.take();
}

}  // namespace celeriac::bindings
