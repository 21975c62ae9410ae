// The journal under deaths, with an exact ledger: processes append, commit, compact and read at the
// same time, and are killed at any moment and at each crash point. What commit() confirmed is
// there; what is there is what was put; nothing is damaged, and nobody waits for the dead.
#include <array>
#include <random>

#include "arena/crash_point.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"
#include "support/journal_store.hpp"

namespace celeriac::journal {
namespace {

using test::Child;
using test::Contents;
using test::contents;
using test::JournalSession;

constexpr std::size_t kMost = 1 << 18;

struct Ledger {
  std::atomic<std::uint32_t> next{0};
  struct Line {
    std::atomic<std::uint64_t> id{0};  // as soon as put() returned
    std::atomic<std::uint8_t> confirmed{0};
    std::atomic<std::uint8_t> gone_begun{0};
    std::atomic<std::uint8_t> gone{0};
  };
  std::array<Line, kMost> lines{};
};

std::string body_of(std::uint32_t n) {
  return "message " + std::to_string(n) + " " + std::string(n * 7919U % 900U, 'k');
}

class JournalKillTest : public test::JournalTest {
 protected:
  // Each child attaches anew, as another process would.
  bool work(std::uint64_t seed, std::uint32_t rounds = ~0U) {
    JournalSession s(options);
    std::mt19937_64 random(seed);
    for (std::uint32_t i = 0; i < rounds; ++i) {
      const std::uint32_t n = ledger->next++;
      if (n >= kMost) return false;
      Ledger::Line& line = ledger->lines[n];
      const Result<std::uint64_t> id = s.try_put(body_of(n));
      if (!id) return false;
      line.id = id.value();
      if (random() % 3 == 0) {
        if (!s.commit(id.value())) return false;
        line.confirmed = 1;
      }
      if (random() % 4 != 0) {
        line.gone_begun = 1;
        const Draft d{Kind::kGone, 0, id.value(), {}};
        if (!s.journal.append({&d, 1}, s.me())) return false;
        line.gone = 1;
      }
      if (random() % 64 == 0 || (rounds < 1000 && i % 20 == 19)) {
        const Result<CompactResult> c = s.journal.compact(s.me());
        if (!c && c.status().code() != Code::kLockTimeout) return false;
      }
    }
    return true;
  }

  // Segments of which one message lives, compacted again and again.
  bool litter(int rounds) {
    JournalSession s(options);
    for (int i = 0; i < rounds; ++i) {
      for (int n = 0; n < 60; ++n) {
        const std::uint64_t id = s.put("message litter" + std::string(900, 'l'));
        if (n != 7) s.gone(id);
      }
      if (!s.journal.compact(s.me())) return false;
    }
    return true;
  }

  void check(const std::string& when) {
    const Contents c = contents(directory());
    ASSERT_TRUE(c.report.damages.empty()) << when << ": " << c.report.damages[0].text();
    std::map<std::uint64_t, std::uint32_t> of;
    for (std::uint32_t n = 0; n < ledger->next; ++n) {
      const Ledger::Line& line = ledger->lines[n];
      if (line.id != 0) {
        ASSERT_TRUE(of.emplace(line.id, n).second)
            << when << ": two messages have number " << line.id;
      }
      // A process's death loses nothing whose append() returned, confirmed or not.
      const auto found = c.bodies.find(line.id);
      if (line.id != 0 && line.gone_begun == 0) {
        ASSERT_TRUE(found != c.bodies.end()) << when << ": " << n << " is lost";
      }
      if (line.gone == 1) {
        ASSERT_TRUE(found == c.bodies.end()) << when << ": " << n << " is there again";
      }
      ASSERT_TRUE(found == c.bodies.end() || found->second == body_of(n)) << when;
    }
    for (const auto& [id, body] : c.bodies) {  // of those who died in put(), too
      ASSERT_EQ(body.substr(0, 8), "message ") << when;
    }
  }

