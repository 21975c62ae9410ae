// Bytes to objects. See codec_format.hpp for the format.
#pragma once

#include <pybind11/pybind11.h>

#include <string_view>

namespace celeriac::bindings {

// A new reference; nullptr with a Python error set when the bytes are damaged, whatever they are.
// Runs no code but the standard library's. REQUIRES: the bytes are the caller's own copy.
PyObject* decode_native(std::string_view bytes);

}  // namespace celeriac::bindings
