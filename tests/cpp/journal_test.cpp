// The journal in one process: append, switch, commit, begin, compaction, backup, and a disk that
// fails.
#include "queue/journal/journal.hpp"

#include <cerrno>
#include <thread>

#include "arena/crash_point.hpp"
#include "platform/durable_file.hpp"
#include "support/journal_store.hpp"

namespace celeriac::journal {
namespace {

using test::Contents;
using test::contents;
using test::JournalSession;

class JournalWriteTest : public test::JournalTest {};

TEST_F(JournalWriteTest, WhatIsWrittenIsReadByTheNext) {
  std::uint64_t id = 0;
  {
    JournalSession s(options);
    s.begin();
    EXPECT_EQ(s.report.records, 0U);
    const std::uint64_t q = s.queue("mail", "max_length=5\n");
    id = s.put("a body", q);
    const std::uint64_t other = s.put("another", q);
    s.gone(s.put("done", q));
    s.moved(other, State::kDead, "because");
    EXPECT_TRUE(s.commit(other));
    EXPECT_GE(s.journal.durable(), other);
  }
  lose_arena();
  JournalSession s(options);
  s.begin();
  EXPECT_TRUE(s.report.damages.empty());
  ASSERT_EQ(s.live.ids().size(), 2U);
  EXPECT_EQ(s.live.queues().begin()->second.name, "mail");
  EXPECT_EQ(s.live.queues().begin()->second.config, "max_length=5\n");
  const Contents c = contents(directory());
  EXPECT_EQ(c.bodies.at(id), "a body");
  EXPECT_EQ(c.whole.at(id).headers, "hh");
  const WholeMessage& dead = c.whole.rbegin()->second;
  EXPECT_EQ(dead.fixed.state, static_cast<std::uint8_t>(State::kDead));
  EXPECT_EQ(dead.fixed.deliveries, 3U);
  EXPECT_EQ(dead.reason, "because");
  EXPECT_GT(s.put("later"), id) << "numbers go on";
}

TEST_F(JournalWriteTest, SegmentsFollowEachOther) {
  JournalSession s(options);
  s.begin();
  std::map<std::uint64_t, std::string> all;
  for (int i = 0; i < 100; ++i) {
    const std::string body = std::to_string(i) + std::string(static_cast<std::size_t>(i) * 37, 'b');
    all[s.put(body)] = body;
  }
  const std::string large(100'000, 'L');  // larger than a segment
  all[s.put(large)] = large;
  all[s.put("small again")] = "small again";
  const Contents c = contents(directory());
  EXPECT_EQ(c.bodies, all);
  EXPECT_GT(c.report.segments.size(), 5U);
  EXPECT_TRUE(c.report.damages.empty());
  const Result<std::uint64_t> huge = s.try_put(std::string_view(large.data(), kMaxRecord));
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.status().code(), Code::kValueTooLarge);
}

TEST_F(JournalWriteTest, ManyRecordsInOneWrite) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t a = s.put("a");
  const std::uint64_t b = s.put("b");
  const std::uint64_t c = s.put("c");
  const std::array<Draft, 2> both{Draft{Kind::kGone, 0, a, {}}, Draft{Kind::kGone, 0, b, {}}};
  std::uint64_t told = 0;
  const Result<std::uint64_t> first =
      s.journal.append(both, s.me(), [&](std::uint64_t lsn) { told = lsn; });
  ASSERT_TRUE(first);
  EXPECT_EQ(told, first.value());
  EXPECT_EQ(s.journal.last(), first.value() + 1);
  const std::array<std::uint64_t, 2> ids{c, 999};
  s.append({Kind::kGone, 1, 0, {piece(ids)}});
  EXPECT_TRUE(contents(directory()).bodies.empty());
}

TEST_F(JournalWriteTest, MessagesOfADeletedQueueGoAndOfALostOneStay) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t q = s.queue("temporary");
  s.put("of the queue", q);
  const std::uint64_t lost = s.put("of a queue that nobody knows", 4711);
  s.append({Kind::kQueueGone, 0, q, {}});
  const Contents c = contents(directory());
  ASSERT_EQ(c.bodies.size(), 1U);
  EXPECT_EQ(c.bodies.begin()->first, lost);
  EXPECT_EQ(c.live.queues().at(4711).name, "recovered-4711");
}

