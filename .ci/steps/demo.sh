# README's first command, as written, in a fresh environment; the demo itself shortened.
source "$(dirname "$0")/../lib.sh"
fresh_venv
compile_once
command=$(readme_command install-and-demo)
options=(--seconds 8)
trace=../shared/traces/web07.trace.xz
[[ -e $trace ]] && options+=(--trace "$trace")
echo "$command ${options[*]}"
bash -euo pipefail -c "$command ${options[*]}"
