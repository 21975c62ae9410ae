// The exception tree, and which Status becomes which.
//
//   CeleriacError (Exception)
//   |-- ConfigurationError (also ValueError)      kConfiguration
//   |-- StoreNotFound                             kNotFound
//   |-- VersionMismatch                           kVersionMismatch
//   |-- StoreCorrupt                              kCorrupt
//   |-- NotEnoughMemory                           kNotEnoughMemory
//   |-- ValueTooLarge                             kValueTooLarge
//   |-- SerializationError (also PickleError)     raised by the codec
//   |-- QueueFull                                 kQueueFull
//   |-- LockTimeout                               kLockTimeout
//   |-- LockLost                                  kLockLost
//   |-- NotOwner                                  kNotOwner
//   |-- ServerUnavailable (also ConnectionError)
//   `-- ServerError
#include "bindings/errors.hpp"

#include <array>
#include <string>

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

struct Kind {
  const char* name;
  const char* doc;
  PyObject* type;  // kept for the life of the process
};

enum Which : std::size_t {
  kBase,
  kConfigurationError,
  kStoreNotFound,
  kVersionMismatch,
  kStoreCorrupt,
  kNotEnoughMemory,
  kValueTooLarge,
  kSerializationError,
  kQueueFull,
  kLockTimeout,
  kLockLost,
  kNotOwner,
  kServerUnavailable,
  kServerError,
  kCount
};

std::array<Kind, kCount> g_kinds{{
    {"CeleriacError", "Base of all errors that celeriac raises.", nullptr},
    {"ConfigurationError", "A URL, option, path or permission is wrong, or a handle is closed.",
     nullptr},
    {"StoreNotFound", "There is no such store, and create=False.", nullptr},
    {"VersionMismatch", "The store was made by another version or build of celeriac.", nullptr},
    {"StoreCorrupt", "The store's files are damaged or not celeriac's.", nullptr},
    {"NotEnoughMemory",
     "The arena, the file system or a table of the store is full; the message says what is "
     "needed, what there is, and the setting.",
     nullptr},
    {"ValueTooLarge", "A key, value or message is larger than the store can hold.", nullptr},
    {"SerializationError", "A value can't be serialized, or a stored one can't be read.", nullptr},
    {"QueueFull", "The queue is at max_length, or the store has no memory for a message.", nullptr},
    {"LockTimeout", "A lock wasn't free in time.", nullptr},
    {"LockLost", "A lock was lost while it was held.", nullptr},
    {"NotOwner", "What is to be released or acknowledged isn't this process's (any more).",
     nullptr},
    {"ServerUnavailable", "The Redis server can't be reached.", nullptr},
    {"ServerError", "The Redis server answered with an error.", nullptr},
}};

Which which(Code code) {
  switch (code) {
    case Code::kConfiguration:
      return kConfigurationError;
    case Code::kNotFound:
      return kStoreNotFound;
    case Code::kVersionMismatch:
      return kVersionMismatch;
    case Code::kCorrupt:
      return kStoreCorrupt;
    case Code::kNotEnoughMemory:
      return kNotEnoughMemory;
    case Code::kValueTooLarge:
      return kValueTooLarge;
    case Code::kQueueFull:
      return kQueueFull;
    case Code::kNotOwner:
      return kNotOwner;
    case Code::kLockTimeout:
      return kLockTimeout;
    case Code::kLockLost:
      return kLockLost;
    case Code::kOk:
    case Code::kSystem:
    case Code::kInterrupted:
      break;
  }
  return kBase;
}

}  // namespace

void register_errors(py::module_& m) {
  const py::object pickle_error = py::module_::import("pickle").attr("PickleError");
  for (std::size_t i = 0; i < kCount; ++i) {
    py::tuple bases;
    if (i == kBase) {
      bases = py::make_tuple(py::handle(PyExc_Exception));
    } else if (i == kConfigurationError) {
      bases = py::make_tuple(py::handle(g_kinds[kBase].type), py::handle(PyExc_ValueError));
    } else if (i == kSerializationError) {
      bases = py::make_tuple(py::handle(g_kinds[kBase].type), pickle_error);
    } else if (i == kServerUnavailable) {
      bases = py::make_tuple(py::handle(g_kinds[kBase].type), py::handle(PyExc_ConnectionError));
    } else {
      bases = py::make_tuple(py::handle(g_kinds[kBase].type));
    }
    Kind& kind = g_kinds[i];
    const std::string name = std::string("celeriac.") + kind.name;
    kind.type = PyErr_NewExceptionWithDoc(name.c_str(), kind.doc, bases.ptr(), nullptr);
    if (kind.type == nullptr) throw py::error_already_set();
    m.attr(kind.name) = py::handle(kind.type);
  }
}

py::handle celeriac_error() { return g_kinds[kBase].type; }

void raise(const Status& status) {
  if (status.code() == Code::kInterrupted && PyErr_Occurred() != nullptr) {
    throw py::error_already_set();  // what the signal handler raised
  }
  PyErr_SetString(g_kinds[which(status.code())].type, status.message().c_str());
  throw py::error_already_set();
}

void raise_with(const Status& status, const char* name, const py::object& attribute) {
  try {
    raise(status);
  } catch (py::error_already_set& error) {
    error.value().attr(name) = attribute;
    error.restore();
  }
  throw py::error_already_set();
}

namespace {

// What str() says: cause.what() has a traceback in it as well.
std::string text_of(py::handle error) {
  try {
    return py::str(error);
  } catch (py::error_already_set&) {
    return "(whose text can't be had)";
  }
}

}  // namespace

void raise_serialization(const char* what, py::handle value) {
  py::error_already_set cause;  // takes the current error
  const std::string message =
      std::string(what) + " a value" +
      (value ? " of type " + std::string(Py_TYPE(value.ptr())->tp_name) : std::string()) + ": " +
      Py_TYPE(cause.value().ptr())->tp_name + ": " + text_of(cause.value());
  py::raise_from(cause, g_kinds[kSerializationError].type, message.c_str());
  throw py::error_already_set();
}

}  // namespace celeriac::bindings
