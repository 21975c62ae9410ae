# What the steps share. Sourced by each; CI_ROOT and CI_WORK come from .ci/run.
set -euo pipefail
: "${CI_ROOT:?run a step by: .ci/run STEP}" "${CI_WORK:?}"
cd "$CI_ROOT"
step=$(basename "$0" .sh)
venv=$CI_WORK/venv

die() {
  echo "$step: $*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The interpreter that everything but the step `pythons` uses.
base_python() {
  local python=${CI_PYTHON:-python3}
  have "$python" || die "no $python; install Python 3.10 or newer, or name it by CI_PYTHON"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$python is older than 3.10; name another by CI_PYTHON"
  echo "$python"
}

# A second environment for the steps that run beside those of the users: what C++ builds and the
# tests of the core need, but celeriac itself.
core_venv() {
  venv=$CI_WORK/venv-core
  exec {made}>"$venv.lock"
  flock "$made" # two tracks begin with it
  if [[ ! $venv/complete -nt .ci/lib.sh ]]; then # made of what is named here
    fresh_venv
    python -m pip install -q 'cmake>=3.20' 'ninja>=1.10' 'boost-headers>=1.85' \
      'pybind11>=3.0' 'pytest>=8' 'hypothesis>=6.100' 'gunicorn>=23' 'msgpack>=1' 'lz4>=4' 'zstandard>=0.22'
    touch "$venv/complete"
  fi
  flock --unlock "$made"
  activate
}

# A fresh virtual environment, activated.
fresh_venv() {
  rm -rf "$venv"
  "$(base_python)" -m venv "$venv"
  activate
}

activate() {
  PATH=$venv/bin:$PATH
  export PATH VIRTUAL_ENV=$venv
  hash -r
}

# Whether the file $1 is there and no source has changed since.
up_to_date() {
  [[ -e $1 && -z $(find src python cmake CMakeLists.txt pyproject.toml -newer "$1" -type f \
    ! -path '*/__pycache__/*' -print -quit) ]]
}

# Lets wheels compile each source once: that of `demo` is the first, and those of `tests` and
# `pythons`, whose core is the same to the byte, find theirs. Warnings are errors in all of them, or
# else they would differ. Boost has a lasting place, because each build of pip's has its own: that
# CMake finds what pip has installed is seen in the builds of `cpp`.
compile_once() {
  local boost=$CI_WORK/boost
  [[ -d $boost ]] || python -m pip install -q --no-deps --target "$boost" 'boost-headers>=1.85'
  export SKBUILD_CMAKE_DEFINE="CELERIAC_WERROR=ON;CELERIAC_BOOST_INCLUDE_DIR=$boost/boost_headers/include"
  if have ccache; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_DIR=$CI_WORK/ccache
  fi
}

# The virtual environment with celeriac[test] in it, made unless an earlier step did.
test_venv() {
  [[ -x $venv/bin/python ]] || fresh_venv
  activate
  up_to_date "$venv/has-test" || python -m pip install -q '.[test]'
  touch "$venv/has-test"
}

# The command line that README.md shows in the fenced block after `<!-- ci: NAME -->`.
readme_command() {
  local command
  command=$(awk -v marker="<!-- ci: $1 -->" '
    index($0, marker) { found = 1; next }
    found && /^```/ { if (inside) exit; inside = 1; next }
    inside { print }' README.md)
  [[ -n $command ]] || die "README.md has no fenced block after <!-- ci: $1 -->"
  [[ $(wc -l <<<"$command") -eq 1 ]] || die "the block $1 of README.md isn't one line"
  echo "$command"
}

# count PASSED FAILED SKIPPED, for the closing line of .ci/run
count() { echo "$step $1 $2 $3" >>"$CI_WORK/counts"; }

# Runs a pytest command line, shows what it says, counts its results, and gives back its status.
counted_pytest() {
  local log=$CI_WORK/${log_name:-$step}.log status=0
  "$@" 2>&1 | tee "$log" || status=$?
  local closing
  closing=$(grep -E '^(=+ )?([0-9]+ [a-z]+(, )?)+ in [0-9.]+s' "$log" | tail -n 1 || true)
  number() { grep -oE "[0-9]+ $1" <<<"$closing" | grep -oE '^[0-9]+' || echo 0; }
  count "$(number passed)" "$(($(number failed) + $(number errors?)))" "$(number skipped)"
  return "$status"
}

# configure_and_build DIRECTORY OPTION...: the library and its C++ tests, or what TARGET says.
# Headers are precompiled: 190 s of one core for both instead of 300. The wheels of `demo`, `tests`
# and `pythons` are built without, so a source that doesn't include what it uses fails there.
configure_and_build() {
  local build=$1
  shift
  cmake -S . -B "$build" -G Ninja -DCELERIAC_BUILD_TESTS=ON -DCELERIAC_PCH=ON \
    -DPython_EXECUTABLE="$venv/bin/python" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" \
    "$@" >"$build.log" 2>&1 || {
    cat "$build.log"
    die "cmake failed"
  }
  "${BUILD_UNDER[@]}" cmake --build "$build" --target "${TARGET:-all}"
}
BUILD_UNDER=(env)

# counted_ctest DIRECTORY ARGUMENT...: runs the tests, shows those that don't pass, counts all.
counted_ctest() {
  local build=$1 junit=$CI_WORK/$step.xml status=0
  shift
  rm -f "$junit"
  "${BUILD_UNDER[@]}" ctest --test-dir "$build" --output-on-failure --output-junit "$junit" \
    --no-tests=error --timeout 120 -j2 "$@" 2>&1 | { grep -Ev '^ +Start |   Passed  ' || true; } ||
    status=$?
  [[ -e $junit ]] || return 1
  attribute() { grep -oE "\b$1=\"[0-9]+\"" "$junit" | head -n 1 | tr -dc 0-9; }
  local bad skipped
  bad=$(attribute failures)
  skipped=$(($(attribute skipped) + $(attribute disabled)))
  count "$(($(attribute tests) - bad - skipped))" "$bad" "$skipped"
  return "$status"
}

# core_module BUILD DIRECTORY OPTION...: the package in a directory for PYTHONPATH, its module from a
# CMake build of its own kind, which later runs continue. pip would compile all anew each time.
core_module() {
  local build=$1 target=$2
  shift 2
  TARGET=_core configure_and_build "$build" "$@"
  rm -rf "$target"
  mkdir -p "$target"
  cp -r python/celeriac "$target/"
  rm -f "$target"/celeriac/_core*.so # a developer's
  cp "$build"/_core*.so "$target/celeriac/"
}

# The Python tests of the core: those that need neither gunicorn nor a Celery worker.
core_tests() {
  local found=() path
  for path in tests/{conformance,journal,multiprocess,crash,bad_input,fuzz,compat}; do
    [[ -d $path ]] && found+=("$path")
  done
  ((${#found[@]})) || die "none of the folders of core tests is there"
  printf '%s\n' "${found[@]}"
}
