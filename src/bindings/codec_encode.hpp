// Objects to bytes. See codec_format.hpp for the format.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/codec_buffer.hpp"

namespace celeriac::bindings {

enum class Accepted {
  kPlain,  // all that the format has
  kJson,   // only what JSON has; a tuple becomes a list, as it does there
};

// Appends the value. False, and an empty buffer, when it isn't what is accepted.
// Runs no code of the value's. Throws what isn't an Exception (KeyboardInterrupt and the like).
bool encode_native(PyObject* value, Accepted accepted, Buffer* to);

}  // namespace celeriac::bindings
