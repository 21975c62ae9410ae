# clang-tidy on the core, which also shows that clang 14 compiles it.
source "$(dirname "$0")/../lib.sh"
have clang-tidy-14 || die "no clang-tidy-14: .ci/run tools"
core_venv
build=$CI_WORK/build-tidy
cmake -S . -B "$build" -G Ninja -DCELERIAC_PYTHON_MODULE=OFF -DCELERIAC_CRASH_POINTS=ON \
  -DPython_EXECUTABLE="$venv/bin/python" >/dev/null
git ls-files -z 'src/*.cpp' ':!src/bindings' >"$CI_WORK/tidy-files"
[[ -s $CI_WORK/tidy-files ]] || die "no C++ files"
xargs -0 -n 1 -P 2 clang-tidy-14 -p "$build" --quiet <"$CI_WORK/tidy-files"
