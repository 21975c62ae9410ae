# A minute of producers and consumers that are killed at random, with an exact ledger.
source "$(dirname "$0")/../lib.sh"
test_venv
python tests/crash/soak.py --seconds 60
