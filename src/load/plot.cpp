#include "load/plot.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace atom {
namespace {

// The drawing's own units; the page scales it.
constexpr double kWidth = 480, kHeight = 240;
constexpr double kLeft = 48, kRight = 16, kTop = 14, kBottom = 30;

// The largest of 1, 2 and 5 times a power of ten that cuts `span` into `parts` pieces or more.
double nice_step(double span, double parts) {
  const double raw = span / parts;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {5.0, 2.0}) {
    if (factor * power <= raw) return factor * power;
  }
  return power;
}

std::string number(double value) {
  if (value >= 10000) return fmt::format("{:g}k", value / 1000);
  return fmt::format("{:.4g}", value);
}

class Axes {
 public:
  explicit Axes(const Plot& plot) : log_x_(plot.log_x) {
    const auto widen = [&](const PlotPoint& point) {
      x_low_ = std::min(x_low_, point.x);
      x_high_ = std::max(x_high_, point.x);
      y_high_ = std::max(y_high_, point.y);
    };
    x_low_ = x_high_ = plot.line.front().x;
    std::for_each(plot.line.begin(), plot.line.end(), widen);
    for (const PlotMark& bound : plot.bounds) {
      if (!log_x_ || bound.at.x > 0) widen({bound.at.x, 0});
    }
    if (plot.percent_y) {
      y_high_ = 1;
    } else {
      y_high_ = y_high_ > 0 ? y_high_ * 1.08 : 1;
    }
    if (!log_x_) x_low_ = 0;
    if (!(x_high_ > x_low_)) x_high_ = x_low_ > 0 ? x_low_ * 1.1 : 1;
  }

  double x(double value) const {
    const double share = log_x_ ? std::log(value / x_low_) / std::log(x_high_ / x_low_)
                                : (value - x_low_) / (x_high_ - x_low_);
    return kLeft + share * (kWidth - kLeft - kRight);
  }
  double y(double value) const {
    return kHeight - kBottom - value / y_high_ * (kHeight - kTop - kBottom);
  }

  std::vector<double> x_ticks() const {
    std::vector<double> ticks;
    if (log_x_ && x_high_ / x_low_ > 4) {
      for (double power = std::pow(10.0, std::floor(std::log10(x_low_))); power <= x_high_;
           power *= 10) {
        for (const double factor : {1.0, 2.0, 5.0}) {
          const double tick = factor * power;
          if (tick >= x_low_ && tick <= x_high_) ticks.push_back(tick);
        }
      }
      // Beyond two decades the powers of ten alone leave room for their numbers.
      if (ticks.size() > 7) {
        std::erase_if(ticks, [](double tick) {
          const double exponent = std::log10(tick);
          return std::abs(exponent - std::round(exponent)) > 1e-6;
        });
      }
      return ticks;
    }
    const double step = nice_step(x_high_ - x_low_, 5);
    for (double tick = std::ceil(x_low_ / step) * step; tick <= x_high_ * (1 + 1e-9);
         tick += step) {
      ticks.push_back(tick);
    }
    return ticks;
  }

  std::vector<double> y_ticks() const {
    std::vector<double> ticks;
    const double step = y_high_ == 1 ? 0.25 : nice_step(y_high_, 4);
    for (double tick = 0; tick <= y_high_ * (1 + 1e-9); tick += step) ticks.push_back(tick);
    return ticks;
  }

 private:
  bool log_x_;
  double x_low_ = 0, x_high_ = 1, y_high_ = 0;
};

std::string path_of(const Plot& plot, const Axes& axes) {
  std::string path;
  for (const PlotPoint& point : plot.line) {
    path +=
        fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", axes.x(point.x), axes.y(point.y));
  }
  return path;
}

}  // namespace

std::string plot_svg(const Plot& plot) {
  std::string svg =
      fmt::format("<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
                  kWidth, kHeight, escape_html(plot.title));
  if (plot.line.empty()) {
    return svg +
           fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">no data</text></svg>\n",
                       kWidth / 2, kHeight / 2);
  }
  const Axes axes(plot);
  const double bottom = kHeight - kBottom;
  for (const double tick : axes.y_ticks()) {
    svg += fmt::format(
        "<path class=\"grid\" d=\"M{} {:.1f}H{}\"/><text x=\"{}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{}</text>\n",
        kLeft, axes.y(tick), kWidth - kRight, kLeft - 8, axes.y(tick) + 4,
        plot.percent_y ? fmt::format("{:.0f}%", tick * 100) : number(tick));
  }
  const std::vector<double> ticks = axes.x_ticks();
  for (size_t i = 0; i < ticks.size(); ++i) {
    const bool last = i + 1 == ticks.size();
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}{}</text>\n",
                       axes.x(ticks[i]), kHeight - 8, number(ticks[i]),
                       last ? " " + escape_html(plot.x_unit) : std::string());
  }
  const std::string path = path_of(plot, axes);
  if (plot.filled) {
    svg += fmt::format("<path class=\"area\" d=\"{}L{:.1f} {}L{:.1f} {}Z\"/>\n", path,
                       axes.x(plot.line.back().x), bottom, axes.x(plot.line.front().x), bottom);
  }
  svg += fmt::format("<path class=\"line\" d=\"{}\"/>\n", path);
  for (const PlotMark& bound : plot.bounds) {
    const double x = axes.x(bound.at.x);
    const bool left = x > kWidth / 2;
    svg += fmt::format(
        "<path class=\"bound\" d=\"M{0:.1f} {1}V{2}\"/><text class=\"bound\" x=\"{3:.1f}\" "
        "y=\"{4}\" text-anchor=\"{5}\">{6}</text>\n",
        x, kTop, bottom, left ? x - 6 : x + 6, bottom - 8, left ? "end" : "start",
        escape_html(bound.label));
  }
  for (const PlotMark& mark : plot.marks) {
    const double x = axes.x(mark.at.x);
    const bool left = x > kWidth * 0.7;
    svg += fmt::format(
        "<circle class=\"mark\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/><text class=\"mark\" "
        "x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
        x, axes.y(mark.at.y), left ? x - 8 : x + 8, axes.y(mark.at.y) + (left ? -6 : 14),
        left ? "end" : "start", escape_html(mark.label));
  }
  return svg + "</svg>\n";
}

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace atom
