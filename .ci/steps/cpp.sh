# The C++ tests, with crash points and with warnings as errors.
source "$(dirname "$0")/../lib.sh"
core_venv
build=$CI_WORK/build-cpp
configure_and_build "$build" -DCELERIAC_WERROR=ON -DCELERIAC_CRASH_POINTS=ON
counted_ctest "$build"
