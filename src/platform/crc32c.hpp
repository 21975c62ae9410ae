// CRC-32C (Castagnoli), as in RFC 3720 appendix B.4: SSE4.2 or ARMv8 instructions where the CPU
// has them, a table otherwise. Same result everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace celeriac {

std::uint32_t crc32c(const void* data, std::size_t n, std::uint32_t seed = 0);

// The portable twin, public so that a test can compare the two.
std::uint32_t crc32c_portable(const void* data, std::size_t n, std::uint32_t seed = 0);

}  // namespace celeriac