  test::Shared<Ledger> ledger;
};

TEST_F(JournalKillTest, ExactLedgerThroughRandomKills) {
  CELERIAC_TEST_FORKS();
  JournalSession s(options);
  s.begin();
  std::mt19937_64 random(3);
  for (std::uint64_t round = 0; round < 60; ++round) {
    std::vector<Child> children;
    for (std::uint64_t i = 0; i < 3; ++i) {
      children.push_back(Child::run([&] { return work(round * 10 + i); }));
    }
    for (Child& c : children) {
      test::sleep_us(static_cast<unsigned>(500 + random() % 6000));
      ASSERT_EQ(c.kill(), test::kKilled) << "it ended by itself: something failed";
    }
    s.at.recovery->run();
    ASSERT_TRUE(s.commit(s.put("message of the survivor")));
    if (round % 10 == 9) {
      ASSERT_NO_FATAL_FAILURE(check("round " + std::to_string(round)));
    }
  }
  ASSERT_GT(ledger->next, 1000U);
  // Nothing but the files is left, and then not even who wrote them.
  lose_arena();
  JournalSession again(options);
  again.begin();
  ASSERT_NO_FATAL_FAILURE(check("the arena is lost"));
}

TEST_F(JournalKillTest, TheLivingGoOnWhileOthersDie) {
  CELERIAC_TEST_FORKS();
  JournalSession s(options);
  s.begin();
  Child steady = Child::run([&] { return work(1, 6000); });
  for (std::uint64_t round = 0; round < 60; ++round) {
    Child dies = Child::run([&] { return work(100 + round); });
    test::sleep_us(static_cast<unsigned>(1000 + round * 100));
    ASSERT_EQ(dies.kill(), test::kKilled);
    s.at.recovery->run();
  }
  ASSERT_EQ(steady.wait(), 0) << "an operation of the living failed";
  check("the end");
}

TEST_F(JournalKillTest, DeathAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  for (const char* point :
       {"journal.append.intended", "journal.append.written", "journal.append.numbered",
        "journal.append.ended", "journal.create.written", "journal.create.named",
        "journal.switch.intended", "journal.switch.sealed", "journal.switch.decided",
        "journal.switch.ended", "journal.commit.syncing", "journal.commit.synced",
        "journal.commit.durable", "journal.commit.led", "journal.commit.unlocked",
        "journal.compact.copied", "journal.compact.synced", "journal.compact.switched",
        "journal.compact.removed"}) {
    for (const unsigned nth : {1U, 2U, 4U}) {
      Child child = Child::run([&] {
        arm_crash_point(point, nth, "kill");
        return std::string_view(point).find("compact") == std::string_view::npos ? work(nth, 999)
                                                                                 : litter(20);
      });
      ASSERT_EQ(child.wait(), test::kKilled) << point << " isn't passed " << nth << " times";
      const std::string when = std::string(point) + " " + std::to_string(nth);
      const std::uint64_t begun = now_ns();
      s.at.recovery->run();
      const std::uint64_t id = s.put("message of the survivor");
      ASSERT_TRUE(s.commit(id)) << when;
      ASSERT_LT(now_ns() - begun, 5 * kSecond) << when;
      ASSERT_NO_FATAL_FAILURE(check(when));
    }
  }
}

// Who settles for the dead may die at it too; then the next one does it.
TEST_F(JournalKillTest, DeathOfTheSettlerAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  for (const char* first :
       {"journal.append.intended", "journal.append.written", "journal.append.numbered",
        "journal.switch.intended", "journal.switch.sealed", "journal.switch.decided"}) {
    for (const char* second :
         {"journal.settle.zeroed", "journal.settle.ended", "journal.settle.done"}) {
      Child writer = Child::run([&] {
        arm_crash_point(first, 2, "kill");
        return work(5, 400);
      });
      ASSERT_EQ(writer.wait(), test::kKilled) << first;
      Child settler = Child::run([&] {
        arm_crash_point(second, 1, "kill");
        return work(6, 1);
      });
      const int how = settler.wait();  // a switch has nothing to zero
      ASSERT_TRUE(how == test::kKilled || std::string_view(first).find("switch") == 8) << second;
      s.at.recovery->run();
      s.put("message of the survivor");
      ASSERT_NO_FATAL_FAILURE(check(std::string(first) + ", " + second));
    }
  }
}

TEST_F(JournalKillTest, DeathInBeginAndInARescue) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point : {"journal.create.written", "journal.create.named",
                            "journal.begin.written", "journal.begin.begun"}) {
    lose_arena();
    Child child = Child::run([&] {
      JournalSession s(options);
      arm_crash_point(point, 1, "kill");
      s.begin();
      return true;
    });
    ASSERT_EQ(child.wait(), test::kKilled) << point;
    JournalSession s(options);
    s.begin();
    s.at.recovery->run();
    ASSERT_TRUE(s.commit(s.put(std::string("message ") + point)));
  }
  for (const char* point : {"journal.rescue.read", "journal.create.named",
                            "journal.rescue.published", "journal.fail.noted"}) {
    JournalSession s(options);
    const std::uint64_t id = s.put(std::string("message ") + point);
    Child child = Child::run([&] {
      arm_crash_point(point, 1, "kill");
      JournalSession dies(options);
      set_file_hook([n = 0](const FileEvent& e) mutable {
        return e.step == FileStep::kSync && n++ == 0 ? 5 : 0;
      });
      static_cast<void>(dies.commit(id));
      return dies.journal.rescue(dies.me()).is_ok();
    });
    ASSERT_EQ(child.wait(), test::kKilled) << point;
    s.at.recovery->run();
    EXPECT_FALSE(s.journal.health()) << "a failure that is forgotten";
    ASSERT_TRUE(s.journal.rescue(s.me())) << point;
    ASSERT_TRUE(s.commit(s.put("message of the survivor")));
  }
  const Contents c = contents(directory());
  EXPECT_TRUE(c.report.damages.empty()) << c.report.damages[0].text();
  EXPECT_EQ(c.bodies.size(), 4U + 8U);
}

