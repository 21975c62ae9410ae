#include "bindings/codec.hpp"

#include <cmath>
#include <cstring>

#include "bindings/entries.hpp"
#include "bindings/errors.hpp"
#include "platform/clock.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

py::object& pickle_function(const char* name) {
  static auto* dumps = new py::object(py::module_::import("pickle").attr("dumps"));
  static auto* loads = new py::object(py::module_::import("pickle").attr("loads"));
  return std::strcmp(name, "dumps") == 0 ? *dumps : *loads;
}

void encode_pickle(py::handle object, Encoded* to) {
  constexpr int kProtocol = 5;
  PyObject* data = nullptr;
  try {
    data = pickle_function("dumps")(object, kProtocol).release().ptr();
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;  // KeyboardInterrupt and the like
    e.restore();
    raise_serialization("can't pickle", object);
  }
  to->keep = py::reinterpret_steal<py::object>(data);
  to->value = {Codec::kPickle,
               {PyBytes_AS_STRING(data), static_cast<std::size_t>(PyBytes_GET_SIZE(data))}};
}

void encode_int(py::handle object, Encoded* to) {
  int overflow = 0;
  const long long small = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
  if (overflow == 0) {
    const auto word = static_cast<std::int64_t>(small);
    std::memcpy(to->own, &word, sizeof word);
    to->value = {Codec::kInt, {to->own, sizeof word}};
    return;
  }
  const auto bits = object.attr("bit_length")().cast<std::size_t>();
  to->keep = object.attr("to_bytes")(bits / 8 + 1, "little", py::arg("signed") = true);
  to->value = {Codec::kBigInt, to->keep.cast<std::string_view>()};
}

}  // namespace

void encode(py::handle object, bool pickle_all, Encoded* to) {
  PyObject* o = object.ptr();
  if (encode_named(object, to)) return;
  if (PyLong_CheckExact(o)) {
    encode_int(object, to);  // whatever the serializer: incr() works on it
  } else if (pickle_all) {
    encode_pickle(object, to);
  } else if (o == Py_None) {
    to->value = {Codec::kNone, {}};
  } else if (o == Py_True || o == Py_False) {
    to->value = {o == Py_True ? Codec::kTrue : Codec::kFalse, {}};
  } else if (PyBytes_CheckExact(o)) {
    to->keep = py::reinterpret_borrow<py::object>(object);
    to->value = {Codec::kBytes,
                 {PyBytes_AS_STRING(o), static_cast<std::size_t>(PyBytes_GET_SIZE(o))}};
  } else if (PyUnicode_CheckExact(o)) {
    Py_ssize_t n = 0;
    const char* utf8 = PyUnicode_AsUTF8AndSize(o, &n);
    if (utf8 == nullptr) {  // lone surrogates: pickle knows how
      PyErr_Clear();
      encode_pickle(object, to);
      return;
    }
    to->keep = py::reinterpret_borrow<py::object>(object);
    to->value = {Codec::kStr, {utf8, static_cast<std::size_t>(n)}};
  } else {
    encode_pickle(object, to);
  }
}

py::object decode(Codec codec, std::string_view bytes) {
  const auto n = static_cast<Py_ssize_t>(bytes.size());
  switch (codec) {
    case Codec::kNone:
      return py::none();
    case Codec::kTrue:
      return py::bool_(true);
    case Codec::kFalse:
      return py::bool_(false);
    case Codec::kInt: {
      std::int64_t word = 0;
      if (bytes.size() == sizeof word) std::memcpy(&word, bytes.data(), sizeof word);
      return py::int_(word);
    }
    case Codec::kBigInt:
      return py::module_::import("builtins")
          .attr("int")
          .attr("from_bytes")(py::bytes(bytes.data(), bytes.size()), "little",
                              py::arg("signed") = true);
    case Codec::kStr: {
      PyObject* s = PyUnicode_DecodeUTF8(bytes.data(), n, nullptr);
      if (s == nullptr) raise_serialization("can't read", py::handle());
      return py::reinterpret_steal<py::object>(s);
    }
    case Codec::kBytes:
      return py::bytes(bytes.data(), bytes.size());
    case Codec::kNamed:
      return decode_named(bytes);
    case Codec::kPickle:
      break;
  }
  try {
    return pickle_function("loads")(py::bytes(bytes.data(), bytes.size()));
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;
    e.restore();
    raise_serialization("can't unpickle", py::handle());
  }
}

std::string_view key_bytes(py::handle key) {
  PyObject* o = key.ptr();
  if (PyUnicode_Check(o)) {
    Py_ssize_t n = 0;
    const char* utf8 = PyUnicode_AsUTF8AndSize(o, &n);
    if (utf8 == nullptr) throw py::error_already_set();
    return {utf8, static_cast<std::size_t>(n)};
  }
  if (PyBytes_Check(o)) {
    return {PyBytes_AS_STRING(o), static_cast<std::size_t>(PyBytes_GET_SIZE(o))};
  }
  throw py::type_error(std::string("a key is str or bytes, not ") + Py_TYPE(o)->tp_name);
}

std::uint64_t expiry(py::handle ttl) {
  if (ttl.is_none()) return kNever;
  const double seconds = PyFloat_AsDouble(ttl.ptr());
  if (PyErr_Occurred() != nullptr) {
    const bool huge = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
    PyErr_Clear();
    if (huge) return kNever;  // an int beyond a double: longer than for ever
    throw py::type_error(std::string("a ttl is a number of seconds or None, not ") +
                         Py_TYPE(ttl.ptr())->tp_name);
  }
  if (std::isnan(seconds)) throw py::value_error("a ttl is a number of seconds, not NaN");
  return deadline_after(seconds);
}

}  // namespace celeriac::bindings