TEST_F(JournalWriteTest, ThreadsCommitTogether) {
  JournalSession s(options, 1ULL << 20U);
  s.begin();
  std::vector<std::thread> threads;
  std::atomic<int> durable{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) durable += s.commit(s.put("body")) ? 1 : 0;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(durable, 200);
  EXPECT_EQ(contents(directory()).bodies.size(), 200U);
}

// What the last sync says of the next group: how many there were, and, where all came who were
// waited for, how many came during it.
TEST_F(JournalWriteTest, GroupIsAsLargeAsWasSeen) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options, 1ULL << 20U);
  s.begin();
  layout::JournalControl& c = s.journal.control();
  const auto expected = [&] { return c.group.load() >> 24U & 0xFFU; };
  ASSERT_TRUE(s.commit(s.put("alone")));
  EXPECT_EQ(expected(), 1U);
  set_file_hook([&, n = 0](const FileEvent& e) mutable {
    if (e.step == FileStep::kSync && n++ == 0) c.arrived += 3;  // others, meanwhile
    return 0;
  });
  ASSERT_TRUE(s.commit(s.put("others come")));
  EXPECT_EQ(expected(), 4U);
  ASSERT_TRUE(s.commit(s.put("they are here, and this one")));
  EXPECT_EQ(expected(), 4U);
  EXPECT_EQ(c.gathering, 0U) << "nobody had to wait";
  set_file_hook([&, n = 0](const FileEvent& e) mutable {
    if (e.step == FileStep::kSync && n++ == 0) {
      EXPECT_NE(c.gathering, 0U) << "the others weren't waited for";
      c.arrived += 5;
    }
    return 0;
  });
  ASSERT_TRUE(s.commit(s.put("alone again")));
  EXPECT_EQ(expected(), 1U) << "who didn't come in time is waited for again";
  EXPECT_EQ(c.gathering, 0U);
  set_file_hook({});
}

// J9: nobody is held up by what a dead one, or whoever, left there.
TEST_F(JournalWriteTest, HintsOfTheGroupHoldNobodyUp) {
  JournalSession s(options);
  s.begin();
  layout::JournalControl& c = s.journal.control();
  for (const std::uint64_t gathering :
       {std::uint64_t{1}, now_ns() + kMillisecond, now_ns() + 3600 * kSecond, kNever}) {
    c.group = std::uint64_t{c.arrived} << 32U | std::uint64_t{40} << 24U | 0xFFFFFFU;
    c.gathering = gathering;
    EXPECT_TRUE(s.commit(s.put("body"))) << gathering;
    EXPECT_EQ(c.gathering, 0U);
  }
}

TEST_F(JournalWriteTest, CommitHasADeadline) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t lsn = s.put("body");
  JournalSession other(options);
  OwnerMutex lead(s.journal.control().lead, *other.at.owners);
  ASSERT_EQ(lead.try_lock(other.me()), Locked::kAcquired);
  const Status late = s.journal.commit(lsn, now_ns() + 30 * kMillisecond, s.me());
  EXPECT_EQ(late.code(), Code::kLockTimeout);
  other.at.die();
  EXPECT_TRUE(s.commit(lsn)) << "the dead one's lead is taken over";
}

