// How many of everything shared memory has: a part of layout.hpp, and of its fingerprint.
#pragma once

#include <cstdint>

namespace celeriac::layout {

constexpr std::uint64_t kMagic = 0x3143414952454C43ULL;  // "CLERIAC1"
constexpr std::uint32_t kMajor = 4;
constexpr std::uint32_t kMinor = 3;

constexpr std::uint32_t kMaxOwners = 1024;
constexpr std::uint32_t kMaxNamespaces = 128;
constexpr std::uint32_t kShardCount = 64;
constexpr std::uint32_t kStripes = 8;
constexpr std::uint32_t kOtherStripes = 2;
constexpr std::uint32_t kPrefixes = 80;
constexpr std::uint32_t kSignalCount = 64;
constexpr std::uint32_t kLogCount = kMaxNamespaces + 1;
constexpr std::uint32_t kLifeClasses = 8;
constexpr std::uint32_t kSegmentsPerChunk = 256;
constexpr std::uint32_t kMaxSegmentChunks = 2048;
constexpr std::uint32_t kSpareSegments = 4;
constexpr std::uint32_t kMaxQueues = 1024;
constexpr std::uint32_t kSlotsPerChunk = 1024;
constexpr std::uint32_t kMaxSlotChunks = 1024;
constexpr std::uint32_t kPriorities = 256;
constexpr std::uint32_t kNameBytes = 256;
constexpr std::uint32_t kLaneCapacity = 1022;
constexpr std::uint32_t kFrontLaneCapacity = 126;
constexpr std::uint32_t kLimitShards = 64;
constexpr std::uint32_t kLimitLevels = 24;
constexpr std::uint32_t kLimitPeriods = 60;
constexpr std::uint32_t kMostRates = 8;
constexpr std::uint32_t kMaxConcurrencies = 1024;
constexpr std::uint32_t kConcurrencyChunks = 11;
constexpr std::uint32_t kOwnerWords = kMaxOwners / 64;

}  // namespace celeriac::layout
