# clang-format of all C++.
source "$(dirname "$0")/../lib.sh"
have clang-format-14 || die "no clang-format-14: .ci/run tools"
git ls-files -z 'src/*.cpp' 'src/*.hpp' 'tests/*.cpp' 'tests/*.hpp' >"$CI_WORK/cpp-files"
[[ -s $CI_WORK/cpp-files ]] || die "no C++ files"
xargs -0 clang-format-14 --dry-run -Werror <"$CI_WORK/cpp-files"
