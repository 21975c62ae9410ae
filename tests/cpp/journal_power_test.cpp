// The journal when the power fails: a run is recorded step by step (bytes written, files synced,
// names made and removed), and from the recording all kinds of disks are made that it may leave.
//
// What a disk may hold, moment by moment
//   bytes     of a file: what was there at its last sync; of each 512-byte sector written since,
//             any of the states that it went through, or a torn one: the beginning of a newer state
//             and the rest of an older one
//   names     of a directory: those at its last sync, and of the changes since, each or not; a file
//             that was renamed has one of the two
// Of each such disk: what commit() had confirmed at that moment is there, whole; what wasn't put
// isn't; damage is told only where the durability allows holes, and then not called damage.
#include <sys/stat.h>

#include <random>
#include <set>

#include "arena/crash_point.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"
#include "support/journal_store.hpp"

namespace celeriac::journal {
namespace {

using test::Contents;
using test::contents;
using test::JournalSession;

constexpr std::size_t kSector = 512;

std::uint64_t inode(int fd) {
  struct stat s {};
  return fstat(fd, &s) == 0 ? s.st_ino : 0;
}

// One step of the run, as the disk sees it; or what the program learned.
struct Step {
  FileEvent event;
  std::uint64_t file = 0;  // inode
  std::string bytes;
  std::uint64_t confirmed = 0;  // not 0: commit() of the message with this id returned
  std::uint64_t gone = 0;       // not 0: commit() of its end returned
};

class Disk {
 public:
  // Names that this run's steps speak of begin where the disk is empty.
  void apply(const Step& s) {
    switch (s.event.step) {
      case FileStep::kAllocate:
        files_[s.file].resize(s.event.size);
        return;
      case FileStep::kWrite:
        write(files_[s.file], s.event.offset, s.bytes);
        return;
      case FileStep::kSync:
        files_[s.file].sync();
        return;
      case FileStep::kSyncDirectory:
        for (const Change& c : changes_) c.make(&names_);
        changes_.clear();
        return;
      case FileStep::kLink:
        changes_.push_back({s.event.name, s.file, {}});
        return;
      case FileStep::kRemove:
        changes_.push_back({s.event.name, 0, {}});
        return;
      case FileStep::kRename:
        changes_.push_back({s.event.name, named(s.event.from), s.event.from});
        return;
    }
  }

  // One of the disks that there may be now. `harsh`: nothing that isn't synced is there.
  void image(const std::string& directory, std::mt19937_64& random, bool harsh) const {
    std::map<std::string, std::uint64_t> names = names_;
    for (const Change& c : changes_) {
      if (!harsh && random() % 2 != 0) c.make(&names);
    }
    for (const auto& [name, file] : names) {
      std::string path = directory;
      path.append("/").append(name);
      test::write_file(path, files_.at(file).picture(random, harsh));
    }
  }

 private:
  struct File {
    std::string synced;
    std::map<std::size_t, std::vector<std::string>> sectors;  // states since the sync
    std::string now;

    void resize(std::size_t n) {
      synced.resize(n, '\0');
      now.resize(n, '\0');
    }
    void sync() {
      synced = now;
      sectors.clear();
    }
    std::string picture(std::mt19937_64& random, bool harsh) const {
      std::string p = synced;
      const auto style = random() % 4;  // nearly all of it is there, nearly nothing, or any
      for (const auto& [at, states] : sectors) {
        const std::uint64_t there = style == 0 ? 15 : style == 1 ? 1 : 8;
        if (harsh || random() % 16 >= there) continue;
        const std::size_t which = random() % states.size();
        std::string s = states[which];
        if (random() % 8 == 0) {  // torn
          const std::string& older = which == 0 ? p.substr(at, kSector) : states[which - 1];
          const std::size_t cut = random() % s.size();
          s = s.substr(0, cut) + older.substr(cut);
        }
        p.replace(at, s.size(), s);
      }
      return p;
    }
  };

