# The crash rig: processes die at each named point, on a module with crash points and without
# sanitizers, under which each of the thousands of forks takes five times as long.
source "$(dirname "$0")/../lib.sh"
core_venv
target=$CI_WORK/crash
core_module "$target" -DCELERIAC_CRASH_POINTS=ON
export PYTHONPATH=$target CELERIAC_COMPLETE=1
counted_pytest python -m pytest tests/crash
