#include "load/measurement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/random.h"

namespace atom {
namespace {

TEST(LatencyHistogram, PercentilesAreThoseOfTheSortedSamples) {
  Random random(1);
  for (const int64_t count : {1, 2, 3, 10, 101, 5000}) {
    LatencyHistogram histogram;
    std::vector<double> samples;
    for (int64_t i = 0; i < count; ++i) {
      samples.push_back(1e-4 * std::exp(8 * random.uniform()));  // 0.1 ms to 0.3 s
      histogram.record(samples.back());
    }
    std::sort(samples.begin(), samples.end());
    for (const double share : {0.0, 0.25, 0.5, 0.9, 0.99, 1.0}) {
      const auto rank = std::max<int64_t>(
          1, static_cast<int64_t>(std::ceil(share * static_cast<double>(count) - 1e-9)));
      const double exact = samples[static_cast<size_t>(rank - 1)];
      EXPECT_NEAR(histogram.percentile(share), exact, 1e-3 * exact) << count << " " << share;
    }
    EXPECT_EQ(histogram.percentile(1), samples.back());
    EXPECT_EQ(histogram.min(), samples.front());
    EXPECT_NEAR(histogram.mean(),
                std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(count),
                1e-12);
  }
}

TEST(LatencyHistogram, TakesAnything) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.percentile(0.5), 0);
  EXPECT_TRUE(histogram.cumulative(10).empty());
  for (const double seconds : {0.0, 1e-9, 1e-6, 1e9}) histogram.record(seconds);
  EXPECT_EQ(histogram.percentile(1), 1e9);
  EXPECT_LE(histogram.percentile(0.25), 2e-6);
}

TEST(LatencyHistogram, CumulativeDistributionRises) {
  Random random(2);
  LatencyHistogram histogram;
  for (int i = 0; i < 20000; ++i) histogram.record(0.01 + random.uniform());
  const auto points = histogram.cumulative(50);
  EXPECT_LE(points.size(), 51u);
  EXPECT_EQ(points.front().share, 0);
  EXPECT_EQ(points.back().share, 1);
  for (size_t i = 1; i < points.size(); ++i) {
    EXPECT_GE(points[i].seconds, points[i - 1].seconds);
    EXPECT_GE(points[i].share, points[i - 1].share);
    EXPECT_NEAR(points[i].share, points[i].seconds - 0.01, 0.02);
  }
}

TEST(Timeline, KeepsAmountsWhileBinsGrow) {
  Timeline timeline;
  for (int i = 0; i < 1000; ++i) timeline.add(i + 0.5, 2);  // far beyond the first bins
  const std::vector<double> rates = timeline.rates(1000);
  EXPECT_LE(rates.size(), Timeline::kBins);
  double sum = 0;
  for (const double rate : rates) sum += rate * timeline.bin_seconds();
  EXPECT_NEAR(sum, 2000, 2000 * timeline.bin_seconds() / 1000 + 1e-9);
}

TEST(Timeline, SpansCountHowManyAreOpen) {
  Timeline timeline;
  timeline.add_span(0, 3);
  timeline.add_span(1, 2);
  timeline.add_span(-5, 1);
  timeline.add_span(2, 2);
  const std::vector<double> rates = timeline.rates(3);
  ASSERT_EQ(rates.size(), 30u);
  EXPECT_NEAR(rates[5], 2, 1e-9);
  EXPECT_NEAR(rates[15], 2, 1e-9);
  EXPECT_NEAR(rates[25], 1, 1e-9);
}

StreamRecord good_stream(double due, double ttft, double tpot, int64_t tokens) {
  StreamRecord record;
  record.due = record.sent = due;
  record.first_text = due + ttft;
  record.last_text = record.ended = due + ttft + tpot * static_cast<double>(tokens - 1);
  record.text_events = tokens;
  record.outcome = Outcome::kSucceeded;
  return record;
}

TEST(Measurement, CountsWhatKeepsTheObjective) {
  Measurement measurement(Slo{.ttft = 0.5, .tpot = 0.05, .e2e = std::nullopt});
  measurement.on_end(good_stream(0, 0.4, 0.04, 10));
  measurement.on_end(good_stream(1, 0.6, 0.04, 10));
  measurement.on_end(good_stream(2, 0.4, 0.06, 10));
  measurement.on_end(good_stream(3, 0.4, 9, 1));  // one token: no time between tokens
  StreamRecord failed;
  failed.failure_kind = "connect";
  failed.failure_message = "refused";
  measurement.on_end(failed);
  measurement.on_end(failed);
  EXPECT_EQ(measurement.good(), 2);
  EXPECT_EQ(measurement.succeeded(), 4);
  EXPECT_EQ(measurement.failed(), 2);
  EXPECT_EQ(measurement.failures().at("connect").count, 2);
  EXPECT_EQ(measurement.failures().at("connect").example, "refused");
  EXPECT_EQ(measurement.generated_tokens(), 31);
  EXPECT_EQ(measurement.tpot().count(), 3);
  EXPECT_NEAR(measurement.ttft().max(), 0.6, 1e-9);
}

TEST(Measurement, LatencyCountsFromWhenARequestWasDue) {
  Measurement measurement(Slo{});
  StreamRecord record = good_stream(1, 0.5, 0.1, 3);
  record.sent = 1.2;
  measurement.on_end(record);
  EXPECT_NEAR(measurement.ttft().max(), 0.5, 1e-9);
  EXPECT_NEAR(measurement.lag().max(), 0.2, 1e-9);
  EXPECT_NEAR(measurement.e2e().max(), 0.7, 1e-9);
}

TEST(Measurement, PrefersTheTokenCountOfTheServer) {
  Measurement measurement(Slo{});
  StreamRecord record = good_stream(0, 0.1, 0.1, 5);
  record.usage = {.prompt_tokens = 11, .generated_tokens = 9};
  measurement.on_end(record);
  EXPECT_EQ(measurement.generated_tokens(), 9);
  EXPECT_EQ(measurement.prompt_tokens(), 11);
  EXPECT_NEAR(measurement.tpot().max(), 0.05, 1e-9);
  EXPECT_EQ(measurement.counted_by_server(), 1);
}

TEST(Slo, ReadsBounds) {
  const Slo slo = *parse_slo("ttft=500ms,tpot=2.5s,e2e=1m");
  EXPECT_DOUBLE_EQ(*slo.ttft, 0.5);
  EXPECT_DOUBLE_EQ(*slo.tpot, 2.5);
  EXPECT_DOUBLE_EQ(*slo.e2e, 60);
  for (const char* wrong : {"", "ttft", "ttft=", "ttft=5", "ttft=-1s", "ttft=0s", "ttft=infs",
                            "ttft=nans", "x=1s", "ttft=1s,", "ttft=1s,,e2e=1s", "ttft=1e999s"}) {
    EXPECT_FALSE(parse_slo(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace atom
