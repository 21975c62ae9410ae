// The native codec's format, version 1: plain Python data as bytes, and back without running code.
//
// A value is the byte kFormatVersion, then one item, then nothing. An item is a tag byte and what
// the tag says; items nest. Numbers are little-endian. A size is a varint: seven bits a byte, the
// lowest first, the eighth bit set on all but the last byte, at most 32 bits.
//
//   tag        then                                    item
//   00 - 1F    tag - 00 bytes                          str, ASCII
//   20 - 3F    tag - 20 bytes                          str, ASCII, enters the table
//   40 - 7F                                            the str at tag - 40 of the table
//   80 - BF                                            int 0 to 63
//   C0 - CF    tag - C0 items                          list
//   D0 - DF    tag - D0 pairs of items, key and value  dict, in its order
//   E0 E1 E2                                           None, False, True
//   E3 - E6    1, 2, 4, 8 bytes, signed                int
//   E7         size, bytes: signed, two's complement   int of any length
//   E8         8 bytes, IEEE 754                       float
//   E9 EA      size, bytes                             str, ASCII / UTF-8
//   EB EC      size, bytes                             the same, enters the table
//   ED         varint                                  the str at that place of the table
//   EE         size, bytes                             bytes
//   EF F0      size, items / pairs of items            list, dict
//   F1 F2 F3   size, items                             tuple, set, frozenset
//   F4         8 bytes: moment                         datetime without a zone
//   F5         8 bytes: moment, zone                   datetime with one
//   F6         4 bytes: year << 9 | month << 5 | day   date
//   F7 F8      8 bytes: moment (no date) [, zone]      time
//   F9         12 bytes: days, seconds, microseconds   timedelta
//   FA         size, bytes: what str() says            Decimal
//   FB         16 bytes, big-endian                    UUID
//   FC - FF    not used
//
//   moment     from the highest bit: 3 spare, year 14, month 4, day 5, hour 5, minute 6, second 6,
//              microsecond 20, fold 1
//   zone       00 timezone.utc; 01 timezone: 12 bytes as timedelta, then None or its name, a str
//              item; 02 ZoneInfo: its key, a str item
//
// The table holds the dict keys of this value (and other strings that are likely to repeat), in the
// order in which they came, so each is stored once and built once. It has at most kMaxShared
// places; later strings are written in full, as those are that the writer forgot.
//
// What is written this way: None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset,
// datetime and time (naive, or with a datetime.timezone or zoneinfo.ZoneInfo), date, timedelta,
// Decimal, UUID, all of exactly these types. A value with anything else in it is pickled as a
// whole; so is one with a container that is met twice (shared, or inside itself: pickle keeps
// that), one nested deeper than kMaxDepth, and one with a str that has no UTF-8.
//
// Limits. Nesting at most kMaxDepth. A size is compared with the bytes that are left before
// anything is allocated for it: strings take a byte a character, items at least one byte each,
// pairs two. So a reader allocates no more than a fixed multiple of what it was given.
//
// Versions and damage. Another version byte, an unused tag, a size beyond the end, bytes left over,
// a reference to an empty place, text that isn't ASCII or UTF-8, a key that can't be hashed, a
// moment that doesn't exist: SerializationError, whatever the bytes. A later version may give
// meaning to unused tags only together with another version byte.
#pragma once

#include <cstddef>
#include <cstdint>

#include "store/value.hpp"

namespace celeriac::bindings {

// The codec's number beside those of store/value.hpp.
constexpr Codec kNativeCodec{10};

constexpr unsigned char kFormatVersion = 1;
constexpr int kMaxDepth = 100;
constexpr std::size_t kMaxShared = 4096;

enum Tag : unsigned char {
  kTagStr = 0x00,
  kTagNewStr = 0x20,
  kTagOldStr = 0x40,
  kTagInt = 0x80,
  kTagList = 0xC0,
  kTagDict = 0xD0,
  kTagNone = 0xE0,
  kTagFalse,
  kTagTrue,
  kTagInt1,
  kTagInt2,
  kTagInt4,
  kTagInt8,
  kTagBigInt,
  kTagFloat,
  kTagLongStr,
  kTagLongUtf8,
  kTagLongNewStr,
  kTagLongNewUtf8,
  kTagFarStr,
  kTagBytes,
  kTagLongList,
  kTagLongDict,
  kTagTuple,
  kTagSet,
  kTagFrozenSet,
  kTagDateTime,
  kTagZonedDateTime,
  kTagDate,
  kTagTime,
  kTagZonedTime,
  kTagTimeDelta,
  kTagDecimal,
  kTagUuid,
};
static_assert(kTagUuid == 0xFB);

constexpr std::size_t kShortStr = 0x20;    // lengths below it are in the tag
constexpr std::size_t kNearShared = 0x40;  // so are these places of the table
constexpr std::uint64_t kSmallInts = 0x40;
constexpr std::size_t kShortContainer = 0x10;

enum Zone : unsigned char { kZoneUtc, kZoneOffset, kZoneNamed };

// Where the parts of a moment begin.
constexpr unsigned kFoldBit = 0;
constexpr unsigned kMicrosecondBit = 1;
constexpr unsigned kSecondBit = 21;
constexpr unsigned kMinuteBit = 27;
constexpr unsigned kHourBit = 33;
constexpr unsigned kDayBit = 38;
constexpr unsigned kMonthBit = 43;
constexpr unsigned kYearBit = 47;

}  // namespace celeriac::bindings
