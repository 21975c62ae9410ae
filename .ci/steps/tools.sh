# Installs the servers and tools that the other steps use. Nothing is asked of apt when all are here.
source "$(dirname "$0")/../lib.sh"

packages=()
want() { # want PACKAGE CHECK...: the package, unless the check succeeds
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || packages+=("$package")
}
python=${CI_PYTHON:-python3}

want g++ have g++
want redis-server have redis-server
want chromium have chromium
want chromium-driver have chromedriver
want libgtest-dev test -e /usr/include/gtest/gtest.h
want clang-format-14 have clang-format-14
want clang-tidy-14 have clang-tidy-14
want clang-14 have clang++-14
want ccache have ccache
want binutils have nm
want util-linux have setarch
want prometheus have promtool
want prometheus-alertmanager have amtool
want nginx-light test -x /usr/sbin/nginx
want systemd have systemd-analyze
want python3-venv "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))'
want python3-dev "$python" -c '
import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'

if ((${#packages[@]})); then
  have apt-get || die "missing: ${packages[*]} (Debian package names), and there is no apt-get"
  as_root=()
  if ((EUID != 0)); then
    have sudo || die "missing: ${packages[*]}, and neither root nor sudo to install them"
    as_root=(sudo -n)
  fi
  apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q
    -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
  "${apt[@]}" update
  "${apt[@]}" install -y --no-install-recommends "${packages[@]}"
else
  echo "all there"
fi
for tool in g++ redis-server chromium chromedriver clang-format-14 clang-tidy-14 nm setarch promtool \
  prometheus amtool "$python"; do
  have "$tool" || die "$tool still isn't there"
done
g++ --version | head -n 1
"$python" --version
redis-server --version
chromedriver --version
clang-tidy-14 --version | grep version
