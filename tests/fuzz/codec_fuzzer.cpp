// A libFuzzer program over the reader of plain values (src/bindings/codec_format.hpp).
//
// Any bytes either give an object, or nullptr with an error about them: no crash, no MemoryError or
// SystemError, no code run. What gives an object can be written again, and that can be read.
//
//   cmake -S . -B build-fuzz -G Ninja -DCELERIAC_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++-14 \
//     -DCELERIAC_SANITIZE=address,undefined
//   cmake --build build-fuzz --target codec_fuzzer
//   python tests/fuzz/support/codec_corpus.py unpack SEEDS
//   ASAN_OPTIONS=detect_leaks=0 build-fuzz/tests/fuzz/codec_fuzzer -max_total_time=60 FINDS SEEDS
//
// What it reached anew joins the corpus, which test_codec_corpus.py reads in each run of the tests:
//   … codec_fuzzer -merge=1 -max_len=300 SMALL SEEDS FINDS
//   python tests/fuzz/support/codec_corpus.py pack SMALL
#include <pybind11/embed.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "bindings/codec_decode.hpp"
#include "bindings/codec_encode.hpp"

namespace py = pybind11;
using celeriac::bindings::Buffer;
using celeriac::bindings::encode_native;

namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  PyErr_Print();
  std::abort();
}

py::object decoded(std::string_view bytes) {
  return py::reinterpret_steal<py::object>(celeriac::bindings::decode_native(bytes));
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  Py_InitializeEx(0);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const py::object read = decoded(bytes);
  if (!read) {
    // What Python's own types say of their parts, too: all are a SerializationError to the caller.
    if (PyErr_ExceptionMatches(PyExc_Exception) == 0 ||
        PyErr_ExceptionMatches(PyExc_MemoryError) != 0 ||
        PyErr_ExceptionMatches(PyExc_SystemError) != 0) {
      fail("an error that isn't about the bytes");
    }
    PyErr_Clear();
    return 0;
  }
  if (PyErr_Occurred() != nullptr) fail("an object, and an error");
  Buffer written;
  if (encode_native(read.ptr(), &written) && !decoded(written.bytes())) {
    fail("what was written can't be read");
  }
  return 0;
}
