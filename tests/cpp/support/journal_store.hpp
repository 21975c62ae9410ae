// A journal as one attachment has it, with verbs that keep each test a few lines long.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "queue/journal/journal.hpp"
#include "support/attachment.hpp"
#include "support/process.hpp"

namespace celeriac::test {

constexpr std::uint64_t kSmallSegment = 16ULL << 10U;

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  std::filesystem::permissions(
      path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

struct JournalSession {
  explicit JournalSession(const ArenaOptions& options, std::uint64_t segment = kSmallSegment)
      : at(options), journal(*at.arena, *at.owners, segment) {}

  // What was there, and a new segment behind it.
  void begin() {
    Result<journal::Report> r = journal.begin(me(), &live);
    if (!r) throw std::runtime_error(r.status().message());
    report = r.take();
  }
  OwnerTag me() { return at.join(); }

  Result<std::uint64_t> try_put(std::string_view body, std::uint64_t queue = 1) {
    journal::PutFixed fixed{};
    fixed.queue = queue;
    fixed.body_size = body.size();
    fixed.header_size = 2;
    const journal::Draft d{journal::Kind::kPut, 0, 0, {journal::piece(fixed), {}, {}, "hh", body}};
    return journal.append({&d, 1}, me());
  }
  std::uint64_t put(std::string_view body, std::uint64_t queue = 1) {
    Result<std::uint64_t> id = try_put(body, queue);
    if (!id) throw std::runtime_error(id.status().message());
    return id.value();
  }
  std::uint64_t append(const journal::Draft& d) {
    Result<std::uint64_t> lsn = journal.append({&d, 1}, me());
    if (!lsn) throw std::runtime_error(lsn.status().message());
    return lsn.value();
  }
  std::uint64_t queue(std::string_view name, std::string_view config = {}) {
    const journal::QueueFixed f{static_cast<std::uint32_t>(name.size()),
                                static_cast<std::uint32_t>(config.size())};
    return append({journal::Kind::kQueue, 0, 0, {journal::piece(f), name, config}});
  }
  std::uint64_t gone(std::uint64_t id) { return append({journal::Kind::kGone, 0, id, {}}); }
  std::uint64_t moved(std::uint64_t id, journal::State state, std::string_view reason = {}) {
    journal::MovedFixed f{};
    f.state = static_cast<std::uint8_t>(state);
    f.deliveries = 3;
    f.reason_size = static_cast<std::uint32_t>(reason.size());
    return append({journal::Kind::kMoved, 0, id, {journal::piece(f), reason}});
  }
  bool commit(std::uint64_t lsn) {
    return journal.commit(lsn, now_ns() + 20 * kSecond, me()).is_ok();
  }

  Attachment at;
  journal::Journal journal;
  journal::LiveSet live;
  journal::Report report;
};

// What the directory's journal holds: id and body of each living message.
struct Contents {
  std::map<std::uint64_t, std::string> bodies;
  std::map<std::uint64_t, journal::WholeMessage> whole;
  journal::LiveSet live;
  journal::Report report;
};

inline Contents contents(const std::string& directory) {
  Contents c;
  Result<journal::Report> r = journal::verify(directory, &c.live);
  if (!r) throw std::runtime_error(r.status().message());
  c.report = r.take();
  Result<Fd> dir = open_directory(-1, directory, 0600, false);
  if (!dir) throw std::runtime_error(dir.status().message());
  const journal::Reader reader(dir.value().get(), directory);
  journal::MessageReader messages(reader);
  for (const std::uint64_t id : c.live.ids()) {
    journal::WholeMessage m;
    Status read = messages.read(id, *c.live.find(id), &m);
    if (!read) throw std::runtime_error(read.message());
    c.bodies[id] = m.body;
    c.whole.emplace(id, std::move(m));
  }
  return c;
}

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() { options.memory = 4ULL << 20U; }

  std::string directory() const { return store_path(options.root, options.name); }
  std::string segment(std::uint64_t n) const {
    return directory() + "/" + journal::segment_name(n);
  }
  void lose_arena() const { std::filesystem::remove(directory() + "/arena"); }

  TemporaryRoot root;
  ArenaOptions options = root.options();
};

}  // namespace celeriac::test
