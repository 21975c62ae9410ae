# Install, import and the quick tests under each other CPython 3.10 to 3.13 that is here: on the
# PATH, or among those of pyenv. From 3.12 on that comes with Django's newest release, so its
# suites run too.
source "$(dirname "$0")/../lib.sh"

# The interpreter of version $1, with the headers that the build needs; nothing if there is none.
interpreter() {
  local candidates=("python$1") roots=() candidate root
  [[ -n ${PYENV_ROOT:-} ]] && roots+=("$PYENV_ROOT")
  have pyenv && roots+=("$(pyenv root)")
  roots+=("$HOME"/.py*env)
  for root in "${roots[@]}"; do candidates+=("$root/versions/$1".*/bin/"python$1"); done
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c '
import ensurepip, os, sys, sysconfig
fit = sys.implementation.name == "cpython" and sys.argv[1] == "%d.%d" % sys.version_info[:2]
raise SystemExit(not (fit and os.path.exists(sysconfig.get_path("include") + "/Python.h")))
' "$1" >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
}

python=$(base_python)
ours=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# All at once: each waits for pip and for its tests' processes most of the time.
running=() failures=()
stop() {
  trap - EXIT INT TERM
  ((${#running[@]} == 0)) || kill -TERM "${running[@]##* }" 2>/dev/null || true
}
trap stop EXIT
trap 'stop; exit 130' INT TERM
for version in 3.10 3.11 3.12 3.13; do
  [[ $version == "$ours" ]] && continue
  found=$(interpreter "$version")
  if [[ -z $found ]]; then
    echo "CPython $version: none here with headers and ensurepip"
    continue
  fi
  bash .ci/one-python.sh "$version" "$found" >"$CI_WORK/python-$version.log" 2>&1 &
  running+=("$version $found $!")
done
for one in "${running[@]}"; do
  read -r version found child <<<"$one"
  status=0
  wait "$child" || status=$?
  echo "CPython $version: $found"
  cat "$CI_WORK/python-$version.log"
  ((status == 0)) || failures+=("$version")
done
running=()
((${#failures[@]} == 0)) || die "failed under ${failures[*]}"
