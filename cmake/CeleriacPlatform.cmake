# Says at configuration, rather than deep in a compiler's output, where celeriac can be built.
set(_supported
    "celeriac runs on 64-bit Linux on x86-64 and aarch64, built by g++ 12 or clang 14 or newer")

if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  message(FATAL_ERROR "${_supported}. This is ${CMAKE_SYSTEM_NAME}.")
endif()
if(NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
  message(FATAL_ERROR "${_supported}. This compiler makes programs with "
                      "${CMAKE_SIZEOF_VOID_P}-byte pointers.")
endif()
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64|aarch64|arm64)$")
  message(FATAL_ERROR "${_supported}. This CPU is ${CMAKE_SYSTEM_PROCESSOR}.")
endif()

set(_compiler "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(_oldest 12)
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  set(_oldest 14)
else()
  message(FATAL_ERROR "${_supported}. This compiler is ${_compiler}.")
endif()
if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS _oldest)
  message(FATAL_ERROR "${_supported}. This compiler is ${_compiler}; name another by CXX=g++-12.")
endif()
