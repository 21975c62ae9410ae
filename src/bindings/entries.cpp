#include "bindings/entries.hpp"

#include <pybind11/stl.h>

#include "bindings/errors.hpp"
#include "platform/clock.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

PyTypeObject* named_type = nullptr;

py::object text_or_bytes(std::string_view key) {
  const auto n = static_cast<Py_ssize_t>(key.size());
  PyObject* text = PyUnicode_DecodeUTF8(key.data(), n, nullptr);
  if (text != nullptr) return py::reinterpret_steal<py::object>(text);
  PyErr_Clear();
  return py::bytes(key.data(), key.size());
}

}  // namespace

void set_named_type(py::type type) {
  if (PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), &PyBytes_Type) == 0) {
    throw py::type_error("a subclass of bytes is needed");
  }
  named_type = reinterpret_cast<PyTypeObject*>(type.release().ptr());  // for the process's life
}

bool encode_named(py::handle object, Encoded* to) {
  if (named_type == nullptr || Py_TYPE(object.ptr()) != named_type) return false;
  to->keep = py::reinterpret_borrow<py::object>(object);
  to->value = {
      Codec::kNamed,
      {PyBytes_AS_STRING(object.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(object.ptr()))}};
  return true;
}

py::object decode_named(std::string_view bytes) {
  const py::bytes plain(bytes.data(), bytes.size());
  if (named_type == nullptr) return plain;
  return py::handle(reinterpret_cast<PyObject*>(named_type))(plain);
}

py::bytes pack(py::handle object, bool pickle_all) {
  Encoded e;
  encode(object, pickle_all, &e);
  std::string all(1, static_cast<char>(e.value.codec));
  all += e.value.bytes;
  return py::bytes(all);
}

py::object unpack(py::bytes data) {
  const std::string_view all = data;
  if (all.empty() || static_cast<Codec>(all[0]) == Codec::kNamed) {
    throw py::value_error("no packed value");
  }
  return decode(static_cast<Codec>(all[0]), all.substr(1));
}

py::object examine(CacheHandle& c, py::handle key, bool whole) {
  ValueBuffer value;
  if (!take(c.engine->get(key_bytes(key), value, false))) return py::none();
  py::object left = py::none();
  if (value.expires != kNever) {
    const std::uint64_t now = now_ns();
    left = py::float_(value.expires > now ? static_cast<double>(value.expires - now) / 1e9 : 0.0);
  }
  const bool shown = whole || is_packed(c, value.codec);
  return py::make_tuple(shown ? decode(c, value) : py::object(py::none()), value.version, left);
}

py::tuple scan(CacheHandle& c, Cursor cursor, std::size_t most) {
  ScanCursor at{std::get<0>(cursor), std::get<1>(cursor), std::get<2>(cursor)};
  py::list keys;
  py::list named;
  py::list sizes;
  const auto visit = [&](std::string_view key, Codec codec, std::uint64_t bytes) {
    py::object name = text_or_bytes(key);
    if (is_packed(c, codec)) named.append(name);
    keys.append(std::move(name));
    sizes.append(bytes);
  };
  const bool more = take(c.engine->scan(at, most, visit));
  const py::object next =
      more ? py::object(py::make_tuple(at.place, at.table, at.moves)) : py::none();
  return py::make_tuple(next, keys, named, sizes);
}

}  // namespace celeriac::bindings
