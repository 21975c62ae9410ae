# one-python.sh VERSION INTERPRETER: install, import and the quick tests under one CPython.
source "$(dirname "$0")/lib.sh"
step=pythons
version=$1 python=$2
log_name=pythons-$version
venv=$CI_WORK/venv-$version
rm -rf "$venv"
trap 'rm -rf "$venv"' EXIT
"$python" -m venv "$venv"
activate
# Compiled where it is imported, which is less than all: 20 s less for each version.
export PIP_NO_COMPILE=1 PYTHONPYCACHEPREFIX=$CI_WORK/pycache
unset PYTHONDONTWRITEBYTECODE
compile_once
# Of what tests need only what these do: not mypy, ruff, CMake or Flower.
python -m pip install -q '.[django,celery]' 'pytest>=8' 'hypothesis>=6.100' 'gunicorn>=23' \
  'msgpack>=1' 'lz4>=4' 'zstandard>=0.22' 'gevent>=24.11' 'celery[redis]>=5.6'
python -c 'import celeriac, celeriac._core, django
print("celeriac", celeriac.__version__, "with Django", django.__version__)'

quick=(tests/repo/test_version.py tests/repo/test_exports.py)
# The oldest and the newest run what the default one does; those between are much alike.
case $version in
  3.1[12]) quick+=(tests/conformance/test_native_codec.py tests/conformance/test_decorators.py) ;;
  *) quick+=(tests/conformance) ;;
esac
# Django's newest release, which pip takes from CPython 3.12 on.
case $version in 3.1[3-9]) [[ -d tests/django ]] && quick+=(tests/django) ;; esac
counted_pytest python -m pytest -q -o cache_dir="$CI_WORK/pytest-cache-$version" "${quick[@]}"
