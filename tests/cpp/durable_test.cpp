// Queues of a store with a journal, and deaths: what was put is there after the arena is lost too,
// what was acknowledged isn't, and nothing ends because of who died while it was brought back.
#include <array>
#include <random>

#include "arena/crash_point.hpp"
#include "platform/durable_file.hpp"
#include "support/cache_verbs.hpp"
#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Got;
using test::must;

constexpr std::size_t kMost = 1 << 17;

struct Ledger {
  std::atomic<std::uint32_t> next{0};
  std::atomic<std::uint32_t> wrong{0};
  struct Line {
    std::atomic<std::uint8_t> put{0};
    std::atomic<std::uint8_t> ack_begun{0};
    std::atomic<std::uint8_t> acked{0};
  };
  std::array<Line, kMost> lines{};
};

// One process's handle of the store and of its queue.
struct Session {
  explicit Session(const ArenaOptions& options, Durability level = Durability::kProcess)
      : core(must(LocalCore::open(options, level))) {
    me = must(core->enter_queues());
    queue = must(core->queues().open("q", nullptr, me));
  }
  bool put(std::string_view body, std::uint64_t due = 0) {
    me = must(core->enter_queues());
    const Result<std::uint64_t> id = core->queues().put(queue, {"h", body, 0, due, kNever}, me);
    return id && core->confirm(Status::ok(), me);
  }
  bool get(Got* got) {
    me = must(core->enter_queues());
    if (!core->queues().try_get(queue, &got->delivery, me)) return false;
    got->body = got->delivery.body;
    return true;
  }
  bool ack(const Got& got) {
    me = must(core->enter_queues());
    return core->confirm(core->queues().ack(queue, got.delivery, me), me).is_ok();
  }
  bool nack(const Got& got, std::uint64_t due) {
    me = must(core->enter_queues());
    return core
        ->confirm(core->queues().nack(queue, got.delivery, due, due == 0 ? "" : "later", me), me)
        .is_ok();
  }

  std::shared_ptr<LocalCore> core;
  OwnerTag me;
  QueueRef queue;
};

class DurableTest : public ::testing::Test {
 protected:
  DurableTest() {
    options.root = root.file("store");
    options.name = "";
    options.memory = 32ULL << 20U;
    options.memory_given = true;
  }
  void lose_arena() const { std::filesystem::remove(options.root + "/arena"); }

  bool work(std::uint64_t seed, int rounds) {
    Session s(options);
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
      const std::uint32_t n = ledger->next++;
      if (n >= kMost) return false;
      const std::uint64_t due = random() % 5 == 0 ? now_ns() + kMillisecond : 0;
      if (!s.put(test::checkable(n, 8 + random() % 300), due)) return false;
      ledger->lines[n].put = 1;
      Got got;
      if (random() % 4 == 0 || !s.get(&got)) continue;
      if (!test::is_whole(got.body)) {
        ++ledger->wrong;
        continue;
      }
      if (random() % 4 == 0) {
        s.nack(got, random() % 2 == 0 ? now_ns() + kMillisecond : 0);
        continue;
      }
      Ledger::Line& line = ledger->lines[test::seed_of(got.body)];
      line.ack_begun = 1;
      if (s.ack(got)) ++line.acked;
    }
    return true;
  }

  // Takes everything, from an arena that is made anew, and compares.
  void settle(const std::string& when, bool acknowledge) {
    lose_arena();
    Session s(options);
    std::vector<std::uint8_t> there(ledger->next, 0);
    const std::uint64_t end = now_ns() + 20 * kSecond;
    QueueCounts c = s.core->queues().counts(s.queue, s.me);
    std::vector<Got> held;
    while (c.ready + c.delayed > 0 && now_ns() < end) {
      Got got;
      while (s.get(&got)) {
        ASSERT_TRUE(test::is_whole(got.body)) << when;
        const std::uint64_t n = test::seed_of(got.body);
        ASSERT_EQ(there[n]++, 0) << when << ": " << n << " is there twice";
        ASSERT_EQ(ledger->lines[n].acked, 0) << when << ": " << n << " comes after its ack";
        held.push_back(got);
      }
      c = s.core->queues().counts(s.queue, s.me);
    }
    for (std::uint32_t n = 0; n < ledger->next; ++n) {
      const Ledger::Line& line = ledger->lines[n];
      const bool lost = line.put == 1 && line.ack_begun == 0 && there[n] == 0;
      ASSERT_FALSE(lost && !settled[n]) << when << ": " << n << " is lost";
    }
    for (const Got& got : held) {
      if (acknowledge) {
        ASSERT_TRUE(s.ack(got));
        settled[test::seed_of(got.body)] = true;
        ledger->lines[test::seed_of(got.body)].acked = 1;
      } else {
        ASSERT_TRUE(s.nack(got, 0));
      }
    }
    ASSERT_EQ(ledger->wrong, 0U);
  }

  test::TemporaryRoot root;
  ArenaOptions options;
  test::Shared<Ledger> ledger;
  std::vector<bool> settled = std::vector<bool>(kMost);
};

