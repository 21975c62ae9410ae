# The crash rig: processes die at each named point, on a module with crash points and without
# sanitizers, under which each of the thousands of forks takes five times as long.
source "$(dirname "$0")/../lib.sh"
core_venv
target=$CI_WORK/crash
# Of what the step `cpp` has compiled.
core_module "$CI_WORK/build-points" "$target" -DCELERIAC_WERROR=ON -DCELERIAC_CRASH_POINTS=ON
export PYTHONPATH=$target CELERIAC_COMPLETE=1
# The other files of the folder need no crash points: they run in the step `tests`.
counted_pytest python -m pytest tests/crash --ignore=tests/crash/test_single_step_quick.py \
  --ignore=tests/crash/test_soak_quick.py
