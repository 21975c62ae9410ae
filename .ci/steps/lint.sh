# ruff: lint and format of all Python.
source "$(dirname "$0")/../lib.sh"
test_venv
ruff check .
ruff format --check .
