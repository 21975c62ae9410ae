#include "platform/owner_lock.hpp"

#include <fcntl.h>

namespace celeriac {
namespace {

struct flock one_byte(short type, std::uint64_t byte) {
  struct flock f {};
  f.l_type = type;
  f.l_whence = SEEK_SET;
  f.l_start = static_cast<off_t>(byte);
  f.l_len = 1;
  return f;
}

}  // namespace

Result<OwnerLock> OwnerLock::open(int dir, unsigned mode, const std::string& path) {
  Result<Fd> fd = open_or_create(dir, "owners.lock", mode, path + "/owners.lock");
  if (!fd) return fd.status();
  OwnerLock lock;
  lock.fd_ = fd.take();
  return lock;
}

bool OwnerLock::try_lock(std::uint64_t byte) {
  struct flock f = one_byte(F_WRLCK, byte);
  return fcntl(fd_.get(), F_OFD_SETLK, &f) == 0;
}

bool OwnerLock::try_share(std::uint64_t byte) {
  struct flock f = one_byte(F_RDLCK, byte);
  return fcntl(fd_.get(), F_OFD_SETLK, &f) == 0;
}

void OwnerLock::unlock(std::uint64_t byte) {
  struct flock f = one_byte(F_UNLCK, byte);
  fcntl(fd_.get(), F_OFD_SETLK, &f);
}

bool OwnerLock::held_by_other(std::uint64_t byte) const {
  struct flock f = one_byte(F_WRLCK, byte);
  if (fcntl(fd_.get(), F_OFD_GETLK, &f) != 0) return true;
  return f.l_type != F_UNLCK;
}

}  // namespace celeriac
