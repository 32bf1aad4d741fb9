// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/svg.hpp: pieces that every drawing needs: escaped text, short numbers, scales with ticks,
// elements
//
// Drawings are about 360 units wide, so that text keeps its size on a telephone; a page sets several side by side.
// Colours are classes s0, s1, ... of the page's style (report/page.hpp), for light, dark and paper.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/text/utf8.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace spectral::report {

// No number: what has it is not drawn.
inline constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
inline constexpr int styles = 7;  // distinct classes s0 ...

// Text of HTML and XML: markup escaped, what is not UTF-8 or not a character of XML replaced.
inline std::string escaped(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const utf8_step step = read_utf8(text);
        const std::string_view piece = text.substr(0, step.length);
        text.remove_prefix(step.length);
        const bool valid = step.kind == utf8_step::kind::valid && step.code_point != 0xFFFE &&
                           step.code_point != 0xFFFF && (step.code_point >= 0x20 || piece == "\t" || piece == "\n");
        if (!valid)
            out += "\uFFFD";
        else if (piece == "&")
            out += "&amp;";
        else if (piece == "<")
            out += "&lt;";
        else if (piece == ">")
            out += "&gt;";
        else if (piece == "\"")
            out += "&quot;";
        else
            out += piece;
    }
    return out;
}

// Characters of a text, and the first n of them with an ellipsis where there were more.
inline std::size_t characters(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}
inline std::string shortened(std::string_view text, std::size_t n) {
    if (characters(text) <= n) return std::string(text);
    std::string out;
    for (char c : text) {
        if ((c & 0xC0) != 0x80 && n-- == 1) break;
        out += c;
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    return out + "\u2026";
}

// For people: four digits, thousands as k, M, G, T, P: "53.01", "0.8656", "2.869T".
inline std::string short_value(double v, int digits = 4) {
    if (!std::isfinite(v)) return "\u2013";
    static constexpr const char* unit[] = {"", "k", "M", "G", "T", "P", "E"};
    int u = 0;
    double shown = v;
    while (std::abs(shown) >= 99999.5 || (u > 0 && std::abs(shown) >= 999.95)) {
        if (u == 6) break;
        shown /= 1000, ++u;
    }
    char text[48];
    std::snprintf(text, sizeof text, "%.*g",
                  std::abs(shown) >= 9999.5  ? 5
                  : std::abs(shown) >= 999.5 ? std::max(digits, 4)
                  : std::abs(shown) >= 99.95 ? std::max(digits, 3)
                                             : digits,
                  shown);
    return std::string(text) + unit[u];
}
inline std::string percent(double share, int decimals = 1) {
    if (!std::isfinite(share)) return "\u2013";
    char text[48];
    std::snprintf(text, sizeof text, "%.*f%%", decimals, 100 * share);
    return text;
}
// A coordinate: two decimals, no trailing zeros.
inline std::string coordinate(double v) {
    char text[48];
    std::snprintf(text, sizeof text, "%.2f", std::isfinite(v) ? v : 0.0);
    std::string out = text;
    out.erase(out.find_last_not_of('0') + 1);
    if (out.back() == '.') out.pop_back();
    return out == "-0" ? "0" : out;
}

// Values [low, high] to coordinates [from, to].
struct scale {
    double low = 0, high = 1, from = 0, to = 1;
    bool logarithmic = false;

    double operator()(double v) const {
        const double share = logarithmic
                                 ? (std::log(std::max(v, 1e-300)) - std::log(low)) / (std::log(high) - std::log(low))
                                 : (v - low) / (high - low);
        return from + (to - from) * std::clamp(share, -1.0, 2.0);  // far outside is cut by the plot's clip
    }
    // Round values within, at most about `wanted`.
    std::vector<double> ticks(int wanted) const {
        std::vector<double> out;
        if (logarithmic) {
            for (const auto& steps : {std::vector<double>{1, 2, 5}, {1, 3}, {1}}) {
                out.clear();
                for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10)
                    for (double s : steps)
                        if (decade * s >= low * (1 - 1e-9) && decade * s <= high * (1 + 1e-9))
                            out.push_back(decade * s);
                if (static_cast<int>(out.size()) <= wanted) break;
            }
            if (out.size() >= 2) return out;
            out.clear();  // less than a decade: as on a linear axis
        }
        const double raw = (high - low) / std::max(wanted, 1), magnitude = std::pow(10, std::floor(std::log10(raw)));
        double step = 10 * magnitude;
        for (double s : {5.0, 2.5, 2.0, 1.0})
            if (s * magnitude >= raw * 0.999) step = s * magnitude;
        for (double n = std::ceil(low / step - 1e-9); n * step <= high + 1e-9 * step && out.size() < 100; ++n)
            out.push_back(n == 0 ? 0 : n * step);
        return out;
    }
};

