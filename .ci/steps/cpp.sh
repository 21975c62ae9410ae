# The C++ tests, with crash points and with warnings as errors.
source "$(dirname "$0")/../lib.sh"
core_venv
# The step `crash` builds its module here too: the same core.
build=$CI_WORK/build-points
configure_and_build "$build" -DCELERIAC_WERROR=ON -DCELERIAC_CRASH_POINTS=ON
counted_ctest "$build"
