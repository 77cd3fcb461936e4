// Line plots as SVG elements to stand in an HTML page, drawn in the page's own colours and fonts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atom {

struct PlotPoint {
  double x;
  double y;
};

struct PlotMark {
  PlotPoint at;
  std::string label;
};

struct Plot {
  std::string title;
  std::string x_unit;  // behind the numbers of the axis: "ms"
  std::vector<PlotPoint> line;
  bool filled = false;           // the area under the line
  bool percent_y = false;        // y runs from 0 to 1 and is shown in percent
  bool log_x = false;            // needs x > 0
  std::vector<PlotMark> marks;   // dots
  std::vector<PlotMark> bounds;  // vertical lines at their x
};

// An <svg> whose CSS classes (plot, grid, line, area, mark, bound) the page styles.
std::string plot_svg(const Plot& plot);

// Text as it may stand in HTML and SVG, in attributes too.
std::string escape_html(std::string_view text);

}  // namespace atom
