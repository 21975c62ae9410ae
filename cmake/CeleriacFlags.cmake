# celeriac_flags: what our own sources, and only they, are compiled with.
add_library(celeriac_flags INTERFACE)
target_compile_options(celeriac_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                                -Wnon-virtual-dtor -Wcast-qual)
if(CELERIAC_WERROR)
  target_compile_options(celeriac_flags INTERFACE -Werror)
endif()

if(CELERIAC_SANITIZE)
  string(REPLACE "," ";" _sanitizers "${CELERIAC_SANITIZE}")
  foreach(_sanitizer IN LISTS _sanitizers)
    if(NOT _sanitizer MATCHES "^(address|undefined|thread)$")
      message(FATAL_ERROR "CELERIAC_SANITIZE=${CELERIAC_SANITIZE}: "
                          "can be address, undefined, thread or \"address,undefined\"")
    endif()
  endforeach()
  if("thread" IN_LIST _sanitizers AND "address" IN_LIST _sanitizers)
    message(FATAL_ERROR "CELERIAC_SANITIZE: address and thread exclude each other")
  endif()
  # For everything that is linked together, not only for our own sources. Less optimised and with
  # line numbers only, because instrumented bindings take six times as long to compile otherwise.
  add_compile_options(-fsanitize=${CELERIAC_SANITIZE} -fno-omit-frame-pointer -O1 -g1)
  add_link_options(-fsanitize=${CELERIAC_SANITIZE})
  if("undefined" IN_LIST _sanitizers)
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  if("thread" IN_LIST _sanitizers AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Fences, which ThreadSanitizer doesn't model, stand only beside atomic accesses here.
    target_compile_options(celeriac_flags INTERFACE -Wno-tsan)
  endif()
endif()
