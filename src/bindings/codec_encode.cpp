// How containers that are met twice are found: one whose only reference is that of the container
// around it can't be met again, so only the others are remembered.
//
// Nothing here runs code of the value's. But the garbage collector may run where an object is
// made (the text of a Decimal), and with it any code, which may change the containers that are
// being written. So a container is held while its items are written, an item is held where it may
// allocate, and places are compared with the size of now.
#include "bindings/codec_encode.hpp"

#include <cstdint>
#include <cstring>
#include <string_view>

#include "bindings/codec_format.hpp"
#include "bindings/codec_seen.hpp"
#include "bindings/codec_text.hpp"
#include "bindings/codec_types.hpp"

namespace celeriac::bindings {
namespace {

constexpr std::size_t kLargest = 0xFFFFFFFF;  // of any size that is written

class Held {  // a reference of ours
 public:
  explicit Held(PyObject* o) : o_(Py_NewRef(o)) {}
  ~Held() { Py_DECREF(o_); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  PyObject* o_;
};

// Each function that writes says false to stop: something isn't plain, or a Python error is set.
// What is seldom called is kept out of the loops around what often is.
class Encoder {
 public:
  Encoder(Buffer& out, Accepted accepted) : out_(out), json_(accepted == Accepted::kJson) {}

  bool item(PyObject* o) {
    if (!out_.reserve(kSmallest)) return false;
    char* end = small(o, out_.end());
    if (end == nullptr) return other_item(o);
    out_.end_at(end);
    return true;
  }

 private:
  static constexpr std::size_t kSmallest = 1 + kShortStr;
  static constexpr std::size_t kLong = 256;

  // The commonest kinds, without a call. Writes at `to` and returns the end, or nullptr for others.
  // REQUIRES: kSmallest bytes there.
  [[gnu::always_inline]] char* small(PyObject* o, char* to) {
    const PyTypeObject* type = Py_TYPE(o);
    if (type == &PyUnicode_Type) {
      const auto n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(o));
      if (!PyUnicode_IS_COMPACT_ASCII(o) || n >= kShortStr || may_repeat(o, n)) return nullptr;
      *to = static_cast<char>(kTagStr + n);
      copy_short(to + 1, reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(o)), n);
      return to + 1 + n;
    }
    if (type == &PyLong_Type) {
      int overflow = 0;
      const long long n = PyLong_AsLongLongAndOverflow(o, &overflow);
      if (overflow != 0) return nullptr;
      if (static_cast<unsigned long long>(n) < kSmallInts) {
        *to = static_cast<char>(kTagInt + static_cast<unsigned>(n));
        return to + 1;
      }
      if (n == static_cast<std::int8_t>(n)) return put(to, kTagInt1, static_cast<std::int8_t>(n));
      if (n == static_cast<std::int16_t>(n)) return put(to, kTagInt2, static_cast<std::int16_t>(n));
      if (n == static_cast<std::int32_t>(n)) return put(to, kTagInt4, static_cast<std::int32_t>(n));
      return put(to, kTagInt8, static_cast<std::int64_t>(n));
    }
    if (type == &PyFloat_Type) return put(to, kTagFloat, PyFloat_AS_DOUBLE(o));
    if (o != Py_None && type != &PyBool_Type) return nullptr;
    *to = static_cast<char>(o == Py_None ? kTagNone : o == Py_True ? kTagTrue : kTagFalse);
    return to + 1;
  }

  template <class T>
  static char* put(char* to, unsigned first, T value) {
    *to = static_cast<char>(first);
    std::memcpy(to + 1, &value, sizeof value);
    return to + 1 + sizeof value;
  }

