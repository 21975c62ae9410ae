// A range of address space reserved once, into which a file is mapped piece by piece. Growth maps
// the next piece behind the last: the base never moves, so pointers into the arena stay valid.
#pragma once

#include <cstddef>
#include <cstdint>

#include "platform/status.hpp"

namespace celeriac {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Reserves address space only: no memory, no access.
  static Result<Mapping> reserve(std::size_t bytes);

  // Maps [offset, offset + length) of the file shared and read-write at base() + offset.
  // REQUIRES: page-aligned; the file is allocated that far; within the reservation.
  Status map(int fd, std::uint64_t offset, std::uint64_t length);

  char* base() const { return base_; }
  std::size_t reserved() const { return reserved_; }

 private:
  char* base_ = nullptr;
  std::size_t reserved_ = 0;
};

std::size_t page_size();

}  // namespace celeriac
