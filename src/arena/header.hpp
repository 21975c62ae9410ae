// The header's fixed part: written once when an arena is made, checked whenever one is opened.
#pragma once

#include <cstdint>
#include <string>

#include "arena/layout.hpp"
#include "platform/status.hpp"

namespace celeriac {

layout::HeaderFixed make_header();

// kCorrupt (not ours, damaged, from another boot) or kVersionMismatch (another layout); the
// message names what was found, what this build has, and what to do.
Status check_header(const layout::HeaderFixed& header, const std::string& path);

// Is it an arena that the host's last boot has left? No process has it mapped. False for whatever
// isn't ours, damaged or of another layout.
bool is_of_an_earlier_boot(int file);

}  // namespace celeriac