  [[gnu::noinline]] bool other_item(PyObject* o) {
    const PyTypeObject* type = Py_TYPE(o);
    if (type == &PyUnicode_Type) {
      const auto n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(o));
      return may_repeat(o, n) ? shared_text(o) : text(o, false);
    }
    if (type == &PyLong_Type) return big_integer(o);
    if (type == &PyDict_Type) return dict(o);
    if (type == &PyList_Type) return list(o);
    if (type == &PyTuple_Type) return tuple(o);
    if (json_) return false;
    if (type == &PyBytes_Type) return bytes(o);
    if (type == &PySet_Type) return set(kTagSet, o);
    if (type == &PyFrozenSet_Type) return set(kTagFrozenSet, o);
    const Held held(o);
    return of_the_library(o, type);
  }

  // ---------------------------------------------------------------- bytes

  bool tag(std::size_t value) {
    if (!out_.reserve(1)) return false;
    *out_.end() = static_cast<char>(value);
    out_.add(1);
    return true;
  }

  template <class T>
  bool fixed(unsigned first, T value) {
    if (!out_.reserve(1 + sizeof value)) return false;
    out_.end_at(put(out_.end(), first, value));
    return true;
  }

  // REQUIRES: five bytes are reserved.
  void varint(std::size_t n) {
    char* to = out_.end();
    std::size_t size = 0;
    for (; n >= 0x80; n >>= 7U) to[size++] = static_cast<char>(n | 0x80U);
    to[size++] = static_cast<char>(n);
    out_.add(size);
  }

  // A tag, a size, and room for that many bytes more.
  bool sized(unsigned first, std::size_t n, std::size_t more) {
    if (n > kLargest || more > kLargest || !out_.reserve(6 + more) || !tag(first)) return false;
    varint(n);
    return true;
  }

  void raw(const void* from, std::size_t n) {
    std::memcpy(out_.end(), from, n);
    out_.add(n);
  }

  // What is long and comes again is pickle's, as a container is: it writes it once.
  bool comes_once(PyObject* o, std::size_t n) {
    return n < kLong || Py_REFCNT(o) == 1 || met_.insert(o);
  }

  bool bytes(PyObject* o) {
    const auto n = static_cast<std::size_t>(PyBytes_GET_SIZE(o));
    if (!comes_once(o, n) || !sized(kTagBytes, n, n)) return false;
    raw(PyBytes_AS_STRING(o), n);
    return true;
  }

  // ---------------------------------------------------------------- numbers

  [[gnu::noinline]] bool big_integer(PyObject* o) {
    const std::size_t n = int_size(o);
    if (n == 0 || !sized(kTagBigInt, n, n) || !int_to_bytes(o, out_.end(), n, true)) return false;
    out_.add(n);
    return true;
  }

  // ---------------------------------------------------------------- text

  [[gnu::noinline]] bool text(PyObject* o, bool into_table) {
    if (PyUnicode_IS_COMPACT_ASCII(o)) {
      const auto n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(o));
      if (!into_table && !comes_once(o, n)) return false;
      if (n >= kShortStr) {
        if (!sized(into_table ? kTagLongNewStr : kTagLongStr, n, n)) return false;
      } else if (!out_.reserve(n + 1) || !tag((into_table ? kTagNewStr : kTagStr) + n)) {
        return false;
      }
      raw(PyUnicode_1BYTE_DATA(o), n);
      return true;
    }
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(o) != 0) return false;
    if (PyUnicode_IS_COMPACT_ASCII(o)) return text(o, into_table);
