# The C++ tests under ThreadSanitizer. Its shadow memory wants addresses that aren't randomised by
# more than 28 bits, as newer kernels do: setarch turns that off for the tests alone.
source "$(dirname "$0")/../lib.sh"
core_venv
machine=$(uname -m)
if setarch "$machine" -R true 2>/dev/null; then
  BUILD_UNDER=(setarch "$machine" -R)
else
  echo "setarch -R isn't allowed here; going on without it"
fi
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 die_after_fork=0"
build=$CI_WORK/build-tsan
configure_and_build "$build" -DCELERIAC_SANITIZE=thread -DCELERIAC_PYTHON_MODULE=OFF
counted_ctest "$build"
