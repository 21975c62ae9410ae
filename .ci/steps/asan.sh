# The Python tests of the core, on a module with AddressSanitizer, UBSan and crash points. A report
# from any process, also from one that a test started, fails the step. Of the crash rig, which the
# step `crash` runs whole, every eighth story: CELERIAC_ASAN_STORIES=1 runs all, in about an hour.
source "$(dirname "$0")/../lib.sh"
core_venv
target=$CI_WORK/asan
core_module "$CI_WORK/build-asan" "$target" -DCELERIAC_WERROR=ON \
  -DCELERIAC_SANITIZE=address,undefined -DCELERIAC_CRASH_POINTS=ON
mapfile -t tests < <(core_tests)
((${#tests[@]})) || die "no tests of the core"
reports=$CI_WORK/sanitizer
rm -f "$reports".*

# libstdc++ too: the interceptor of __cxa_throw looks for the real one when Python starts, which
# itself isn't linked with it.
LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libstdc++.so)"
export LD_PRELOAD
# Python itself leaks at exit. What is freed is kept back, and copied by each of the thousands of
# forks: 16 MB of it instead of 256.
export ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=16:log_path=$reports"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$reports"
export PYTHONPATH=$target PYTHONMALLOC=malloc CELERIAC_COMPLETE=1
export CELERIAC_CRASH_STORIES=${CELERIAC_ASAN_STORIES:-8}
# Each is a process, and takes seconds here. Others than those of the step `tests`: the next ones.
export CELERIAC_DAMAGE_FIRST_SEED=100 CELERIAC_DAMAGE_SEEDS=${CELERIAC_ASAN_SEEDS:-40}
# A death at any instruction is stepped to through all that ASan adds; what recovers afterwards is the
# same as in the stories of crash points.
left_out=(--ignore=tests/crash/test_single_step_quick.py)
status=0
python - <<'PY' || status=$?
import celeriac._core
assert celeriac._core.__file__.startswith(__import__("os").environ["PYTHONPATH"]), celeriac._core
PY
((status == 0)) && { counted_pytest python -m pytest "${tests[@]}" "${left_out[@]}" || status=$?; }
unset LD_PRELOAD
if compgen -G "$reports.*" >/dev/null; then
  head -n 60 "$reports".*
  die "the sanitizers reported the above"
fi
exit "$status"