#endif
    const std::size_t n = utf8_of(o, nullptr);
    if (n == 0 && PyUnicode_GET_LENGTH(o) != 0) return false;
    if (!into_table && !comes_once(o, n)) return false;
    if (!sized(into_table ? kTagLongNewUtf8 : kTagLongUtf8, n, n)) return false;
    utf8_of(o, out_.end());
    out_.add(n);
    return true;
  }

  // Names and the like are interned, and likely to come again; other text hardly ever does.
  static bool may_repeat(PyObject* o, std::size_t n) {
    return PyUnicode_CHECK_INTERNED(o) != 0 && n > 1 && n <= 2 * kShortStr;
  }

  [[gnu::noinline]] bool shared_text(PyObject* o) {
    const std::size_t place = strings_.find(o);
    if (place >= kMaxShared) return text(o, place == SharedStrings::kNew);
    if (place < kNearShared) return tag(static_cast<unsigned>(kTagOldStr + place));
    return sized(kTagFarStr, place, 0);
  }

  // ---------------------------------------------------------------- containers

  // REQUIRES: o is borrowed from where it was found.
  bool enter(PyObject* o) {
    if (Py_REFCNT(o) > 1 && !met_.insert(o)) return false;
    return ++depth_ <= kMaxDepth;
  }

  bool list(PyObject* o) {
    if (!enter(o)) return false;
    const Held held(o);
    const Py_ssize_t n = PyList_GET_SIZE(o);
    const auto count = static_cast<std::size_t>(n);
    if (!(count < kShortContainer ? tag(kTagList + static_cast<unsigned>(count))
                                  : sized(kTagLongList, count, 0))) {
      return false;
    }
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (i >= PyList_GET_SIZE(o) || !item(PyList_GET_ITEM(o, i))) return false;
    }
    --depth_;
    return true;
  }

  bool tuple(PyObject* o) {
    const Py_ssize_t n = PyTuple_GET_SIZE(o);
    if (n > 0 && !enter(o)) return false;  // there is but one empty tuple, and it is met often
    const Held held(o);
    if (!sized(json_ ? kTagLongList : kTagTuple, static_cast<std::size_t>(n), 0)) return false;
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (!item(PyTuple_GET_ITEM(o, i))) return false;
    }
    depth_ -= n > 0 ? 1 : 0;
    return true;
  }

  bool dict(PyObject* o) {
    if (!enter(o)) return false;
    const Held held(o);
    const Py_ssize_t n = PyDict_GET_SIZE(o);
    const auto count = static_cast<std::size_t>(n);
    if (!(count < kShortContainer ? tag(kTagDict + static_cast<unsigned>(count))
                                  : sized(kTagLongDict, count, 0))) {
      return false;
    }
    Py_ssize_t at = 0;
    Py_ssize_t written = 0;
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    std::size_t first = 0;
    strings_.begin_keys();
    for (; PyDict_Next(o, &at, &key, &value) != 0; ++written) {
      if (strings_.is_next(key) && out_.reserve(1 + kSmallest)) {
        char* to = out_.end();
        const std::size_t place = strings_.take_next();
        if (written == 0) first = place;
        *to++ = static_cast<char>(kTagOldStr + place);
        char* end = small(value, to);
        out_.end_at(end == nullptr ? to : end);
        if (end == nullptr && !other_item(value)) return false;
      } else if (PyUnicode_CheckExact(key)) {
        if (!shared_text(key)) return false;
        if (written == 0) first = strings_.latest();
        if (!item(value)) return false;
      } else if (json_ || !other_pair(key, value)) {
        return false;
      }
    }
    strings_.end_keys(first);
    --depth_;
    return written == n;
  }

  // A key that isn't a str may run code that takes the value away.
  bool other_pair(PyObject* key, PyObject* value) {
    Py_INCREF(value);
    const bool good = item(key) && Py_REFCNT(value) > 1;
    Py_DECREF(value);
    return good && item(value);
  }

  bool set(unsigned first, PyObject* o) {
    if (!enter(o)) return false;
    const Held held(o);
    const Py_ssize_t n = PySet_GET_SIZE(o);
    if (!sized(first, static_cast<std::size_t>(n), 0)) return false;
    PyObject* each = PyObject_GetIter(o);
    if (each == nullptr) return false;
    Py_ssize_t written = 0;
    bool good = true;
    while (good) {
      PyObject* one = PyIter_Next(each);
      if (one == nullptr) break;
      // Its references are those of the set and ours: only hashable containers are in here.
      good = item_of_set(one);
      ++written;
    }
    Py_DECREF(each);
    --depth_;
    return good && written == n && PyErr_Occurred() == nullptr;
  }

  bool item_of_set(PyObject* one) {
    Py_DECREF(one);  // the set has it still
    return item(one);
  }

  // ---------------------------------------------------------------- the standard library

  bool of_the_library(PyObject* o, const PyTypeObject* type) {
    const std::string_view name = type->tp_name;
    if (name.starts_with("datetime.")) {
      const PyDateTime_CAPI* api = datetime_api();
      if (api == nullptr) return false;
      if (type == api->DateTimeType) return date_time(o, *api);
      if (type == api->DateType) return date(o);
      if (type == api->TimeType) return time(o, *api);
      if (type == api->DeltaType) return tag(kTagTimeDelta) && delta(o);
      return false;
    }
    const auto is = [type](PyObject* known) {
      return reinterpret_cast<PyObject*>(const_cast<PyTypeObject*>(type)) == known;
    };
    if (name == "decimal.Decimal" && is(decimal_type())) return decimal(o);
    if (name == "UUID" && is(uuid_type())) return uuid(o);
    return false;
  }

  bool date_time(PyObject* o, const PyDateTime_CAPI& api) {
    const std::uint64_t moment =
        static_cast<std::uint64_t>(PyDateTime_GET_YEAR(o)) << kYearBit |
        static_cast<std::uint64_t>(PyDateTime_GET_MONTH(o)) << kMonthBit |
        static_cast<std::uint64_t>(PyDateTime_GET_DAY(o)) << kDayBit |
        static_cast<std::uint64_t>(PyDateTime_DATE_GET_HOUR(o)) << kHourBit |
        static_cast<std::uint64_t>(PyDateTime_DATE_GET_MINUTE(o)) << kMinuteBit |
        static_cast<std::uint64_t>(PyDateTime_DATE_GET_SECOND(o)) << kSecondBit |
        static_cast<std::uint64_t>(PyDateTime_DATE_GET_MICROSECOND(o)) << kMicrosecondBit |
        static_cast<std::uint64_t>(PyDateTime_DATE_GET_FOLD(o)) << kFoldBit;
    PyObject* tz = PyDateTime_DATE_GET_TZINFO(o);
    if (tz == Py_None) return fixed(kTagDateTime, moment);
    return fixed(kTagZonedDateTime, moment) && zone(tz, api);
  }

  bool time(PyObject* o, const PyDateTime_CAPI& api) {
    const std::uint64_t moment =
        static_cast<std::uint64_t>(PyDateTime_TIME_GET_HOUR(o)) << kHourBit |
        static_cast<std::uint64_t>(PyDateTime_TIME_GET_MINUTE(o)) << kMinuteBit |
        static_cast<std::uint64_t>(PyDateTime_TIME_GET_SECOND(o)) << kSecondBit |
        static_cast<std::uint64_t>(PyDateTime_TIME_GET_MICROSECOND(o)) << kMicrosecondBit |
        static_cast<std::uint64_t>(PyDateTime_TIME_GET_FOLD(o)) << kFoldBit;
    PyObject* tz = PyDateTime_TIME_GET_TZINFO(o);
    if (tz == Py_None) return fixed(kTagTime, moment);
    return fixed(kTagZonedTime, moment) && zone(tz, api);
  }

  bool date(PyObject* o) {
    return fixed(kTagDate, static_cast<std::uint32_t>(PyDateTime_GET_YEAR(o)) << 9U |
                               static_cast<std::uint32_t>(PyDateTime_GET_MONTH(o)) << 5U |
                               static_cast<std::uint32_t>(PyDateTime_GET_DAY(o)));
  }

  bool delta(PyObject* o) {
    const std::int32_t parts[3] = {PyDateTime_DELTA_GET_DAYS(o), PyDateTime_DELTA_GET_SECONDS(o),
                                   PyDateTime_DELTA_GET_MICROSECONDS(o)};
    if (!out_.reserve(sizeof parts)) return false;
    raw(parts, sizeof parts);
    return true;
  }

  bool zone(PyObject* tz, const PyDateTime_CAPI& api) {
    if (tz == api.TimeZone_UTC) return tag(kZoneUtc);
    if (Py_TYPE(tz) == Py_TYPE(api.TimeZone_UTC)) return offset_zone(tz, api);
    if (std::string_view(Py_TYPE(tz)->tp_name) != "zoneinfo.ZoneInfo") return false;
    PyObject* type = zone_info_type();
    if (type == nullptr || reinterpret_cast<PyObject*>(Py_TYPE(tz)) != type) return false;
    PyObject* key = PyObject_GetAttrString(tz, "key");
    if (key == nullptr) return false;
    // One that was made beside the cache (no_cache, from_file) isn't what its key gives back.
    PyObject* cached =
        PyUnicode_CheckExact(key) ? PyObject_CallFunctionObjArgs(type, key, nullptr) : nullptr;
    const bool good = cached == tz && tag(kZoneNamed) && shared_text(key);
    Py_XDECREF(cached);
    Py_DECREF(key);
    return good;
  }

  bool offset_zone(PyObject* tz, const PyDateTime_CAPI& api) {
    PyObject* arguments = PyObject_CallMethod(tz, "__getinitargs__", nullptr);
    if (arguments == nullptr) return false;
    const Py_ssize_t n = PyTuple_Check(arguments) ? PyTuple_GET_SIZE(arguments) : 0;
    PyObject* offset = n > 0 ? PyTuple_GET_ITEM(arguments, 0) : Py_None;
    PyObject* name = n > 1 ? PyTuple_GET_ITEM(arguments, 1) : Py_None;
    const bool good = Py_TYPE(offset) == api.DeltaType && tag(kZoneOffset) && delta(offset) &&
                      (name == Py_None || PyUnicode_CheckExact(name)) &&
                      (name == Py_None ? tag(kTagNone) : shared_text(name));
    Py_DECREF(arguments);
    return good;
  }

  bool decimal(PyObject* o) {
    PyObject* digits = PyObject_Str(o);
    if (digits == nullptr) return false;
    bool good = false;
    if (PyUnicode_IS_COMPACT_ASCII(digits)) {
      const auto n = static_cast<std::size_t>(PyUnicode_GET_LENGTH(digits));
      good = sized(kTagDecimal, n, n);
      if (good) raw(PyUnicode_1BYTE_DATA(digits), n);
    }
    Py_DECREF(digits);
    return good;
  }

  bool uuid(PyObject* o) {
    PyObject* safety = PyObject_GetAttrString(o, "is_safe");
    if (safety == nullptr) return false;
    Py_DECREF(safety);
    if (safety != uuid_safety_unknown()) return false;
    PyObject* number = PyObject_GetAttrString(o, "int");
    if (number == nullptr) return false;
    constexpr std::size_t kSize = 16;
    const bool good = PyLong_CheckExact(number) && out_.reserve(1 + kSize) && tag(kTagUuid) &&
                      int_to_bytes(number, out_.end(), kSize, false);
    if (good) out_.add(kSize);
    Py_DECREF(number);
    return good;
  }

  Buffer& out_;
  const bool json_;
  int depth_ = 0;
  MetContainers met_;
  SharedStrings strings_;
};

}  // namespace

bool encode_native(PyObject* value, Accepted accepted, Buffer* to) {
  if (to->reserve(1)) {
    *to->end() = static_cast<char>(kFormatVersion);
    to->add(1);
    if (Encoder(*to, accepted).item(value)) return true;
  }
  to->clear();
  if (PyErr_Occurred() != nullptr) {
    if (PyErr_ExceptionMatches(PyExc_Exception) == 0) throw pybind11::error_already_set();
    PyErr_Clear();  // pickle meets it again, and says what it is
  }
  return false;
}

}  // namespace celeriac::bindings
