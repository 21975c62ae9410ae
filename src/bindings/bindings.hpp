// What module.cpp calls: one register function per concept.
#pragma once

#include <pybind11/pybind11.h>

namespace celeriac::bindings {

void register_errors(pybind11::module_& m);
void register_blocking(pybind11::module_& m);
void register_cache(pybind11::module_& m);
void register_django(pybind11::module_& m);
void register_limits(pybind11::module_& m);
void register_queue(pybind11::module_& m);
void register_lock(pybind11::module_& m);
void register_metrics(pybind11::module_& m);
void register_journal(pybind11::module_& m);
void register_store(pybind11::module_& m);
void register_tally(pybind11::module_& m);

}  // namespace celeriac::bindings
