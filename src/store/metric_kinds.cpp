#include "store/metric_kinds.hpp"

#include <cstring>

namespace celeriac {

std::string pack_labels(const std::vector<std::string_view>& values) {
  std::string packed;
  for (const std::string_view v : values) {
    const auto size = static_cast<std::uint32_t>(v.size());
    packed.append(reinterpret_cast<const char*>(&size), sizeof size);
    packed.append(v);
  }
  return packed;
}

bool unpack_labels(std::string_view packed, std::size_t count, std::vector<std::string>* values) {
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t size = 0;
    if (packed.size() < sizeof size) return false;
    std::memcpy(&size, packed.data(), sizeof size);
    packed.remove_prefix(sizeof size);
    if (packed.size() < size) return false;
    values->emplace_back(packed.substr(0, size));
    packed.remove_prefix(size);
  }
  return true;
}

}  // namespace celeriac
