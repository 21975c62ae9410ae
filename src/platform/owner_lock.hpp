// Owner locks: the kernel decides who is alive.
//
// Each process of a store holds one byte of the file `owners.lock` by an OFD (open file
// description) lock. The kernel frees it when the last descriptor of that description is closed:
// at exit, at SIGKILL, across containers and PID namespaces, whatever the process was doing.
//
// Byte 0 is unused; byte 1 is the recovery lock; byte 2 the gate, held for a moment by whoever
// comes in; byte 3 is shared by all that are in; byte 16 + i stands for owner slot i.
// A forked child shares the description, so it must close its copy at once (arena/owners does).
#pragma once

#include <cstdint>
#include <string>

#include "platform/file.hpp"
#include "platform/status.hpp"

namespace celeriac {

class OwnerLock {
 public:
  static constexpr std::uint64_t kRecoveryByte = 1;
  static constexpr std::uint64_t kGateByte = 2;
  static constexpr std::uint64_t kPresenceByte = 3;
  static constexpr std::uint64_t kFirstOwnerByte = 16;

  OwnerLock() = default;

  // Opens (or makes) the lock file; no lock is taken.
  static Result<OwnerLock> open(int dir, unsigned mode, const std::string& path);

  // Takes the byte if nobody else has it. Not blocking.
  bool try_lock(std::uint64_t byte);
  // Takes a share of the byte if nobody else has it alone. Not blocking.
  bool try_share(std::uint64_t byte);
  void unlock(std::uint64_t byte);
  // Does somebody else hold it? (A description doesn't see its own locks.) About 0.4 us.
  // When the kernel can't say (descriptor lost), the answer is yes: nobody is declared dead.
  bool held_by_other(std::uint64_t byte) const;

  int fd() const { return fd_.get(); }
  void close() { fd_.reset(); }

 private:
  Fd fd_;
};

}  // namespace celeriac