TEST_F(JournalKillTest, DeathInABackupLeavesNoFile) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  s.put("message");
  const std::string file = root.file("backup");
  Child child = Child::run([&] {
    arm_crash_point("journal.backup.written", 1, "kill");
    return s.journal.backup(file, s.me()).is_ok();
  });
  ASSERT_EQ(child.wait(), test::kKilled);
  EXPECT_FALSE(std::filesystem::exists(file));
  s.at.recovery->run();
  EXPECT_TRUE(s.journal.backup(file, s.me())) << "the dead one's mutex is taken over";
}

// The group that a dead one was to wait for is led by another.
TEST_F(JournalKillTest, DeathOfWhoGathers) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  Child child = Child::run([&] {
    JournalSession dies(options);
    layout::JournalControl& c = dies.journal.control();
    c.group = std::uint64_t{c.arrived} << 32U | std::uint64_t{9} << 24U | 0xFFFFFFU;
    arm_crash_point("journal.commit.gathering", 1, "kill");
    return dies.commit(dies.put("message of the dead"));
  });
  ASSERT_EQ(child.wait(), test::kKilled);
  EXPECT_NE(s.journal.control().gathering, 0U);
  s.at.recovery->run();
  ASSERT_TRUE(s.commit(s.put("message of the survivor")));
  EXPECT_EQ(s.journal.control().gathering, 0U);
}

TEST_F(JournalKillTest, FollowersOfADeadLeaderAreNotHeldUp) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  for (const char* point : {"journal.commit.syncing", "journal.commit.synced",
                            "journal.commit.durable", "journal.commit.unlocked"}) {
    const test::Gate leads;
    Child leader = Child::run([&] {
      JournalSession dies(options);
      arm_crash_point(point, 1, "stop");
      const std::uint64_t id = dies.put("message of the leader");
      leads.open();
      return dies.commit(id);
    });
    ASSERT_TRUE(leads.pass());
    test::sleep_us(20'000);  // it has stopped
    const std::uint64_t id = s.put("message of a follower");
    Child follower = Child::run([&] {
      JournalSession f(options);
      return f.commit(id);
    });
    test::sleep_us(20'000);
    ASSERT_EQ(leader.kill(), test::kKilled);
    ASSERT_EQ(follower.wait(), 0) << point;
    ASSERT_GE(s.journal.durable(), id) << point;
    s.at.recovery->run();
  }
}

}  // namespace
}  // namespace celeriac::journal
