# celeriac_boost: the headers of Boost.Lockfree, from the system where it has Boost >= 1.74, else
# from the wheel boost-headers, which pip puts beside the interpreter that runs the build.
# CELERIAC_BOOST_INCLUDE_DIR names another place.
set(CELERIAC_BOOST_INCLUDE_DIR "" CACHE PATH "Directory that holds boost/lockfree/queue.hpp")

# Sets `result` to the directory if it holds Boost.Lockfree >= 1.74.
function(celeriac_check_boost directory result)
  set(${result} "" PARENT_SCOPE)
  if(NOT EXISTS "${directory}/boost/lockfree/queue.hpp")
    return()
  endif()
  file(STRINGS "${directory}/boost/version.hpp" _line REGEX "^#define BOOST_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+" _version "${_line}")
  if(_version GREATER_EQUAL 107400)
    set(${result} "${directory}" PARENT_SCOPE)
  endif()
endfunction()

set(_boost "")
if(CELERIAC_BOOST_INCLUDE_DIR)
  celeriac_check_boost("${CELERIAC_BOOST_INCLUDE_DIR}" _boost)
else()
  find_path(_system_boost boost/lockfree/queue.hpp NO_CACHE)
  celeriac_check_boost("${_system_boost}" _boost)
  if(NOT _boost)
    if(NOT Python_EXECUTABLE)
      find_package(Python 3.10 COMPONENTS Interpreter)
    endif()
    if(Python_EXECUTABLE)
      execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
                "import importlib.util as u; print(u.find_spec('boost_headers').submodule_search_locations[0])"
        OUTPUT_VARIABLE _wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      celeriac_check_boost("${_wheel}/include" _boost)
    endif()
  endif()
endif()
if(NOT _boost)
  message(FATAL_ERROR "No Boost >= 1.74 with boost/lockfree/queue.hpp. Install one of: "
                      "the Python package boost-headers (pip does it by itself), "
                      "Debian's libboost-dev, or set CELERIAC_BOOST_INCLUDE_DIR.")
endif()
message(STATUS "Boost headers: ${_boost}")

add_library(celeriac_boost INTERFACE)
if(NOT _boost MATCHES "^/usr/(local/)?include$")
  target_include_directories(celeriac_boost SYSTEM INTERFACE "${_boost}")
endif()
