#include "arena/header.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "arena/layout_fingerprint.hpp"
#include "platform/clock.hpp"
#include "platform/crc32c.hpp"
#include "platform/file.hpp"
#include "platform/mapping.hpp"

namespace celeriac {
namespace {

std::uint32_t checksum(const layout::HeaderFixed& h) {
  return crc32c(&h, offsetof(layout::HeaderFixed, checksum));
}

std::string version_text(std::uint32_t major, std::uint32_t minor, std::uint64_t fingerprint) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%u.%u (fingerprint %016llx)", major, minor,
                static_cast<unsigned long long>(fingerprint));
  return text.data();
}

}  // namespace

layout::HeaderFixed make_header() {
  layout::HeaderFixed h{};
  h.magic = layout::kMagic;
  h.major = layout::kMajor;
  h.minor = layout::kMinor;
  h.fingerprint = layout::fingerprint();
  const auto boot = boot_id();
  std::copy(boot.begin(), boot.end(), h.boot_id);
  random_bytes(h.uuid, sizeof h.uuid);
  random_bytes(&h.hash_seed, sizeof h.hash_seed);
  h.created_wall_ns = wall_ns();
  h.base_size = layout::kBlocks;
  h.page_size = static_cast<std::uint32_t>(page_size());
  h.checksum = checksum(h);
  return h;
}

Status check_header(const layout::HeaderFixed& h, const std::string& path) {
  const std::string cure =
      "; stop its processes and remove the directory " + path + " to start with an empty store";
  if (h.magic != layout::kMagic) {
    return {Code::kCorrupt, path + "/arena isn't a celeriac arena (wrong magic number)" + cure};
  }
  if (h.major != layout::kMajor) {
    return {Code::kVersionMismatch,
            path + "/arena has layout " + version_text(h.major, h.minor, h.fingerprint) +
                ", this process has " +
                version_text(layout::kMajor, layout::kMinor, layout::fingerprint()) +
                ": run the same celeriac everywhere" + cure};
  }
  if (h.checksum != checksum(h)) {
    return {Code::kCorrupt, path + "/arena has a damaged header (checksum)" + cure};
  }
  if (h.fingerprint != layout::fingerprint() || h.features_incompatible != 0 ||
      h.base_size != layout::kBlocks || h.page_size != page_size()) {
    return {Code::kVersionMismatch,
            path + "/arena has layout " + version_text(h.major, h.minor, h.fingerprint) +
                ", this process has " +
                version_text(layout::kMajor, layout::kMinor, layout::fingerprint()) +
                ": run the same celeriac build everywhere" + cure};
  }
  const auto boot = boot_id();
  if (!std::equal(boot.begin(), boot.end(), h.boot_id)) {
    return {Code::kCorrupt, path + "/arena is from before the host's last boot" + cure};
  }
  return Status::ok();
}

bool is_of_an_earlier_boot(int file) {
  layout::HeaderFixed h{};
  if (!read_at(file, &h, sizeof h, 0) || h.magic != layout::kMagic || h.major != layout::kMajor ||
      h.checksum != checksum(h) || h.fingerprint != layout::fingerprint()) {
    return false;
  }
  const auto boot = boot_id();
  return !std::equal(boot.begin(), boot.end(), h.boot_id);
}

}  // namespace celeriac
