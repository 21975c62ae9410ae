// A growing run of bytes for one encoded value. REQUIRES: the interpreter lock, throughout.
//
// The memory of the last buffer that went is kept for the next, so that encoding seldom allocates;
// two at once (a value that uses the cache while it is pickled) are two pieces of memory.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string_view>
#include <tuple>
#include <utility>

namespace celeriac::bindings {

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr && capacity_ <= kKept && spare().first == nullptr) {
      spare() = {data_, capacity_};
    } else {
      std::free(data_);
    }
  }

  // Room for n more bytes at end(); false without memory.
  bool reserve(std::size_t n) { return capacity_ - size_ >= n || grow(n); }
  char* end() { return data_ + size_; }
  void add(std::size_t n) { size_ += n; }  // n bytes have been written at end()
  void clear() { size_ = 0; }
  std::string_view bytes() const { return {data_, size_}; }

 private:
  static constexpr std::size_t kFirst = 1024;
  static constexpr std::size_t kKept = 256 << 10;

  static std::pair<char*, std::size_t>& spare() {
    static std::pair<char*, std::size_t> kept{nullptr, 0};
    return kept;
  }

  bool grow(std::size_t n) {
    if (data_ == nullptr && spare().first != nullptr) {
      std::tie(data_, capacity_) = std::exchange(spare(), {nullptr, 0});
      if (capacity_ >= n) return true;
    }
    std::size_t capacity = capacity_ < kFirst ? kFirst : capacity_;
    while (capacity - size_ < n) capacity *= 2;
    char* data = static_cast<char*>(std::realloc(data_, capacity));
    if (data == nullptr) return false;
    data_ = data;
    capacity_ = capacity;
    return true;
  }

  char* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace celeriac::bindings