  static void write(File& f, std::uint64_t offset, const std::string& bytes) {
    if (f.now.size() < offset + bytes.size()) f.resize(offset + bytes.size());
    f.now.replace(offset, bytes.size(), bytes);
    for (std::size_t at = offset / kSector * kSector; at < offset + bytes.size(); at += kSector) {
      f.sectors[at].push_back(f.now.substr(at, kSector));
    }
  }
  using Names = std::map<std::string, std::uint64_t>;
  struct Change {
    std::string name;
    std::uint64_t file = 0;  // 0 = none has the name any more
    std::string from;        // a rename: the name that it had

    void make(Names* names) const {
      if (!from.empty()) names->erase(from);
      if (file == 0) {
        names->erase(name);
      } else {
        (*names)[name] = file;
      }
    }
  };
  std::uint64_t named(const std::string& name) const {
    Names now = names_;
    for (const Change& c : changes_) c.make(&now);
    return now.at(name);
  }

  std::map<std::uint64_t, File> files_;
  Names names_;
  std::vector<Change> changes_;
};

class JournalPowerTest : public test::JournalTest {
 protected:
  void SetUp() override {
    CELERIAC_TEST_NEEDS_CRASH_POINTS();
    set_file_hook([this](const FileEvent& e) {
      Step s;
      s.event = e;
      const bool of_a_file = e.step == FileStep::kAllocate || e.step == FileStep::kWrite ||
                             e.step == FileStep::kSync || e.step == FileStep::kLink;
      s.file = of_a_file ? inode(e.fd) : 0;
      if (e.step == FileStep::kWrite) s.bytes.assign(static_cast<const char*>(e.data), e.size);
      s.event.data = nullptr;
      steps.push_back(std::move(s));
      return 0;
    });
  }
  void TearDown() override { set_file_hook({}); }

  void put(JournalSession& s, std::mt19937_64& random) {
    const std::string body =
        "body " + std::to_string(bodies.size()) + std::string(random() % 700, 'p');
    const std::uint64_t id = s.put(body);
    bodies[id] = body;
    alive.push_back(id);
  }
  void end(JournalSession& s, std::mt19937_64& random, std::vector<std::uint64_t>* ended) {
    const std::size_t which = random() % alive.size();
    const std::uint64_t id = alive[which];
    alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(which));
    ending[id] = steps.size();
    s.gone(id);
    ended->push_back(id);
  }

  // A run of a process that confirms in groups, compacts now and then, and begins anew once.
  void run(std::uint64_t seed, bool syncs) {
    std::mt19937_64 random(seed);
    auto s = std::make_unique<JournalSession>(options, 8192);
    s->begin();
    s->queue("q");
    for (int i = 0; i < 160; ++i) {
      std::vector<std::uint64_t> ended;
      for (std::uint64_t n = random() % 4; n > 0; --n) put(*s, random);
      while (alive.size() > 12 || (!alive.empty() && random() % 3 == 0)) end(*s, random, &ended);
      if (syncs && random() % 2 == 0) {
        ASSERT_TRUE(s->commit(s->journal.last()));
        confirm();
      }
      if (i % 5 == 4) {
        ASSERT_TRUE(s->journal.make_spare([](std::uint64_t) { return true; }));
      }
      if (i % 40 == 39) {
        ASSERT_TRUE(s->journal.compact(s->me()));
        confirm();  // it syncs, whatever the durability
      }
      if (i == 100) {
        lose_arena();
        s = std::make_unique<JournalSession>(options, 8192);
        s->begin();
      }
    }
  }
  // All that was done so far is on the disk.
  void confirm() {
    for (const auto& [id, body] : bodies) {
      if (told.insert(id).second) {
        Step s;
        s.confirmed = id;
        steps.push_back(s);
      }
    }
    for (const auto& [id, when] : ending) {
      if (told_gone.insert(id).second) {
        Step s;
        s.gone = id;
        steps.push_back(s);
      }
    }
  }