TEST_F(DurableTest, LedgerThroughKillsAndLostArenas) {
  CELERIAC_TEST_FORKS();
  std::mt19937_64 random(9);
  for (std::uint64_t round = 0; round < 25; ++round) {
    std::vector<Child> children;
    for (std::uint64_t i = 0; i < 2; ++i) {
      children.push_back(Child::run([&] { return work(round * 2 + i, 1 << 20); }));
    }
    for (Child& c : children) {
      test::sleep_us(static_cast<unsigned>(3000 + random() % 8000));
      ASSERT_EQ(c.kill(), test::kKilled) << "it ended by itself: something failed";
    }
    ASSERT_NO_FATAL_FAILURE(settle("round " + std::to_string(round), round % 3 == 2));
  }
  ASSERT_GT(ledger->next, 500U);
}

TEST_F(DurableTest, DeathAtEachPointAndThenALostArena) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point :
       {"queue.put.told", "queue.put.body", "queue.put.published", "queue.reclaim.told",
        "queue.ack.decided", "queue.reclaim.freed", "queue.moved.told", "queue.nack.decided",
        "queue.nack.taken", "queue.return.decided", "queue.open.told", "journal.append.written",
        "journal.append.numbered"}) {
    for (const unsigned nth : {1U, 3U}) {
      Child child = Child::run([&] {
        arm_crash_point(point, nth, "kill");
        Session s(options);
        for (const char* name : {"a", "b", "c"}) {
          must(s.core->queues().open(name + std::string(point), nullptr, s.me));
        }
        return work(nth, 200);
      });
      const int how = child.wait();
      ASSERT_TRUE(how == test::kKilled || nth > 1) << point << " isn't passed";
      {
        Session s(options);  // who repairs
        s.core->recovery().run();
      }
      ASSERT_NO_FATAL_FAILURE(settle(std::string(point) + " " + std::to_string(nth), true));
    }
  }
}

// A message that dies of its deliveries, and is retried where it is dead, is in one place all the
// time: in the arena, and in one that is made anew.
TEST_F(DurableTest, DeathOnTheWayToAnotherQueueOrBack) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const bool letters : {true, false}) {
    for (const char* point :
         {"queue.behind.told", "queue.move.begun", "queue.move.named", "queue.move.decided",
          "queue.bury.written", "queue.moved.told", "queue.retain.decided", "queue.retry.written",
          "queue.retry.decided"}) {
      const std::string from = std::string(letters ? "l" : "d") + point;
      const std::string to = letters ? from + ".to" : "";
      Child child = Child::run([&] {
        arm_crash_point(point, 1, "kill");
        Session s(options);
        QueueConfig config;
        config.limits.max_deliveries = 1;
        config.dead_letter = to;
        s.queue = must(s.core->queues().open(from, &config, s.me));
        Got got;
        if (!s.put("a message") || !s.get(&got) || !s.nack(got, now_ns())) return false;
        s.me = must(s.core->enter_queues());
        s.core->queues().retry_dead(s.queue, nullptr, s.me);
        return s.core->confirm(Status::ok(), s.me).is_ok();
      });
      const int how = child.wait();
      ASSERT_TRUE(how == test::kKilled || how == 0) << point;
      const auto places = [&] {
        Session s(options);
        s.core->recovery().run();
        std::uint64_t n = 0;
        for (const std::string& name : {from, to}) {
          const QueueRef q = s.core->queues().directory().find(name);
          if (q.record == nullptr) continue;
          const QueueCounts c = s.core->queues().counts(q, s.me);
          n += c.ready + c.dead + c.delayed + c.reserved;
        }
        return n;
      };
      EXPECT_EQ(places(), 1U) << from;
      lose_arena();
      EXPECT_EQ(places(), 1U) << from << ", after the arena was lost";
    }
  }
}

TEST_F(DurableTest, DeathWhileItIsBroughtBack) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  ASSERT_TRUE(work(1, 300));
  for (const char* point : {"journal.begin.begun", "durable.load.read", "queue.open.written",
                            "queue.put.written", "queue.restore.written", "queue.put.published",
                            "durable.load.filled", "queue.purge.taken"}) {
    lose_arena();
    if (std::string_view(point) == "queue.purge.taken") {  // who makes room for another attempt
      Child first = Child::run([&] {
        arm_crash_point("durable.load.filled", 1, "kill");
        const Session s(options);
        return true;
      });
      ASSERT_EQ(first.wait(), test::kKilled);
    }
    Child child = Child::run([&] {
      arm_crash_point(point, 1, "kill");
      const Session s(options);
      return true;
    });
    ASSERT_EQ(child.wait(), test::kKilled) << point << " isn't passed";
    {
      const std::shared_ptr<LocalCore> other = must(LocalCore::open(options));
      static_cast<void>(must(other->enter()));
      other->recovery().run();
      const Session s(options);  // brings it back
    }
    ASSERT_NO_FATAL_FAILURE(settle(point, false));
  }
}

