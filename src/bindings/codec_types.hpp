// What the codec needs of CPython beyond its everyday calls: types of the standard library, found
// when they are first needed, and ints as bytes.
//
// Functions return nullptr or false with a Python error set. REQUIRES: the interpreter lock.
#pragma once

// clang-format off
#include <pybind11/pybind11.h>
#include <datetime.h>  // needs the other
// clang-format on

#include <cstddef>

namespace celeriac::bindings {

// datetime's C interface. Borrowed.
PyDateTime_CAPI* datetime_api();

// Borrowed.
PyObject* decimal_type();
PyObject* uuid_type();
PyObject* uuid_safety_unknown();
PyObject* zone_info_type();

// How many bytes an int takes in two's complement. 0 with an error set.
std::size_t int_size(PyObject* value);
// Writes it: two's complement little-endian, or unsigned big-endian.
bool int_to_bytes(PyObject* value, char* to, std::size_t size, bool little);
PyObject* int_from_bytes(const char* bytes, std::size_t size, bool little);

}  // namespace celeriac::bindings
