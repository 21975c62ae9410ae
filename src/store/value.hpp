// Values as the engines move them: bytes and a codec that says how to read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace celeriac {

// Stored with each entry; numbers are part of the layout.
enum class Codec : std::uint8_t {
  kNone = 1,
  kTrue = 2,
  kFalse = 3,
  kInt = 4,     // 8 bytes, signed, host order: the arena never leaves the host
  kBigInt = 5,  // signed, two's complement, little-endian, any length
  kStr = 6,     // UTF-8
  kBytes = 7,
  kPickle = 8,
  kNamed = 9,  // by the caller's serializer
};

struct Value {
  Codec codec = Codec::kBytes;
  std::string_view bytes;
};

// Where a lookup puts a value: inline up to 1 KiB, else on the heap. Reusable.
class ValueBuffer {
 public:
  ValueBuffer() = default;
  ValueBuffer(const ValueBuffer&) = delete;
  ValueBuffer& operator=(const ValueBuffer&) = delete;

  char* reserve(std::size_t n) {
    size_ = n;
    if (n <= sizeof inline_) return data_ = inline_;
    if (n > big_size_) {
      big_ = std::make_unique_for_overwrite<char[]>(n);
      big_size_ = n;
    }
    return data_ = big_.get();
  }
  std::string_view bytes() const { return {data_, size_}; }

  Codec codec = Codec::kNone;
  std::uint64_t expires = 0;
  std::uint64_t version = 0;  // changes whenever the entry's value does; never 0

 private:
  char* data_ = inline_;
  std::size_t size_ = 0;
  std::unique_ptr<char[]> big_;
  std::size_t big_size_ = 0;
  char inline_[1024];
};

enum class StoreMode { kSet, kAdd, kReplace, kCompare };

// What a call has met under a key: nothing, a value, or one packed with more (Codec::kNamed), of
// which only its packer knows whether it is still there.
enum class Met { kNothing, kPlain, kPacked };
inline Met met(Codec codec) { return codec == Codec::kNamed ? Met::kPacked : Met::kPlain; }

// Which entries a call is for; others it leaves as they are.
enum class Which { kAll, kPlain };

enum class IncrementResult { kDone, kMissing, kNotInteger, kOverflow };

struct CacheCounts {
  std::uint64_t hits = 0, misses = 0, sets = 0, deletes = 0, evictions = 0, expirations = 0;
  std::uint64_t entries = 0, bytes = 0, bytes_limit = 0;
};

// What was counted of the keys of one prefix; entries and bytes aren't.
struct PrefixCounts {
  std::string prefix;
  CacheCounts counts;
};

// `lead`: how many bytes of a key come before its prefix.
struct PrefixRows {
  std::uint32_t lead = 0;
  std::vector<PrefixCounts> rows;
};

constexpr std::size_t kMaxKeyBytes = 65535;

}  // namespace celeriac