TEST_F(DurableTest, ArenaRemovedUnderThoseWhoUseIt) {
  CELERIAC_TEST_NEEDS_TWO_MAPPINGS();
  Session old(options);
  ASSERT_TRUE(old.put("before"));
  lose_arena();
  const std::shared_ptr<LocalCore> fresh = must(LocalCore::open(options));
  EXPECT_EQ(fresh->enter_queues().status().code(), Code::kNotOwner);
  ASSERT_TRUE(old.put("goes on"));
  ASSERT_TRUE(old.core->close());
  EXPECT_TRUE(fresh->enter_queues());
  const QueueRef q = fresh->queues().directory().find("q");
  EXPECT_EQ(fresh->queues().counts(q, must(fresh->enter())).ready, 2U);
}

TEST_F(DurableTest, ProcessThatComesInAfterADiskFailedTriesAgain) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  Session s(options, Durability::kAlways);
  ASSERT_TRUE(s.put("good"));
  set_file_hook([](const FileEvent& e) { return e.step == FileStep::kSync ? 5 : 0; });
  EXPECT_FALSE(s.put("may or may not be there"));
  EXPECT_FALSE(s.put("isn't there"));
  const std::shared_ptr<LocalCore> early = must(LocalCore::open(options));
  EXPECT_EQ(early->enter_queues().status().code(), Code::kSystem) << "the disk still fails";
  set_file_hook({});
  EXPECT_FALSE(s.put("isn't there, before somebody looked after the disk"));
  const Session again(options);
  EXPECT_TRUE(s.put("goes on")) << "for all";
}

// What the journal can't be told isn't done: the message stays who has it, and the next try counts.
TEST_F(DurableTest, WhatCantBeWrittenLeavesTheReservation) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const bool kept : {false, true}) {
    for (const char* what : {"ack", "nack", "nack later", "last nack", "to another queue"}) {
      Session s(options);
      QueueConfig config;
      if (kept) config.done.most = 5;
      if (std::string_view(what).starts_with("l") || std::string_view(what).starts_with("t")) {
        config.limits.max_deliveries = 1;
      }
      if (std::string_view(what).starts_with("t")) config.dead_letter = "letters";
      s.queue =
          must(s.core->queues().open(std::string(what) + (kept ? " kept" : ""), &config, s.me));
      const auto call = [&](const Got& got) {
        if (std::string_view(what) == "ack") return s.ack(got);
        return s.nack(got, std::string_view(what) == "nack" ? 0 : now_ns() + kSecond);
      };
      ASSERT_TRUE(s.put("a message"));
      Got got;
      ASSERT_TRUE(s.get(&got));
      set_file_hook([](const FileEvent& e) { return e.step == FileStep::kWrite ? 28 : 0; });
      const bool done = call(got);
      set_file_hook({});
      EXPECT_FALSE(done) << what;
      if (!s.core->durable()->journal().health()) {
        ASSERT_TRUE(s.core->durable()->journal().rescue(s.me));
      }
      QueueCounts c = s.core->queues().counts(s.queue, s.me);
      EXPECT_EQ(c.reserved, 1U) << what;
      EXPECT_EQ(c.done, 0U) << what;
      EXPECT_TRUE(s.core->queues().held(got.delivery)) << what;
      EXPECT_TRUE(call(got)) << what;
      c = s.core->queues().counts(s.queue, s.me);
      EXPECT_EQ(c.reserved, 0U) << what;
    }
  }
}

TEST_F(DurableTest, DeathInAnUndoGivesTheMessageBack) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  Child child = Child::run([&] {
    Session s(options);
    Got got;
    if (!s.put("a message") || !s.get(&got)) return false;
    arm_crash_point("queue.undo.reserved", 1, "kill");
    set_file_hook([](const FileEvent& e) { return e.step == FileStep::kWrite ? 28 : 0; });
    return s.ack(got);
  });
  ASSERT_EQ(child.wait(), test::kKilled);
  Session s(options);
  s.core->recovery().run();
  EXPECT_EQ(s.core->queues().counts(s.queue, s.me).ready, 1U);
  Got got;
  ASSERT_TRUE(s.get(&got));
  EXPECT_TRUE(s.ack(got));
}

TEST_F(DurableTest, EverySecondSyncsWithinASecondAndThenSleeps) {
  Session s(options, Durability::kEverySecond);
  ASSERT_TRUE(s.put("m"));
  journal::Journal& j = s.core->durable()->journal();
  const std::uint64_t end = now_ns() + 20 * kSecond;
  while (j.unsynced() && now_ns() < end) pause_ms(10);
  EXPECT_FALSE(j.unsynced());
}

}  // namespace
}  // namespace celeriac
