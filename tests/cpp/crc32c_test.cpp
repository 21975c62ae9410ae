// CRC-32C against RFC 3720's vectors, and the two implementations against each other.
#include "platform/crc32c.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace celeriac {
namespace {

void expect_crc(const std::vector<std::uint8_t>& data, std::uint32_t expected) {
  EXPECT_EQ(crc32c(data.data(), data.size()), expected);
  EXPECT_EQ(crc32c_portable(data.data(), data.size()), expected);
}

TEST(Crc32c, VectorsOfRfc3720) {
  expect_crc(std::vector<std::uint8_t>(32, 0x00), 0x8A9136AA);
  expect_crc(std::vector<std::uint8_t>(32, 0xFF), 0x62A8AB43);
  std::vector<std::uint8_t> rising(32);
  std::iota(rising.begin(), rising.end(), std::uint8_t{0});
  expect_crc(rising, 0x46DD794E);
  expect_crc({rising.rbegin(), rising.rend()}, 0x113FDB5C);
}

TEST(Crc32c, ScsiReadCommandOfRfc3720) {
  expect_crc({0x01, 0xC0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
              0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
              0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
              0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00},
             0xD9963A56);
}

TEST(Crc32c, CheckValueAndNothing) {
  const std::string digits = "123456789";
  expect_crc({digits.begin(), digits.end()}, 0xE3069283);
  expect_crc({}, 0);
}

TEST(Crc32c, HardwareAndPortableAgree) {
  std::mt19937_64 random(1);
  std::vector<std::uint8_t> data(4096 + 16);
  for (int round = 0; round < 2000; ++round) {
    const std::size_t start = random() % 16;
    const std::size_t n = random() % 4096;
    for (std::size_t i = start; i < start + n; i += 8) {
      const std::uint64_t word = random();
      std::memcpy(&data[i], &word, std::min<std::size_t>(8, start + n - i));
    }
    const auto seed = static_cast<std::uint32_t>(random());
    ASSERT_EQ(crc32c(&data[start], n, seed), crc32c_portable(&data[start], n, seed)) << n;
  }
}

TEST(Crc32c, PiecesChainThroughTheSeed) {
  const std::string text = "headers, then a body of another length";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const std::uint32_t head = crc32c(text.data(), cut);
    EXPECT_EQ(crc32c(text.data() + cut, text.size() - cut, head), crc32c(text.data(), text.size()));
  }
}

TEST(Crc32c, EverySingleBitMatters) {
  std::array<std::uint8_t, 104> header{};
  const std::uint32_t before = crc32c(header.data(), header.size());
  for (std::size_t bit = 0; bit < header.size() * 8; ++bit) {
    header[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_NE(crc32c(header.data(), header.size()), before) << bit;
    header[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
  }
}

}  // namespace
}  // namespace celeriac
