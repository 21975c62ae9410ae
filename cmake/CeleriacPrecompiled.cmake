# celeriac_precompile(TARGET HEADER...): with CELERIAC_PCH, TARGET's sources find the standard
# library's headers, those of the core and HEADERs compiled already. A source of ours takes 1 s
# then instead of 3: most of it is headers. What a source forgets to include goes unnoticed, so the
# builds of users are without it, and those of the gate that compile the same.
file(GLOB_RECURSE _core_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/*.hpp")
list(FILTER _core_headers EXCLUDE REGEX "/src/bindings/")

if(CELERIAC_PCH AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 takes what it inlines from std::string for ours when it was precompiled, and says of it
  # what it doesn't say otherwise. The builds without this option have these warnings.
  target_compile_options(celeriac_flags INTERFACE -Wno-array-bounds -Wno-restrict
                                                  -Wno-stringop-overflow -Wno-stringop-overread)
endif()

function(celeriac_precompile target)
  if(CELERIAC_PCH)
    target_precompile_headers(${target} PRIVATE
      <algorithm> <array> <atomic> <bit> <chrono> <cstdint> <cstring> <deque> <functional> <map>
      <memory> <mutex> <optional> <random> <set> <span> <string> <string_view> <thread>
      <unordered_map> <unordered_set> <utility> <vector> ${ARGN} ${_core_headers})
  endif()
endfunction()
