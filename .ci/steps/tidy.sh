# clang-tidy on the core, which also shows that clang 14 compiles it.
#
# Most of its time goes to matching the checks against the headers of the standard library, for each
# file anew. So the files of a layer are looked at together, as one source that includes them: 55 s
# of one core for `arena` become 10. A file that can't be compiled together with those before it,
# because both have a helper of the same name in an anonymous namespace, goes to the next round.
source "$(dirname "$0")/../lib.sh"
have clang-tidy-14 || die "no clang-tidy-14: .ci/run tools"
core_venv
build=$CI_WORK/build-tidy
rm -rf "$build"
cmake -S . -B "$build" -G Ninja -DCELERIAC_PYTHON_MODULE=OFF -DCELERIAC_CRASH_POINTS=ON \
  -DPython_EXECUTABLE="$venv/bin/python" >/dev/null
python .ci/together.py "$build" src/{platform,arena,sync,memory,store,queue,engine} \
  >"$CI_WORK/tidy-files"
[[ -s $CI_WORK/tidy-files ]] || die "no C++ files"
xargs -n 1 -P 2 clang-tidy-14 -p "$build/together" --config-file=.clang-tidy --quiet \
  <"$CI_WORK/tidy-files"