TEST_F(JournalWriteTest, CompactionKeepsWhatLivesAndRemovesTheRest) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t q = s.queue("q", "x=1\n");
  std::map<std::uint64_t, std::string> all;
  std::vector<std::uint64_t> ids;
  for (int i = 0; i < 400; ++i) {
    const std::string body = std::to_string(i) + std::string(200, 'c');
    ids.push_back(s.put(body, q));
    all[ids.back()] = body;
  }
  s.moved(ids[50], State::kDead, "why");
  for (int i = 0; i < 400; ++i) {
    if (i % 50 == 0) continue;
    s.gone(ids[static_cast<std::size_t>(i)]);
    all.erase(ids[static_cast<std::size_t>(i)]);
  }
  EXPECT_TRUE(s.journal.wants_compaction());
  const std::size_t before = contents(directory()).report.segments.size();
  const Result<CompactResult> done = s.journal.compact(s.me());
  ASSERT_TRUE(done) << done.status().message();
  EXPECT_GT(done.value().removed, 3U);
  EXPECT_EQ(done.value().copied, 8U);
  EXPECT_FALSE(s.journal.wants_compaction());
  const Contents c = contents(directory());
  EXPECT_LT(c.report.segments.size(), before);
  EXPECT_TRUE(c.report.damages.empty()) << c.report.damages[0].text();
  EXPECT_EQ(c.bodies, all);
  EXPECT_EQ(c.live.queues().at(q).config, "x=1\n");
  EXPECT_EQ(c.whole.at(ids[50]).reason, "why") << "its state is copied too";
  for (const std::uint64_t id : ids) s.gone(id);
  ASSERT_TRUE(s.journal.compact(s.me()));
  lose_arena();
  JournalSession again(options);
  again.begin();
  EXPECT_TRUE(again.live.ids().empty()) << "no copy outlives its message";
  EXPECT_EQ(again.live.queues().size(), 1U);
}

TEST_F(JournalWriteTest, CopiesKeepPlacesAndKeysOutliveTheirMessages) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t q = s.queue("q");
  const std::uint64_t a = s.put("a", q);
  const std::uint64_t b = s.put("b", q);
  MovedFixed behind{};
  behind.queue = s.queue("other");
  behind.behind = 1;
  s.append({Kind::kMoved, 0, a, {piece(behind)}});
  MovedFixed back{};  // whatever comes after it, its place stays
  back.queue = q;
  s.append({Kind::kMoved, 0, a, {piece(back)}});
  const auto keyed = [&](std::string_view key, std::uint64_t until) {
    const KeyFixed taken{q, until, 7};
    const std::string bytes = std::string(piece(taken)).append(key);
    PutFixed fixed{};
    fixed.queue = q;
    fixed.key_size = static_cast<std::uint32_t>(bytes.size());
    return s.append({Kind::kPut, 0, 0, {piece(fixed), bytes}});
  };
  const std::uint64_t hour = wall_ns() + 3600 * kSecond;
  const std::uint64_t lasting = keyed("lasting", hour);
  for (const std::uint64_t id : {lasting, keyed("over", wall_ns() - 1), keyed("with it", 0)}) {
    s.gone(id);
  }
  const std::uint64_t alive = keyed("alive", 0);
  for (int i = 0; i < 400; ++i) s.gone(s.put(std::string(200, 'c'), q));
  const Result<CompactResult> done = s.journal.compact(s.me());
  ASSERT_TRUE(done) << done.status().message();
  EXPECT_EQ(done.value().copied, 3U);
  lose_arena();
  JournalSession again(options);
  again.begin();
  EXPECT_EQ(again.live.ids(), (std::vector<std::uint64_t>{b, a, alive}));
  EXPECT_EQ(again.live.find(a)->queue, q);
  ASSERT_EQ(again.live.keys().size(), 2U);
  EXPECT_EQ(again.live.keys().at(alive).text, "alive");
  EXPECT_EQ(again.live.keys().at(lasting).text, "lasting");
  EXPECT_EQ(again.live.keys().at(lasting).fixed.until, hour);
}

TEST_F(JournalWriteTest, DamagedSegmentIsKeptAside) {
  {
    JournalSession s(options);
    s.begin();
    for (int i = 0; i < 150; ++i) s.gone(s.put(std::string(300, 'd')));
    ASSERT_TRUE(s.commit(s.journal.last()));
    s.put("alive");
  }
  std::string bytes = test::read_file(segment(2));
  bytes[kFirstRecord + 500] ^= 1;
  test::write_file(segment(2), bytes);
  lose_arena();
  JournalSession s(options);
  s.begin();
  EXPECT_TRUE(s.report.damaged());
  EXPECT_NE(s.report.damages[0].text().find("journal.0000000000000002 at offset 4"),
            std::string::npos)
      << s.report.damages[0].text();
  for (int i = 0; i < 150; ++i) s.gone(s.put(std::string(300, 'd')));
  ASSERT_TRUE(s.journal.compact(s.me()));
  EXPECT_TRUE(std::filesystem::exists(segment(2) + ".damaged"));
  EXPECT_FALSE(std::filesystem::exists(segment(1) + ".damaged"));
  EXPECT_FALSE(std::filesystem::exists(segment(1)));
  EXPECT_EQ(contents(directory()).bodies.rbegin()->second, "alive");
}

