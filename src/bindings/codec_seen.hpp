// What the encoder has met in the value that it writes: containers, and strings of the table.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "bindings/codec_format.hpp"

namespace celeriac::bindings {

// Containers by address. Open addressing; the size is a power of two.
class MetContainers {
 public:
  // False when it is there already.
  bool insert(const void* p) {
    if (2 * (used_ + 1) > size_) grow();
    return put(p);
  }

 private:
  bool put(const void* p) {
    const auto hash = reinterpret_cast<std::uintptr_t>(p) * 0x9E3779B97F4A7C15ULL >> 32U;
    for (std::size_t at = hash;; ++at) {
      const void*& place = slots_[at & (size_ - 1)];
      if (place == p) return false;
      if (place != nullptr) continue;
      place = p;
      ++used_;
      return true;
    }
  }

  void grow() {
    std::vector<const void*> old(slots_, slots_ + size_);
    size_ *= 2;
    used_ = 0;
    more_.assign(size_, nullptr);
    slots_ = more_.data();
    for (const void* p : old) {
      if (p != nullptr) put(p);
    }
  }

  const void* few_[8] = {};
  std::vector<const void*> more_;
  const void** slots_ = few_;
  std::size_t size_ = 8;
  std::size_t used_ = 0;
};

// The writer's side of the table of strings.
//
// One array of places serves all values; only those with the value's own number count. A place that
// a value has taken which was encoded meanwhile is forgotten, and so is a string that finds its
// places full: it is then written once more. The strings are held: else another string could come
// to stand at the address of one.
class SharedStrings {
 public:
  SharedStrings() : value_(++values()) {}
  SharedStrings(const SharedStrings&) = delete;
  SharedStrings& operator=(const SharedStrings&) = delete;
  ~SharedStrings() {
    for (std::size_t i = 0; i < size_; ++i) Py_DECREF(i < kFew ? few_[i] : more_[i - kFew]);
  }

  static constexpr std::size_t kNew = kMaxShared;          // it has entered the table
  static constexpr std::size_t kOutside = kMaxShared + 1;  // it has not

  // Dicts in a row have the same keys in the same order: the next place, most of the time.
  bool is_next(PyObject* text) const {
    return next_ < size_ && next_ < kFew && few_[next_] == text;
  }
  std::size_t take_next() { return next_++; }

  // Where the string stands in the table, or one of the above. REQUIRES: exactly a str.
  std::size_t find(PyObject* text) {
    const std::size_t place = look_up(text);
    next_ = place == kNew ? size_ : place + 1;
    return place;
  }

  // The keys of a dict follow; likely those of the dict before, which began at this place.
  void begin_keys() { next_ = first_; }
  std::size_t latest() const { return next_ - 1; }  // what was found last
  void end_keys(std::size_t first) { first_ = first; }

 private:
  std::size_t look_up(PyObject* text) {
    Py_hash_t hash = reinterpret_cast<PyASCIIObject*>(text)->hash;
    if (hash == -1) hash = PyObject_Hash(text);
    for (std::size_t probe = 0; probe < kProbes; ++probe) {
      Place& place = places()[(static_cast<std::size_t>(hash) + probe) % kPlaces];
      if (place.value != value_) {
        if (size_ == kMaxShared) break;
        place = {text, hash, value_, size_};
        hold(text);
        return kNew;
      }
      if (place.text == text || (place.hash == hash && same(place.text, text))) return place.index;
    }
    return kOutside;
  }

  struct Place {
    PyObject* text;
    Py_hash_t hash;
    std::uint64_t value;
    std::size_t index;
  };
  static constexpr std::size_t kPlaces = 1024;
  static constexpr std::size_t kProbes = 8;
  static constexpr std::size_t kFew = 32;

  static Place* places() {
    static Place all[kPlaces];
    return all;
  }
  static std::uint64_t& values() {
    static std::uint64_t count = 0;
    return count;
  }

  static bool same(PyObject* a, PyObject* b) {
    const auto n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(a));
    const auto width = static_cast<std::size_t>(PyUnicode_KIND(a));
    return n == static_cast<std::size_t>(PyUnicode_GET_LENGTH(b)) &&
           width == static_cast<std::size_t>(PyUnicode_KIND(b)) &&
           std::memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), n * width) == 0;
  }

  void hold(PyObject* text) {
    if (size_ < kFew) {
      few_[size_] = Py_NewRef(text);
    } else {
      more_.push_back(Py_NewRef(text));
    }
    ++size_;
  }

  const std::uint64_t value_;
  std::size_t size_ = 0;
  std::size_t next_ = 0;
  std::size_t first_ = 0;
  PyObject* few_[kFew];
  std::vector<PyObject*> more_;
};

}  // namespace celeriac::bindings
