// A directory of its own for each test, below /dev/shm, private, and gone at the end.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "arena/arena.hpp"

namespace celeriac::test {

class TemporaryRoot {
 public:
  TemporaryRoot() : maker_(getpid()) {
    std::string name = "/dev/shm/celeriac-test-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
    path_ = name;
  }
  ~TemporaryRoot() {
    std::error_code ignored;
    if (getpid() == maker_) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryRoot(const TemporaryRoot&) = delete;
  TemporaryRoot& operator=(const TemporaryRoot&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  ArenaOptions options(std::uint64_t memory = 16ULL << 20U) const {
    ArenaOptions o;
    o.root = path_;
    o.name = "store";
    o.memory = memory;
    o.memory_given = true;
    return o;
  }

 private:
  pid_t maker_;
  std::string path_;
};

}  // namespace celeriac::test
