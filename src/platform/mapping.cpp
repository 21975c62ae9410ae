#include "platform/mapping.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

namespace celeriac {

Mapping::Mapping(Mapping&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), reserved_(std::exchange(other.reserved_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(reserved_, other.reserved_);
  return *this;
}

Mapping::~Mapping() {
  if (base_ != nullptr) munmap(base_, reserved_);
}

Result<Mapping> Mapping::reserve(std::size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    return Status(Code::kNotEnoughMemory,
                  "can't reserve " + std::to_string(bytes >> 20U) +
                      " MiB of address space for the arena (see ulimit -v): lower memory=");
  }
  Mapping m;
  m.base_ = static_cast<char*>(p);
  m.reserved_ = bytes;
  return m;
}

Status Mapping::map(int fd, std::uint64_t offset, std::uint64_t length) {
  void* p = mmap(base_ + offset, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                 static_cast<off_t>(offset));
  if (p == MAP_FAILED) return Status::system("map the arena", errno);
  return Status::ok();
}

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace celeriac
