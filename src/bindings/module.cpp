// celeriac._core: the C++ core for Python. One file per concept registers itself.
#include "bindings/bindings.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of celeriac. Use the package's public names instead.";
  celeriac::bindings::register_errors(m);
  celeriac::bindings::register_blocking(m);
  celeriac::bindings::register_cache(m);
  celeriac::bindings::register_django(m);
  celeriac::bindings::register_limits(m);
  celeriac::bindings::register_queue(m);
  celeriac::bindings::register_lock(m);
  celeriac::bindings::register_metrics(m);
  celeriac::bindings::register_journal(m);
  celeriac::bindings::register_store(m);
  celeriac::bindings::register_tally(m);
}