TEST_F(JournalWriteTest, BackupAndRestore) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t q = s.queue("mail", "a=b\n");
  for (int i = 0; i < 100; ++i) s.put("body " + std::to_string(i), q);
  for (std::uint64_t id = 2; id < 60; ++id) s.gone(id);
  s.moved(70, State::kDead, "reason");
  const Contents before = contents(directory());
  const std::string file = root.file("backup");
  const Status done = s.journal.backup(file, s.me());
  ASSERT_TRUE(done) << done.message();
  EXPECT_EQ(s.journal.backup(file, s.me()).code(), Code::kConfiguration) << "never over a file";
  s.put("after the backup", q);

  LiveSet live;
  const Result<Report> checked = verify(file, &live);
  ASSERT_TRUE(checked) << checked.status().message();
  EXPECT_TRUE(checked.value().damages.empty());
  EXPECT_EQ(live.ids().size(), before.bodies.size());

  const std::string to = root.file("restored");
  const Status restored = restore(to, file, 0600);
  ASSERT_TRUE(restored) << restored.message();
  const Contents c = contents(to);
  EXPECT_EQ(c.bodies, before.bodies);
  EXPECT_EQ(c.whole.at(70).reason, "reason");
  EXPECT_EQ(restore(to, file, 0600).code(), Code::kConfiguration) << "never over a store";
  EXPECT_GT(c.report.next_lsn, before.report.next_lsn) << "no number is given out again";

  ArenaOptions there = options;
  there.root = to;
  there.name = "";
  std::string bytes = test::read_file(file);
  bytes[kFirstRecord + 200] ^= 1;
  const std::string bad = root.file("bad");
  test::write_file(bad, bytes);
  EXPECT_EQ(restore(root.file("elsewhere"), bad, 0600).code(), Code::kCorrupt);
  test::write_file(bad, std::string_view(bytes).substr(0, bytes.size() - 100));
  EXPECT_EQ(restore(root.file("elsewhere"), bad, 0600).code(), Code::kCorrupt);
  test::write_file(bad, "something else");
  EXPECT_EQ(restore(root.file("elsewhere"), bad, 0600).code(), Code::kCorrupt);
  EXPECT_EQ(restore(root.file("elsewhere"), root.file("none"), 0600).code(), Code::kNotFound);
}

// ------------------------------------------------------------------------ a disk that fails

class JournalFaultTest : public test::JournalTest {
 protected:
  void SetUp() override { CELERIAC_TEST_NEEDS_CRASH_POINTS(); }
  static constexpr std::uint64_t kSmall = test::kSmallSegment;
  void TearDown() override { set_file_hook({}); }
  // The nth such step from now on, and all after it, fails.
  static void fail(FileStep step, int error, int nth = 1, int times = 1 << 30) {
    set_file_hook([=, left = nth - 1, more = times](const FileEvent& e) mutable {
      if (e.step != step || left-- > 0) return 0;
      return more-- > 0 ? error : 0;
    });
  }
};

TEST_F(JournalFaultTest, FullDiskIsNotEnoughMemoryAndNothingIsPut) {
  JournalSession s(options);
  s.begin();
  std::size_t put = 0;
  fail(FileStep::kAllocate, ENOSPC);
  Result<std::uint64_t> last = s.try_put("body");
  while (last) {
    ++put;
    last = s.try_put(std::string(500, 'f'));
  }
  EXPECT_EQ(last.status().code(), Code::kNotEnoughMemory);
  EXPECT_NE(last.status().message().find("MiB"), std::string::npos);
  EXPECT_EQ(contents(directory()).bodies.size(), put);
  EXPECT_TRUE(s.commit(s.journal.last())) << "what is there is acknowledged";
  set_file_hook({});
  EXPECT_TRUE(s.try_put("there is room again"));
  EXPECT_EQ(contents(directory()).bodies.size(), put + 1);
}