// Text for ticks: as many digits as tell them apart.
inline std::vector<std::string> tick_texts(const std::vector<double>& ticks) {
    std::vector<std::string> out;
    for (int digits = 3; digits < 9; ++digits) {
        out.clear();
        for (double t : ticks) out.push_back(short_value(t, digits));
        bool exact = true;
        for (std::size_t i = 0; i + 1 < ticks.size(); ++i) exact = exact && out[i] != out[i + 1];
        const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 0;
        for (std::size_t i = 0; exact && step > 0 && i < ticks.size(); ++i) {
            char text[48];
            std::snprintf(text, sizeof text, "%.*g", digits, ticks[i]);
            exact = std::abs(std::strtod(text, nullptr) - ticks[i]) < 0.01 * step;
        }
        if (exact) break;
    }
    return out;
}

// ---- elements

// Parts of an element.
inline std::string attribute(std::string_view name, double v) {
    return " " + std::string(name) + "=\"" + coordinate(v) + "\"";
}
inline std::string titled(std::string_view title) {
    return title.empty() ? "" : "<title>" + escaped(title) + "</title>";
}

// Which end of a text stands at its place; then the elements: text, line, rectangle. `css` is a class.
enum class anchor { start, middle, end };
inline std::string svg_text(double x, double y, std::string_view text, anchor at = anchor::start,
                            std::string_view css = "") {
    static constexpr const char* names[] = {"start", "middle", "end"};
    return "<text" + attribute("x", x) + attribute("y", y) + " text-anchor=\"" + names[static_cast<int>(at)] + "\"" +
           (css.empty() ? "" : " class=\"" + std::string(css) + "\"") + ">" + escaped(text) + "</text>";
}
inline std::string svg_line(double x1, double y1, double x2, double y2, std::string_view css) {
    return "<line" + attribute("x1", x1) + attribute("y1", y1) + attribute("x2", x2) + attribute("y2", y2) +
           " class=\"" + std::string(css) + "\"/>";
}
inline std::string svg_rect(double x, double y, double w, double h, std::string_view css, std::string_view title = "") {
    const std::string open = "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", std::max(w, 0.0)) +
                             attribute("height", std::max(h, 0.0)) + " class=\"" + std::string(css) + "\"";
    return title.empty() ? open + "/>" : open + ">" + titled(title) + "</rect>";
}
inline std::string style_class(int style) { return "s" + std::to_string(style % styles); }

// In the units of the axes, or of a shape.
struct point {
    double x, y;
};

// Circle, square, triangle, diamond: told apart without colour too.
inline std::string marker(double x, double y, int style, double r, std::string_view css, std::string_view title) {
    const std::string c = style_class(style) + " " + std::string(css);
    const auto closed = [&](std::string element) {
        return title.empty() ? element + "/>" : element + ">" + titled(title);
    };
    const auto path = [&](std::initializer_list<point> corners) {
        std::string d;
        for (const point& p : corners)
            d += (d.empty() ? "M" : "L") + coordinate(x + r * p.x) + " " + coordinate(y + r * p.y);
        return closed("<path class=\"" + c + "\" d=\"" + d + "Z\"") + (title.empty() ? "" : "</path>");
    };
    switch (style % 4) {
        case 1: return path({{-0.9, -0.9}, {0.9, -0.9}, {0.9, 0.9}, {-0.9, 0.9}});
        case 2: return path({{0, -1.2}, {1.1, 0.8}, {-1.1, 0.8}});
        case 3: return path({{0, -1.3}, {1.3, 0}, {0, 1.3}, {-1.3, 0}});
        default:
            return closed("<circle class=\"" + c + "\"" + attribute("cx", x) + attribute("cy", y) + attribute("r", r)) +
                   (title.empty() ? "" : "</circle>");
    }
}

// A whole drawing with its name and what it shows, for those who do not see it. `id` must be unique on the page.
inline std::string svg_drawing(const std::string& id, double width, double height, std::string_view title,
                               std::string_view description, const std::string& inside) {
    return "<svg role=\"img\" tabindex=\"0\" viewBox=\"0 0 " + coordinate(width) + " " + coordinate(height) +
           "\" aria-labelledby=\"" + id + "-t " + id + "-d\"><title id=\"" + id + "-t\">" + escaped(title) +
           "</title><desc id=\"" + id + "-d\">" + escaped(description) + "</desc>" + inside + "</svg>\n";
}

}  // namespace spectral::report
