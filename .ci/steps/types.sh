# mypy strict on the package, and the hand-written stubs against the extension that is installed.
source "$(dirname "$0")/../lib.sh"
test_venv
mypy --strict python/celeriac
cd "$CI_WORK" # so that the installed package is looked at, not the folder
python -m mypy.stubtest celeriac._core --mypy-config-file "$CI_ROOT/pyproject.toml" \
  --allowlist "$CI_ROOT/tests/repo/stubtest-allowlist.txt"
