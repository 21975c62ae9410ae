// Objects to bytes. See codec_format.hpp for the format.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/codec_buffer.hpp"

namespace celeriac::bindings {

// Appends the value. False, and an empty buffer, when it isn't plain data: then it is pickle's.
// Runs no code of the value's. Throws what isn't an Exception (KeyboardInterrupt and the like).
bool encode_native(PyObject* value, Buffer* to);

}  // namespace celeriac::bindings
