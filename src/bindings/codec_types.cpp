#include "bindings/codec_types.hpp"

namespace celeriac::bindings {
namespace {

// An attribute of a module; a new reference, kept for the life of the process.
PyObject* find(const char* module_name, const char* name) {
  PyObject* module = PyImport_ImportModule(module_name);
  if (module == nullptr) return nullptr;
  PyObject* found = PyObject_GetAttrString(module, name);
  Py_DECREF(module);
  return found;
}

PyObject* once(PyObject** kept, const char* module_name, const char* name) {
  if (*kept == nullptr) *kept = find(module_name, name);
  return *kept;
}

}  // namespace

PyDateTime_CAPI* datetime_api() {
  if (PyDateTimeAPI == nullptr) PyDateTime_IMPORT;
  return PyDateTimeAPI;
}

PyObject* decimal_type() {
  static PyObject* kept = nullptr;
  return once(&kept, "decimal", "Decimal");
}

PyObject* uuid_type() {
  static PyObject* kept = nullptr;
  return once(&kept, "uuid", "UUID");
}

PyObject* uuid_safety_unknown() {
  static PyObject* kept = nullptr;
  if (kept == nullptr) {
    PyObject* all = find("uuid", "SafeUUID");
    if (all == nullptr) return nullptr;
    kept = PyObject_GetAttrString(all, "unknown");
    Py_DECREF(all);
  }
  return kept;
}

PyObject* zone_info_type() {
  static PyObject* kept = nullptr;
  return once(&kept, "zoneinfo", "ZoneInfo");
}

std::size_t int_size(PyObject* value) {
  const std::size_t bits = _PyLong_NumBits(value);
  if (bits == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) return 0;
  return bits / 8 + 1;
}

bool int_to_bytes(PyObject* value, char* to, std::size_t size, bool little) {
  auto* number = reinterpret_cast<PyLongObject*>(value);
  auto* bytes = reinterpret_cast<unsigned char*>(to);
  const int is_little = little ? 1 : 0;
  const int is_signed = is_little;
#if PY_VERSION_HEX >= 0x030D0000
  return _PyLong_AsByteArray(number, bytes, size, is_little, is_signed, 1) == 0;
#else
  return _PyLong_AsByteArray(number, bytes, size, is_little, is_signed) == 0;
#endif
}

PyObject* int_from_bytes(const char* bytes, std::size_t size, bool little) {
  const int is_little = little ? 1 : 0;
  return _PyLong_FromByteArray(reinterpret_cast<const unsigned char*>(bytes), size, is_little,
                               is_little);
}

}  // namespace celeriac::bindings