TEST_F(JournalFaultTest, FailedWriteLeavesAVoidRecord) {
  JournalSession s(options);
  s.begin();
  s.put("before");
  fail(FileStep::kWrite, ENOSPC, 1, 1);
  const Result<std::uint64_t> none = s.try_put("not written");
  EXPECT_EQ(none.status().code(), Code::kNotEnoughMemory);
  set_file_hook({});
  const std::uint64_t id = s.put("behind");
  const Contents c = contents(directory());
  EXPECT_TRUE(c.report.damages.empty());
  ASSERT_EQ(c.bodies.size(), 2U);
  EXPECT_EQ(c.bodies.at(id), "behind");
}

TEST_F(JournalFaultTest, FailedSyncIsFinalUntilARescue) {
  JournalSession s(options);
  s.begin();
  const std::uint64_t good = s.put("good");
  ASSERT_TRUE(s.commit(good));
  fail(FileStep::kSync, EIO, 1, 1);  // once: a second try would say that all is well
  const std::uint64_t bad = s.put("not confirmed");
  Status failed = s.journal.commit(bad, now_ns() + kSecond, s.me());
  EXPECT_EQ(failed.code(), Code::kSystem);
  failed = s.journal.commit(bad, now_ns() + kSecond, s.me());
  EXPECT_EQ(failed.code(), Code::kSystem) << "tried again, and believed";
  EXPECT_LT(s.journal.durable(), bad);
  EXPECT_TRUE(s.commit(good)) << "what was durable is";
  EXPECT_EQ(s.try_put("later").status().code(), Code::kSystem);
  JournalSession other(options);
  EXPECT_EQ(other.try_put("of another process").status().code(), Code::kSystem);
  EXPECT_EQ(s.journal.compact(s.me()).status().code(), Code::kSystem);

  fail(FileStep::kSync, EIO);
  EXPECT_FALSE(s.journal.rescue(s.me())) << "the disk still fails";
  EXPECT_FALSE(s.journal.health());
  set_file_hook({});
  const Status rescued = s.journal.rescue(s.me());
  ASSERT_TRUE(rescued) << rescued.message();
  EXPECT_TRUE(s.journal.health());
  EXPECT_GE(s.journal.durable(), bad);
  const std::uint64_t id = s.put("goes on");
  EXPECT_TRUE(s.commit(id));
  const Contents c = contents(directory());
  EXPECT_EQ(c.bodies.size(), 3U);
  EXPECT_TRUE(c.report.damages.empty());
  EXPECT_EQ(c.report.leftovers.size(), 1U) << "the segment of which nobody knows counts no more";
  EXPECT_TRUE(other.try_put("others go on too"));
}

TEST_F(JournalFaultTest, FailuresOfASwitchLeaveTheJournalAsItWas) {
  struct Step {
    FileStep step;
    int nth;
  };
  for (const Step& f : {Step{FileStep::kWrite, 1}, Step{FileStep::kSync, 1},
                        Step{FileStep::kLink, 1}, Step{FileStep::kSyncDirectory, 1}}) {
    JournalSession s(options);
    if (!s.journal.begun()) s.begin();
    const std::uint64_t segment = s.journal.control().current.load();
    const std::string body(1000, 's');
    while (s.journal.control().end.load() + 1200 + kSmall / 16 < kSmall) s.put(body);
    fail(f.step, EIO, f.nth, 1);
    EXPECT_EQ(s.try_put(body).status().code(), Code::kSystem);
    EXPECT_EQ(s.journal.control().current.load(), segment);
    set_file_hook({});
    const std::uint64_t id = s.put("after it");
    EXPECT_TRUE(s.commit(id));
    const Contents c = contents(directory());
    EXPECT_TRUE(c.report.damages.empty()) << c.report.damages[0].text();
    EXPECT_EQ(c.bodies.at(id), "after it");
  }
}

}  // namespace
}  // namespace celeriac::journal
