#include "bindings/codec.hpp"

#include <pybind11/gil_safe_call_once.h>

#include <cmath>
#include <cstring>
#include <new>

#include "bindings/codec_decode.hpp"
#include "bindings/codec_encode.hpp"
#include "bindings/codec_format.hpp"
#include "bindings/codec_types.hpp"
#include "bindings/entries.hpp"
#include "bindings/errors.hpp"
#include "platform/clock.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

// An import may give the interpreter lock away: a plain static would let another thread wait for
// the import with that lock in its hands.
using Once = py::gil_safe_call_once_and_store<py::object>;

py::object& pickle_function(const char* name) {
  PYBIND11_CONSTINIT static Once dumps;
  PYBIND11_CONSTINIT static Once loads;
  Once& which = std::strcmp(name, "dumps") == 0 ? dumps : loads;
  return which
      .call_once_and_store_result(
          [name]() -> py::object { return py::module_::import("pickle").attr(name); })
      .get_stored();
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

void encode_int(PyObject* o, Encoded* to) {
  int overflow = 0;
  const long long small = PyLong_AsLongLongAndOverflow(o, &overflow);
  if (overflow == 0) {
    const auto word = static_cast<std::int64_t>(small);
    std::memcpy(to->own, &word, sizeof word);
    to->value = {Codec::kInt, {to->own, sizeof word}};
    return;
  }
  const std::size_t n = int_size(o);
  if (n == 0) throw py::error_already_set();
  if (!to->buffer.reserve(n)) throw std::bad_alloc();
  if (!int_to_bytes(o, to->buffer.end(), n, true)) throw py::error_already_set();
  to->buffer.add(n);
  to->value = {Codec::kBigInt, to->buffer.bytes()};
}

// The text's UTF-8, without a copy where it has one; false for lone surrogates, which have none.
bool encode_text(PyObject* o, Encoded* to) {
  Py_ssize_t n = 0;
  const char* utf8 = PyUnicode_AsUTF8AndSize(o, &n);
  if (utf8 == nullptr) {
    PyErr_Clear();
    return false;
  }
  to->value = {Codec::kStr, {utf8, static_cast<std::size_t>(n)}};
  return true;
}

}  // namespace

void encode(py::handle object, bool pickle_all, Encoded* to) {
  PyObject* o = object.ptr();
  const PyTypeObject* type = Py_TYPE(o);
  if (type == &PyLong_Type) {
    encode_int(o, to);  // whatever the serializer: incr() works on it
  } else if (encode_named(object, to)) {
    return;
  } else if (pickle_all) {
    encode_pickle(object, to);
  } else if (type == &PyBytes_Type) {
    to->value = {Codec::kBytes,
                 {PyBytes_AS_STRING(o), static_cast<std::size_t>(PyBytes_GET_SIZE(o))}};
  } else if (type == &PyUnicode_Type && encode_text(o, to)) {
    return;
  } else if (o == Py_None) {
    to->value = {Codec::kNone, {}};
  } else if (type == &PyBool_Type) {
    to->value = {o == Py_True ? Codec::kTrue : Codec::kFalse, {}};
  } else if (encode_native(o, Accepted::kPlain, &to->buffer)) {
    to->value = {kNativeCodec, to->buffer.bytes()};
  } else {
    encode_pickle(object, to);
  }
}

void EncodedValues::add(py::handle object, bool pickle_all) {
  Encoded e;
  encode(object, pickle_all, &e);
  const std::string_view bytes = e.value.bytes;
  const bool inside = bytes.data() == e.own || bytes.data() == e.buffer.bytes().data();
  all_.push_back({e.value.codec, inside ? nullptr : bytes.data(), bytes_.size(), bytes.size(),
                  std::move(e.keep)});
  if (inside) bytes_ += bytes;
}

Value EncodedValues::operator[](std::size_t i) const {
  const One& one = all_[i];
  return {one.codec, {one.outside != nullptr ? one.outside : bytes_.data() + one.at, one.size}};
}

py::object decode(Codec codec, std::string_view bytes) {
  const auto n = static_cast<Py_ssize_t>(bytes.size());
  PyObject* made = nullptr;
  if (codec == Codec::kInt) {
    std::int64_t word = 0;
    if (bytes.size() == sizeof word) {
      std::memcpy(&word, bytes.data(), sizeof word);
      made = PyLong_FromLongLong(word);
    } else {
      PyErr_Format(PyExc_ValueError, "an int of %zd bytes, not 8", n);
    }
  } else if (codec == kNativeCodec) {
    made = decode_native(bytes);
  } else if (codec == Codec::kBytes) {
    made = PyBytes_FromStringAndSize(bytes.data(), n);
  } else if (codec == Codec::kStr) {
    made = PyUnicode_DecodeUTF8(bytes.data(), n, nullptr);
  } else if (codec == Codec::kNone || codec == Codec::kTrue || codec == Codec::kFalse) {
    made = Py_NewRef(codec == Codec::kNone ? Py_None : codec == Codec::kTrue ? Py_True : Py_False);
  } else if (codec == Codec::kBigInt) {
    made = int_from_bytes(bytes.data(), bytes.size(), true);
  } else if (codec == Codec::kNamed) {
    made = decode_named(bytes).release().ptr();
  } else if (codec == Codec::kPickle) {
    PyObject* data = PyBytes_FromStringAndSize(bytes.data(), n);
    if (data != nullptr) made = PyObject_CallOneArg(pickle_function("loads").ptr(), data);
    Py_XDECREF(data);
  } else {
    PyErr_Format(PyExc_ValueError, "it was written with the unknown serializer %d",
                 static_cast<int>(codec));
  }
  if (made == nullptr) {
    if (PyErr_ExceptionMatches(PyExc_Exception) == 0) throw py::error_already_set();
    raise_serialization(codec == Codec::kPickle ? "can't unpickle" : "can't read", py::handle());
  }
  return py::reinterpret_steal<py::object>(made);
}

py::object decode(const CacheHandle& cache, const ValueBuffer& value) {
  if (value.codec == Codec::kPickle && !cache.unpickles) return decode_named({});
  return decode(value.codec, value.bytes());
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
