// Metrics: values of processes, what becomes of those of the dead, and what a death leaves.
#include "store/metrics.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "memory/heap.hpp"
#include "store/metric_text.hpp"
#include "support/attachment.hpp"

namespace celeriac {
namespace {

struct Process {
  explicit Process(const ArenaOptions& options)
      : attached(options),
        heap(*attached.arena, *attached.owners),
        base{*attached.arena, *attached.owners, *attached.recovery, heap},
        metrics(base),
        me(attached.join()) {}

  MetricFamilyRef family(MetricMode mode, MetricType type = MetricType::kGauge) {
    MetricFamilySpec spec;
    spec.name = "m";
    spec.type = type;
    spec.mode = mode;
    spec.labels = {"l"};
    spec.cap = 100;
    Result<MetricFamilyRef> made = metrics.family(spec, me);
    EXPECT_TRUE(made) << made.status().message();
    return made.value();
  }
  layout::Word* cells(const MetricFamilyRef& f, std::string_view label = "x") {
    const MetricSeriesRef ref = metrics.series(f, pack_labels({label}), 0, me);
    layout::MetricStripe* stripe = metrics.stripe_for(me);
    return stripe == nullptr ? nullptr : metrics.cells(ref, *stripe, me);
  }
  double value(const MetricFamilyRef& f) {
    Result<std::vector<MetricFamilyView>> all = metrics.collect(&f, me);
    EXPECT_TRUE(all);
    EXPECT_EQ(all.value()[0].samples.size(), 1U);
    return all.value()[0].samples[0].values[0];
  }

  test::Attachment attached;
  Heap heap;
  Base base;
  Metrics metrics;
  OwnerTag me;
};

class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() {
    options_.root = root_.path();
    options_.name = "m";
    options_.memory = 8U << 20U;
  }
  test::TemporaryRoot root_;
  ArenaOptions options_;
};

TEST(MetricCells, NothingIsNotZero) {
  EXPECT_NE(cell_word(0.0), 0U);
  EXPECT_EQ(cell_value(0), 0.0);
  EXPECT_NE(cell_word(std::bit_cast<double>(kCellTurn)), 0U);
  for (const double d : {1.0, -1.0, 0.1, 1e300}) EXPECT_EQ(cell_value(cell_word(d)), d);
}

TEST(MetricCells, ThreadsAddExactly) {
  layout::Word cell{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cell] {
      for (int i = 0; i < 20000; ++i) add_cell(cell, 1);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(cell_value(cell.load()), 80000);
}

TEST_F(MetricsTest, TheDeadAreFoldedOnceAndTheirStripeIsUsedAgain) {
  Process reader(options_);
  const MetricFamilyRef f = reader.family(MetricMode::kSum, MetricType::kCounter);
  for (int i = 0; i < 10; ++i) {
    Process writer(options_);
    add_cell(*writer.cells(writer.family(MetricMode::kSum, MetricType::kCounter)), 2);
    EXPECT_EQ(reader.value(f), 2 * i + 2);
    writer.attached.die();
    EXPECT_EQ(reader.value(f), 2 * i + 2);
    EXPECT_EQ(reader.metrics.counts().stripes, 0U);
  }
}

TEST_F(MetricsTest, RecoveryFolds) {
  Process reader(options_);
  reader.attached.recovery->add([&](const DeadOwners& dead) { reader.metrics.repair(dead); });
  const MetricFamilyRef f = reader.family(MetricMode::kSum, MetricType::kCounter);
  Process writer(options_);
  add_cell(*writer.cells(writer.family(MetricMode::kSum, MetricType::kCounter)), 3);
  writer.attached.die();
  EXPECT_EQ(reader.metrics.counts().stripes, 1U);
  EXPECT_EQ(reader.attached.recovery->run(), 1);
  EXPECT_EQ(reader.metrics.counts().stripes, 0U);
  EXPECT_EQ(reader.value(f), 3);
}

TEST_F(MetricsTest, ARemovedSeriesIsNotCurrentAndItsCellsRest) {
  Process p(options_);
  const MetricFamilyRef f = p.family(MetricMode::kSum);
  layout::Word* cell = p.cells(f, "a");
  const MetricSeriesRef ref = p.metrics.series(f, pack_labels({"a"}), 0, p.me);
  EXPECT_TRUE(Metrics::current(ref));
  EXPECT_EQ(p.metrics.remove(f, pack_labels({"a"}), p.me).value(), 1U);
  EXPECT_FALSE(Metrics::current(ref));
  EXPECT_NE(p.cells(f, "b"), cell);
}

TEST(MetricText, NumbersAreThoseOfPython) {
  EXPECT_EQ(metric_number(0.1), "0.1");
  EXPECT_EQ(metric_number(1e16), "1e+16");
  EXPECT_EQ(metric_number(123456789012345680.0), "1.2345678901234568e+17");
  EXPECT_EQ(metric_number(1e-5), "1e-05");
  EXPECT_EQ(metric_number(0.0001), "0.0001");
  EXPECT_EQ(metric_bound(1e6), "1e+06");
  EXPECT_EQ(metric_bound(2500000), "2.5e+06");
}

}  // namespace
}  // namespace celeriac
