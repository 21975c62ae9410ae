// Crash points: named places inside mutating operations where a test lets the process die.
//
// Compiled in by -DCELERIAC_CRASH_POINTS=ON only; otherwise the macro is nothing. Names are
// "part.operation.place". A point is armed by arm_crash_point() or by the environment variable
// CELERIAC_CRASH="name:nth:action", action kill (SIGKILL) or stop (SIGSTOP): the nth passage acts.
#pragma once

#include <string>
#include <vector>

namespace celeriac {

#if defined(CELERIAC_CRASH_POINTS) && CELERIAC_CRASH_POINTS
void crash_point(const char* name);
#define CELERIAC_CRASH_POINT(name) ::celeriac::crash_point(name)
#else
#define CELERIAC_CRASH_POINT(name) static_cast<void>(0)
#endif

// True when this build has crash points.
bool crash_points_compiled_in();

// action: "kill", "stop", or "count" (only counts passages). REQUIRES: compiled in.
void arm_crash_point(const std::string& name, unsigned nth, const std::string& action);

// Names passed so far in this process while any point was armed, in order of first passage.
std::vector<std::string> crash_points_passed();

}  // namespace celeriac