  void check(const std::string& at, std::uint64_t moment, const std::set<std::uint64_t>& confirmed,
             const std::set<std::uint64_t>& gone, const std::string& when) {
    const Contents c = contents(at);
    ASSERT_FALSE(c.report.damaged())
        << when << ": " << c.report.damages[0].text() << " (the disk did what it may)";
    for (const std::uint64_t id : confirmed) {
      const auto found = c.bodies.find(id);
      const bool may_be_gone = ending.count(id) != 0 && ending[id] <= moment;
      ASSERT_TRUE(found != c.bodies.end() || may_be_gone) << when << ": " << id << " is lost";
      ASSERT_TRUE(found == c.bodies.end() || gone.count(id) == 0)
          << when << ": " << id << " is there again";
    }
    for (const auto& [id, body] : c.bodies) {
      const auto put = bodies.find(id);
      ASSERT_TRUE(put != bodies.end() && put->second == body) << when << ": " << id;
    }
  }

  // A store begins on such a disk, finds the same, and is written to.
  static void go_on(const std::string& at, const std::string& when) {
    const Contents before = contents(at);
    {
      ArenaOptions there;
      there.root = at;
      there.memory = 4ULL << 20U;
      JournalSession s(there, 8192);
      s.begin();
      ASSERT_EQ(s.live.ids(), before.live.ids()) << when;
      ASSERT_TRUE(s.commit(s.put("goes on")));
      ASSERT_TRUE(s.journal.compact(s.me())) << when;
    }
    const Contents now = contents(at);
    ASSERT_FALSE(now.report.damaged()) << when << ": " << now.report.damages[0].text();
    ASSERT_EQ(now.bodies.size(), before.bodies.size() + 1) << when;
    ASSERT_EQ(now.bodies.rbegin()->second, "goes on") << when;
  }

  // Images at moments of the run; how many.
  int images(std::uint64_t seed, int each) {
    std::mt19937_64 random(seed);
    Disk disk;
    std::set<std::uint64_t> confirmed;
    std::set<std::uint64_t> gone;
    int made = 0;
    const std::string at = root.file("image");
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].confirmed != 0) {
        confirmed.insert(steps[i].confirmed);
        continue;
      }
      if (steps[i].gone != 0) {
        gone.insert(steps[i].gone);
        continue;
      }
      disk.apply(steps[i]);
      for (int n = 0; n < each; ++n) {
        std::filesystem::remove_all(at);
        std::filesystem::create_directory(at);
        std::filesystem::permissions(at, std::filesystem::perms::owner_all);
        disk.image(at, random, n == 0);
        const std::string when = "step " + std::to_string(i) + " image " + std::to_string(n);
        check(at, i + 1, confirmed, gone, when);
        if (!HasFatalFailure() && made % 20 == 0) go_on(at, when);
        if (HasFatalFailure()) return made;
        ++made;
      }
    }
    return made;
  }

  std::vector<Step> steps;
  std::map<std::uint64_t, std::string> bodies;
  std::vector<std::uint64_t> alive;
  std::map<std::uint64_t, std::size_t> ending;  // steps before its end was begun
  std::set<std::uint64_t> told, told_gone;
};

TEST_F(JournalPowerTest, WhatIsConfirmedIsInEachImage) {
  run(1, true);
  set_file_hook({});
  const int made = images(2, 6);
  EXPECT_GT(made, 3000);
  const auto spares = std::count_if(steps.begin(), steps.end(), [](const Step& step) {
    return step.event.step == FileStep::kRename && step.event.from == "journal.spare";
  });
  EXPECT_GT(spares, 5) << "switches found none";
}

TEST_F(JournalPowerTest, WithoutSyncsThereAreHolesAndNoDamage) {
  run(3, false);
  set_file_hook({});
  EXPECT_GT(images(4, 4), 2000);
}

// The check would see it if a confirmation came before its sync.
TEST_F(JournalPowerTest, ConfirmingTooEarlyIsFound) {
  JournalSession s(options);
  s.begin();
  std::mt19937_64 random(1);
  put(s, random);
  confirm();
  ASSERT_TRUE(s.commit(s.journal.last()));
  set_file_hook({});
  Disk disk;
  for (const Step& step : steps) {
    if (step.confirmed != 0) break;
    disk.apply(step);
  }
  const std::string at = root.file("image");
  std::filesystem::create_directory(at);
  std::filesystem::permissions(at, std::filesystem::perms::owner_all);
  disk.image(at, random, true);
  EXPECT_TRUE(contents(at).bodies.empty());
}

}  // namespace
}  // namespace celeriac::journal
