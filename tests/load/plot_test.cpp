#include "load/plot.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

TEST(Plot, StaysInsideItsFrameForAnyData) {
  const std::vector<std::vector<PlotPoint>> lines = {{{5, 1}},
                                                     {{0, 0}, {0, 0}},
                                                     {{1e-6, 0}, {1e6, 1}},
                                                     {{1, 0}, {2, 0.5}, {3, 1}},
                                                     {{7, 0}, {7, 1}}};
  for (const auto& line : lines) {
    for (const bool log_x : {false, true}) {
      if (log_x && line.front().x <= 0) continue;
      Plot plot;
      plot.line = line;
      plot.log_x = log_x;
      plot.percent_y = true;
      plot.marks = {{line.back(), "last"}};
      const std::string svg = plot_svg(plot);
      EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
      EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
      EXPECT_LT(svg.size(), 20000u);
    }
  }
  EXPECT_NE(plot_svg({}).find("no data"), std::string::npos);
}

TEST(Plot, EscapesText) {
  Plot plot;
  plot.title = "<script>\"&'";
  plot.line = {{1, 1}};
  EXPECT_NE(plot_svg(plot).find("&lt;script&gt;&quot;&amp;&#39;"), std::string::npos);
}

}  // namespace
}  // namespace atom
