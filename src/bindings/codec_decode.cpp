// Each function returns a new reference, or nullptr with a Python error set.
//
// The garbage collector, and with it any code, may run while a value is being built; it sees
// containers that are half filled, as it does while pickle or marshal builds them, and can't reach
// the reader's own state.
//
// Short strings of the table come from a list of recent ones, which the process keeps: dict keys
// are the same in value after value, and making one costs more than finding it.
#include "bindings/codec_decode.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

#include "bindings/codec_format.hpp"
#include "bindings/codec_reader.hpp"
#include "bindings/codec_text.hpp"
#include "bindings/codec_types.hpp"

namespace celeriac::bindings {
namespace {

constexpr std::size_t kRecent = 1024;
PyObject* g_recent[kRecent] = {};  // ASCII, shorter than kShortStr

std::uint64_t word_at(const char* p, std::size_t n = 8) {
  std::uint64_t w = 0;
  std::memcpy(&w, p, n);
  return w;
}

// A function of a short string's bytes: of its ends and its middle.
std::size_t place_of(const char* p, std::size_t n) {
  std::uint64_t h = n * 0x9E3779B97F4A7C15ULL;
  if (n >= 8) {
    h ^= word_at(p) ^ word_at(p + n / 2 - 4) * 3 ^ word_at(p + n - 8) * 5;
  } else {
    h ^= word_at(p, n);
  }
  return h * 0xD6E8FEB86659FD93ULL >> 54U;
}
static_assert(kRecent == 1U << (64U - 54U));

PyObject* ascii(const char* p, std::size_t n) {
  PyObject* text = PyUnicode_New(static_cast<Py_ssize_t>(n), 0x7F);
  if (text == nullptr) return nullptr;
  if (n <= kShortStr) {
    copy_short(reinterpret_cast<char*>(PyUnicode_1BYTE_DATA(text)), p, n);
  } else {
    std::memcpy(PyUnicode_1BYTE_DATA(text), p, n);
  }
  return text;
}

class Decoder : Reader {
 public:
  explicit Decoder(std::string_view bytes) : Reader(bytes) {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() {
    for (std::size_t i = 0; i < shared_; ++i) Py_DECREF(table_[i]);
  }

  PyObject* value() {
    if (p_ == end_ || static_cast<unsigned char>(*p_) != kFormatVersion) {
      return damaged("no value of this version of the format");
    }
    ++p_;
    PyObject* root = item();
    if (root != nullptr && p_ != end_) {
      Py_DECREF(root);
      return damaged("bytes left over");
    }
    return root;
  }

 private:
  static constexpr std::size_t kFew = 32;

  // ---------------------------------------------------------------- items

  PyObject* item() {
    if (p_ == end_) return damaged("it ends too early");
    const unsigned tag = static_cast<unsigned char>(*p_++);
    if (tag < kTagNewStr) return text(tag - kTagStr, true);
    if (tag < kTagOldStr) return new_shared(tag - kTagNewStr);
    if (tag < kTagInt) return Py_XNewRef(old_shared(tag - kTagOldStr));
    if (tag < kTagList) return PyLong_FromLong(static_cast<long>(tag - kTagInt));
    if (tag < kTagDict) return list(tag - kTagList);
    if (tag < kTagNone) return dict(tag - kTagDict);
    switch (tag) {
      case kTagNone:
        return Py_NewRef(Py_None);
      case kTagFalse:
        return Py_NewRef(Py_False);
      case kTagTrue:
        return Py_NewRef(Py_True);
      case kTagInt1:
        return integer<std::int8_t>();
      case kTagInt2:
        return integer<std::int16_t>();
      case kTagInt4:
        return integer<std::int32_t>();
      case kTagInt8:
        return integer<std::int64_t>();
      case kTagFloat: {
        double number = 0;
        return fixed(&number) ? PyFloat_FromDouble(number) : nullptr;
      }
      case kTagLongStr:
      case kTagLongUtf8: {
        std::size_t n = 0;
        return varint(&n) ? text(n, tag == kTagLongStr) : nullptr;
      }
      case kTagLongNewStr:
      case kTagLongNewUtf8: {
        std::size_t n = 0;
        return varint(&n) ? enter_table(text(n, tag == kTagLongNewStr)) : nullptr;
      }
      case kTagFarStr: {
        std::size_t n = 0;
        return varint(&n) ? Py_XNewRef(old_shared(n)) : nullptr;
      }
      default:
        return seldom(tag);
    }
  }

  [[gnu::noinline]] PyObject* seldom(unsigned tag) {
    std::size_t n = 0;
    switch (tag) {
      case kTagBigInt: {
        const char* at = sized(&n);
        return at == nullptr ? nullptr : int_from_bytes(at, n, true);
      }
      case kTagBytes: {
        const char* at = sized(&n);
        return at == nullptr ? nullptr : PyBytes_FromStringAndSize(at, static_cast<Py_ssize_t>(n));
      }
      case kTagLongList:
        return count(&n, 1) ? list(n) : nullptr;
      case kTagLongDict:
        return count(&n, 2) ? dict(n) : nullptr;
      case kTagTuple:
        return count(&n, 1) ? tuple(n) : nullptr;
      case kTagSet:
        return count(&n, 1) ? set(PySet_New(nullptr), n) : nullptr;
      case kTagFrozenSet:
        return count(&n, 1) ? set(PyFrozenSet_New(nullptr), n) : nullptr;
      case kTagDateTime:
        return date_time(Py_NewRef(Py_None));
      case kTagZonedDateTime:
        return date_time(nullptr);
      case kTagTime:
        return time(Py_NewRef(Py_None));
      case kTagZonedTime:
        return time(nullptr);
      case kTagDate:
        return date();
      case kTagTimeDelta:
        return delta();
      case kTagDecimal: {
        const char* at = sized(&n);
        return at == nullptr ? nullptr : call_with_text(decimal_type(), at, n);
      }
      case kTagUuid:
        return uuid();
      default:
        --p_;
        return damaged("an unknown tag");
    }
  }

  template <class T>
  PyObject* integer() {
    T n = 0;
    return fixed(&n) ? PyLong_FromLong(n) : nullptr;
  }
  static_assert(sizeof(long) == 8);

  // ---------------------------------------------------------------- text

  PyObject* text(std::size_t n, bool is_of_ascii) {
    const char* at = take(n);
    if (at == nullptr) return nullptr;
    if (!is_of_ascii) return PyUnicode_DecodeUTF8(at, static_cast<Py_ssize_t>(n), nullptr);
    if (!is_ascii(at, n)) return damaged("text that isn't ASCII");
    return ascii(at, n);
  }

  [[gnu::noinline]] PyObject* new_shared(std::size_t n) {
    const char* at = take(n);
    if (at == nullptr) return nullptr;
    PyObject*& recent = g_recent[place_of(at, n)];
    if (recent != nullptr && static_cast<std::size_t>(PyUnicode_GET_LENGTH(recent)) == n &&
        std::memcmp(PyUnicode_1BYTE_DATA(recent), at, n) == 0) {
      return enter_table(Py_NewRef(recent));
    }
    if (!is_ascii(at, n)) return damaged("text that isn't ASCII");
    PyObject* made = ascii(at, n);
    if (made == nullptr) return nullptr;
    Py_XSETREF(recent, Py_NewRef(made));
    return enter_table(made);
  }

  // Passes a reference on, and keeps one of its own.
  [[gnu::noinline]] PyObject* enter_table(PyObject* made) {
    if (made == nullptr) return nullptr;
    if (shared_ == kMaxShared) {
      Py_DECREF(made);
      return damaged("too many strings in the table");
    }
    if (shared_ == capacity_) {
      capacity_ *= 4;
      std::vector<PyObject*> larger(capacity_);
      std::memcpy(larger.data(), table_, shared_ * sizeof *table_);
      more_.swap(larger);
      table_ = more_.data();
    }
    table_[shared_++] = Py_NewRef(made);
    return made;
  }

  PyObject* old_shared(std::size_t place) {  // borrowed
    if (place < shared_) return table_[place];
    return damaged("a string that wasn't there");
  }

  // ---------------------------------------------------------------- containers

  // Passes a new container on if it may nest that deep.
  PyObject* enter(PyObject* made) {
    if (made == nullptr || ++depth_ <= kMaxDepth) return made;
    Py_DECREF(made);
    return damaged("nested too deep");
  }

  PyObject* leave(PyObject* made, bool good) {
    --depth_;
    if (good) return made;
    Py_DECREF(made);
    return nullptr;
  }

  [[gnu::noinline]] PyObject* list(std::size_t n) {
    if (n > left()) return damaged("more items than bytes");
    PyObject* made = enter(PyList_New(static_cast<Py_ssize_t>(n)));
    if (made == nullptr) return nullptr;
    for (std::size_t i = 0; i < n; ++i) {
      PyObject* one = item();
      if (one == nullptr) return leave(made, false);
      PyList_SET_ITEM(made, static_cast<Py_ssize_t>(i), one);
    }
    return leave(made, true);
  }

  PyObject* tuple(std::size_t n) {
    PyObject* made = enter(PyTuple_New(static_cast<Py_ssize_t>(n)));
    if (made == nullptr) return nullptr;
    for (std::size_t i = 0; i < n; ++i) {
      PyObject* one = item();
      if (one == nullptr) return leave(made, false);
      PyTuple_SET_ITEM(made, static_cast<Py_ssize_t>(i), one);
    }
    return leave(made, true);
  }

  [[gnu::noinline]] PyObject* dict(std::size_t n) {
    if (n > left() / 2) return damaged("more items than bytes");
    constexpr std::size_t kWithoutGrowing = 5;
    PyObject* made =
        enter(n > kWithoutGrowing ? _PyDict_NewPresized(static_cast<Py_ssize_t>(n)) : PyDict_New());
    if (made == nullptr) return nullptr;
    bool good = true;
    for (std::size_t i = 0; good && i < n; ++i) {
      PyObject* key = near_key();
      if (key == nullptr) key = item();
      if (key == nullptr) return leave(made, false);
      PyObject* value = item();
      good = value != nullptr && PyDict_SetItem(made, key, value) == 0;
      Py_DECREF(key);
      Py_XDECREF(value);
    }
    return leave(made, good);
  }

  // What most keys are, without a call; nullptr for all others.
  PyObject* near_key() {
    if (p_ == end_) return nullptr;
    const std::size_t place = static_cast<unsigned char>(*p_) - std::size_t{kTagOldStr};
    if (place >= kNearShared || place >= shared_) return nullptr;
    ++p_;
    return Py_NewRef(table_[place]);
  }

  PyObject* set(PyObject* fresh, std::size_t n) {
    PyObject* made = enter(fresh);
    if (made == nullptr) return nullptr;
    bool good = true;
    for (std::size_t i = 0; good && i < n; ++i) {
      PyObject* one = item();
      good = one != nullptr && PySet_Add(made, one) == 0;
      Py_XDECREF(one);
    }
    return leave(made, good);
  }

  // ---------------------------------------------------------------- the standard library

  static int part(std::uint64_t moment, unsigned from, unsigned to) {
    return static_cast<int>(moment >> from & ((1ULL << (to - from)) - 1));
  }

  // `zone`: a reference that is ours, or nullptr when it comes next.
  PyObject* date_time(PyObject* zone) {
    std::uint64_t moment = 0;
    const PyDateTime_CAPI* api = datetime_api();
    const bool good = api != nullptr && fixed(&moment);
    if (good && zone == nullptr) zone = this->zone(*api);
    PyObject* made = nullptr;
    if (good && zone != nullptr) {
      made = api->DateTime_FromDateAndTimeAndFold(
          part(moment, kYearBit, 61), part(moment, kMonthBit, kYearBit),
          part(moment, kDayBit, kMonthBit), part(moment, kHourBit, kDayBit),
          part(moment, kMinuteBit, kHourBit), part(moment, kSecondBit, kMinuteBit),
          part(moment, kMicrosecondBit, kSecondBit), zone, part(moment, kFoldBit, kMicrosecondBit),
          api->DateTimeType);
    }
    Py_XDECREF(zone);
    return made;
  }

  PyObject* time(PyObject* zone) {
    std::uint64_t moment = 0;
    const PyDateTime_CAPI* api = datetime_api();
    const bool good = api != nullptr && fixed(&moment);
    if (good && zone == nullptr) zone = this->zone(*api);
    PyObject* made = nullptr;
    if (good && zone != nullptr) {
      made = api->Time_FromTimeAndFold(
          part(moment, kHourBit, kDayBit), part(moment, kMinuteBit, kHourBit),
          part(moment, kSecondBit, kMinuteBit), part(moment, kMicrosecondBit, kSecondBit), zone,
          part(moment, kFoldBit, kMicrosecondBit), api->TimeType);
    }
    Py_XDECREF(zone);
    return made;
  }

  PyObject* date() {
    std::uint32_t packed = 0;
    const PyDateTime_CAPI* api = datetime_api();
    if (api == nullptr || !fixed(&packed)) return nullptr;
    return api->Date_FromDate(static_cast<int>(packed >> 9U), static_cast<int>(packed >> 5U & 15U),
                              static_cast<int>(packed & 31U), api->DateType);
  }

  PyObject* delta() {
    std::int32_t parts[3] = {};
    const PyDateTime_CAPI* api = datetime_api();
    if (api == nullptr || !fixed(&parts)) return nullptr;
    return api->Delta_FromDelta(parts[0], parts[1], parts[2], 1, api->DeltaType);
  }

  PyObject* zone(const PyDateTime_CAPI& api) {
    unsigned char kind = 0;
    if (!fixed(&kind)) return nullptr;
    if (kind == kZoneUtc) return Py_NewRef(api.TimeZone_UTC);
    if (kind == kZoneOffset) return offset_zone(api);
    if (kind != kZoneNamed) return damaged("an unknown kind of time zone");
    PyObject* key = name(false);
    if (key == nullptr) return nullptr;
    PyObject* type = zone_info_type();
    PyObject* made = type == nullptr ? nullptr : PyObject_CallFunctionObjArgs(type, key, nullptr);
    Py_DECREF(key);
    return made;
  }

  // A str, and nothing that nests.
  PyObject* name(bool or_none) {
    if (p_ == end_) return damaged("it ends too early");
    const unsigned tag = static_cast<unsigned char>(*p_);
    const bool is_text = tag < kTagInt || (tag >= kTagLongStr && tag <= kTagFarStr);
    if (is_text || (or_none && tag == kTagNone)) return item();
    return damaged("a zone's name that isn't one");
  }

  PyObject* offset_zone(const PyDateTime_CAPI& api) {
    PyObject* offset = delta();
    PyObject* own = offset == nullptr ? nullptr : name(true);
    PyObject* made = nullptr;
    if (own != nullptr) made = api.TimeZone_FromTimeZone(offset, own == Py_None ? nullptr : own);
    Py_XDECREF(own);
    Py_XDECREF(offset);
    return made;
  }

  PyObject* call_with_text(PyObject* type, const char* at, std::size_t n) {
    if (type == nullptr) return nullptr;
    if (!is_ascii(at, n)) return damaged("text that isn't ASCII");
    PyObject* argument = ascii(at, n);
    if (argument == nullptr) return nullptr;
    PyObject* made = PyObject_CallFunctionObjArgs(type, argument, nullptr);
    Py_DECREF(argument);
    return made;
  }

  // As uuid.UUID.__setstate__() does, which __init__() is slower than.
  PyObject* uuid() {
    constexpr std::size_t kSize = 16;
    const char* at = take(kSize);
    PyObject* type = at == nullptr ? nullptr : uuid_type();
    PyObject* safety = type == nullptr ? nullptr : uuid_safety_unknown();
    if (safety == nullptr) return nullptr;
    PyObject* number = int_from_bytes(at, kSize, false);
    PyObject* none = number == nullptr ? nullptr : PyTuple_New(0);
    PyObject* made = none == nullptr ? nullptr
                                     : PyBaseObject_Type.tp_new(
                                           reinterpret_cast<PyTypeObject*>(type), none, nullptr);
    if (made != nullptr &&
        (set_attribute(made, "int", number) != 0 || set_attribute(made, "is_safe", safety) != 0)) {
      Py_CLEAR(made);
    }
    Py_XDECREF(none);
    Py_XDECREF(number);
    return made;
  }

  // Without the type's own __setattr__.
  static int set_attribute(PyObject* o, const char* name, PyObject* value) {
    PyObject* text = PyUnicode_InternFromString(name);
    if (text == nullptr) return -1;
    const int status = PyObject_GenericSetAttr(o, text, value);
    Py_DECREF(text);
    return status;
  }

  int depth_ = 0;
  std::size_t shared_ = 0;
  std::size_t capacity_ = kFew;
  PyObject* few_[kFew];
  PyObject** table_ = few_;
  std::vector<PyObject*> more_;
};

}  // namespace

PyObject* decode_native(std::string_view bytes) { return Decoder(bytes).value(); }

}  // namespace celeriac::bindings
