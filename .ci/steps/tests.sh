# README's second command, as written. Everything that tests need is installed by now, so a test
# that asks for something to be installed fails the step (CELERIAC_COMPLETE, see tests/conftest.py).
source "$(dirname "$0")/../lib.sh"
if [[ -x $venv/bin/python ]]; then activate; else fresh_venv; fi
compile_once
command=$(readme_command install-and-test)
echo "$command"
export CELERIAC_COMPLETE=1
# Half of the default; the step `asan` takes the 40 that follow.
export CELERIAC_DAMAGE_SEEDS=${CELERIAC_DAMAGE_SEEDS:-100}
status=0
counted_pytest bash -euo pipefail -c "$command" || status=$?
# The later steps needn't install again what a failed test has been installed with.
if python -c 'import celeriac, mypy, pytest'; then touch "$venv/has-test"; fi
exit "$status"
