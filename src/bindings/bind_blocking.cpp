// Sleeps of the core give the interpreter lock away; crash points for tests.
#include <pybind11/stl.h>

#include <chrono>
#include <thread>

#include "arena/crash_point.hpp"
#include "bindings/bindings.hpp"
#include "platform/blocking.hpp"

namespace py = pybind11;

namespace celeriac::bindings {
namespace {

// Threads of the core's own never hold the interpreter lock, and must not try to.
void* before_sleep() {
  if (Py_IsInitialized() == 0 || PyGILState_Check() == 0) return nullptr;
  return PyEval_SaveThread();
}

bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// The interpreter is ending and will not give its lock back. CPython before 3.14 ends such a thread
// by unwinding its stack, through frames that hold Python objects and forbid exceptions; so it
// stays here until the process ends, as it does in 3.14.
[[noreturn]] void stay() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

void after_sleep(void* token) {
  if (token == nullptr) return;
  if (finalizing()) stay();
  try {
    PyEval_RestoreThread(static_cast<PyThreadState*>(token));
  } catch (...) {  // C throws nothing: the end began while this thread waited, and unwinds it
    stay();
  }
}

bool interrupted() { return PyGILState_Check() != 0 && PyErr_CheckSignals() != 0; }

}  // namespace

void register_blocking(py::module_& m) {
  set_blocking_hooks({before_sleep, after_sleep, interrupted});
  m.attr("crash_points") = crash_points_compiled_in();
  m.def("arm_crash_point", &arm_crash_point, py::arg("name"), py::arg("nth") = 1U,
        py::arg("action") = "kill");
  m.def("crash_points_passed", &crash_points_passed);
}

}  // namespace celeriac::bindings
