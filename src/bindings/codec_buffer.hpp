// A growing run of bytes for one encoded value. REQUIRES: the interpreter lock, throughout.
//
// The memory of the last buffer that went is kept for the next, so that encoding seldom allocates;
// two at once (a value that uses the cache while it is pickled) are two pieces of memory.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace celeriac::bindings {

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    const std::size_t capacity = this->capacity();
    if (begin_ != nullptr && capacity <= kKept && spare().first == nullptr) {
      spare() = {begin_, capacity};
    } else {
      std::free(begin_);
    }
  }

  // Room for n more bytes at end(); false without memory.
  bool reserve(std::size_t n) { return static_cast<std::size_t>(limit_ - end_) >= n || grow(n); }
  char* end() { return end_; }
  void add(std::size_t n) { end_ += n; }  // n bytes have been written at end()
  void end_at(char* end) { end_ = end; }  // they end there
  void clear() { end_ = begin_; }
  std::string_view bytes() const { return {begin_, size()}; }

 private:
  static constexpr std::size_t kFirst = 1024;
  static constexpr std::size_t kKept = 256 << 10;

  static std::pair<char*, std::size_t>& spare() {
    static std::pair<char*, std::size_t> kept{nullptr, 0};
    return kept;
  }
  std::size_t size() const { return static_cast<std::size_t>(end_ - begin_); }
  std::size_t capacity() const { return static_cast<std::size_t>(limit_ - begin_); }

  void take(char* begin, std::size_t size, std::size_t capacity) {
    begin_ = begin;
    end_ = begin + size;
    limit_ = begin + capacity;
  }

  [[gnu::noinline]] bool grow(std::size_t n) {
    if (begin_ == nullptr && spare().first != nullptr) {
      const auto [begin, capacity] = std::exchange(spare(), {nullptr, 0});
      take(begin, 0, capacity);
      if (capacity >= n) return true;
    }
    const std::size_t size = this->size();
    std::size_t capacity = this->capacity() < kFirst ? kFirst : this->capacity();
    while (capacity - size < n) capacity *= 2;
    char* begin = static_cast<char*>(std::realloc(begin_, capacity));
    if (begin == nullptr) return false;
    take(begin, size, capacity);
    return true;
  }

  char* begin_ = nullptr;
  char* end_ = nullptr;
  char* limit_ = nullptr;
};

}  // namespace celeriac::bindings
