#include "platform/status.hpp"

#include <system_error>

namespace celeriac {

Status Status::system(const std::string& what, int error) {
  return {Code::kSystem, what + ": " + std::generic_category().message(error)};
}

}  // namespace celeriac
