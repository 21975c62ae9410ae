// Status and Result: how everything below the bindings reports failure. No exception crosses a
// function of the core; bindings/errors.cpp turns each Code into one Python exception.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace celeriac {

enum class Code : std::uint8_t {
  kOk = 0,
  kConfiguration = 1,    // ConfigurationError: bad option, path, permission, closed handle
  kNotFound = 2,         // StoreNotFound
  kVersionMismatch = 3,  // VersionMismatch
  kCorrupt = 4,          // StoreCorrupt
  kNotEnoughMemory = 5,  // NotEnoughMemory
  kValueTooLarge = 6,    // ValueTooLarge
  kQueueFull = 7,        // QueueFull
  kNotOwner = 8,         // NotOwner
  kLockTimeout = 9,      // LockTimeout
  kSystem = 10,          // failure of a system call: CeleriacError
  kInterrupted = 11,     // a signal handler raised; the bindings know what
  kLockLost = 12,        // LockLost
};

// A Status is a value: kOk costs nothing, a failure carries a message for people: what, where,
// what to do.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status ok() { return {}; }
  // A failed system call: "<what>: <strerror(error)>".
  static Status system(const std::string& what, int error);

  bool is_ok() const { return code_ == Code::kOk; }
  explicit operator bool() const { return is_ok(); }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

// Either a value or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {}  // NOLINT(google-explicit-constructor)
  bool is_ok() const { return value_.has_value(); }
  explicit operator bool() const { return is_ok(); }
  const Status& status() const { return status_; }
  // REQUIRES: is_ok()
  T& value() { return *value_; }
  const T& value() const { return *value_; }
  T take() { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace celeriac
