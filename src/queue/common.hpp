// What the parts of Queues share: counting, and how a body lies in its block.
#pragma once

#include <cstdint>
#include <string_view>

#include "arena/layout.hpp"
#include "platform/crc32c.hpp"
#include "platform/status.hpp"

namespace celeriac {

// Counters are sums of differences, and may be below zero for a moment: who makes a message ready
// counts it after it is ready, and another may have taken it by then. Stopping at zero there would
// leave the sum wrong for good.
inline void add(layout::Word& counter, std::int64_t n) {
  counter.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
}

inline std::uint32_t checksum(std::string_view headers, std::string_view body) {
  return crc32c(body.data(), body.size(), crc32c(headers.data(), headers.size()));
}

inline std::uint64_t body_offset(std::uint64_t header_size) {
  return sizeof(layout::MessageHead) + layout::align_up(header_size, 8);
}

inline Status not_owner() {
  return {Code::kNotOwner,
          "the message isn't reserved by this process any more: it was acknowledged already, or "
          "redelivered to another"};
}

}  // namespace celeriac
