// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/chart.hpp: what a report draws: lines, dots and histograms on two axes; bars and intervals by
// row; heat maps
#pragma once
#include <spectral/report/svg.hpp>

namespace spectral::report {

// Bounds that are left open follow from what is drawn.
struct axis {
    std::string label;
    bool logarithmic = false, percent = false, from_zero = false;
    double low = nothing, high = nothing;

    std::vector<std::string> texts(const std::vector<double>& ticks) const {
        if (!percent) return tick_texts(ticks);
        std::vector<std::string> out;
        out.reserve(ticks.size());
        const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
        const double places = 100 * step - std::floor(100 * step);
        for (double t : ticks) out.push_back(report::percent(t, places > 0.01 && places < 0.99 ? 1 : 0));
        return out;
    }
};

namespace detail {
inline constexpr double character = 6.2;  // width of one at 11 units, on average
inline double text_width(std::string_view text) { return character * static_cast<double>(characters(text)); }

struct bounds {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    void add(double v) {
        if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
    }
};
inline scale make_scale(const axis& a, bounds found, double from, double to) {
    if (a.logarithmic && found.low <= 0) found.low = std::min(found.high > 0 ? found.high : 1.0, 1e-3);
    if (a.from_zero && !a.logarithmic) found.add(0);
    if (std::isfinite(a.low)) found.low = a.low;
    if (std::isfinite(a.high)) found.high = a.high;
    if (!(found.low <= found.high)) found = {0, 1};
    if (found.low == found.high) {  // one value: something around it
        const double around = found.low != 0 ? 0.05 * std::abs(found.low) : 1;
        if (!std::isfinite(a.low)) found.low -= a.from_zero && found.low == 0 ? 0 : around;
        if (!std::isfinite(a.high) || found.low == found.high) found.high += around;
    }
    return {found.low, found.high, from, to, a.logarithmic};
}

// Text lines at these heights moved apart, in the same order, inside [top, bottom] as far as they fit.
inline void spread(std::vector<double>& y, double gap, double top, double bottom) {
    std::vector<std::size_t> order(y.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return y[a] < y[b]; });
    double least = top;
    for (std::size_t i : order) {
        y[i] = std::max(y[i], least);
        least = y[i] + gap;
    }
    double most = bottom;
    for (std::size_t n = order.size(); n-- > 0;) {
        y[order[n]] = std::min(y[order[n]], most);
        most = y[order[n]] - gap;
    }
}
}  // namespace detail

// ---- two axes

//   chart c("loss", "Loss by step", {.label = "step"}, {.label = "nats"});
//   c.line(points, 0, "baseline");   page.add(c.svg("what it shows, in words"));
class chart {
public:
    chart(std::string id, std::string title, axis x, axis y)
        : id_(std::move(id)), title_(std::move(title)), x_(x), y_(y) {}

    // A line; its label stands at its end. Faint ones do not widen the axes: details beside the main lines.
    chart& line(std::vector<point> points, int style, std::string label = "", bool faint = false) {
        marks_.push_back(
            {faint ? kind::faint : kind::line, thinned(std::move(points)), style, std::move(label), {}, 0});
        return *this;
    }
    // Points, each with a title where there are titles.
    chart& dots(std::vector<point> points, int style, std::vector<std::string> titles = {}, double radius = 3) {
        marks_.push_back({kind::dots, std::move(points), style, "", std::move(titles), radius});
        return *this;
    }
    // Bars from 0, x their left edges. Of several histograms each takes one part of the bin: `part` of `parts`.
    chart& bars(std::vector<point> bins, double width, int style, int part = 0, int parts = 1,
                std::vector<std::string> titles = {}) {
        const double share = width / parts;
        for (auto& b : bins) b.x += part * share;
        marks_.push_back({kind::bars, std::move(bins), style, "", std::move(titles), share});
        return *this;
    }
    // A thin curve in the colour of text, dashed: what the rest is held against.
    chart& reference(std::vector<point> points) {
        marks_.push_back({kind::reference, std::move(points), 0, "", {}, 0});
        return *this;
    }
    chart& vertical(double x, std::string label) {
        marks_.push_back({kind::vertical, {{x, nothing}}, 0, std::move(label), {}, 0});
        return *this;
    }
    chart& size(double width, double height) {
        width_ = width, height_ = height;
        return *this;
    }

    std::string svg(std::string_view description) const {
        detail::bounds found_x, found_y, faint_y;
        bool ruled = false;
        for (const mark& m : marks_) {
            ruled = ruled || (m.kind == kind::vertical && !m.label.empty());
            for (const point& p : m.points) {
                found_x.add(p.x);
                if (m.kind == kind::bars) found_x.add(p.x + m.size), found_y.add(0);
                (m.kind == kind::faint ? faint_y : found_y).add(p.y);
            }
        }
        if (!(found_y.low <= found_y.high)) found_y = faint_y;
        if (y_.logarithmic)
            found_y.low *= 0.97, found_y.high *= 1.03;
        else if (!y_.from_zero)
            pad(found_y, 0.04);
        const bool dotted =
            std::any_of(marks_.begin(), marks_.end(), [](const mark& m) { return m.kind == kind::dots; });
        const double top = ruled ? 36 : 25, bottom = height_ - 34;
        const scale y = detail::make_scale(y_, found_y, bottom, top);
        const auto y_ticks = y.ticks(std::max(2, static_cast<int>((bottom - top) / 34)));
        const auto y_texts = y_.texts(y_ticks);
        double left = 8;
        for (const auto& t : y_texts) left = std::max(left, detail::text_width(t) + 8);
        double label_width = 0;
        for (const mark& m : marks_)
            if (m.kind == kind::line || m.kind == kind::faint)
                label_width = std::max(label_width, detail::text_width(shown(m.label)));
        const double right = width_ - (label_width > 0 ? label_width + 14 : 10);
        if (dotted && label_width == 0 && !x_.logarithmic && !std::isfinite(x_.low)) pad(found_x, 0.03);
        const scale x = detail::make_scale(x_, found_x, left, right);

        std::string out = "<clipPath id=\"" + id_ + "-c\"><rect" + attribute("x", left - 4) + attribute("y", top - 4) +
                          attribute("width", right - left + 8) + attribute("height", bottom - top + 8) +
                          "/></clipPath>";
        for (std::size_t i = 0; i < y_ticks.size(); ++i) {
            out += svg_line(left, y(y_ticks[i]), right, y(y_ticks[i]), "grid");
            out += svg_text(left - 5, y(y_ticks[i]) + 3.5, y_texts[i], anchor::end);
        }
        out += svg_line(left, bottom, right, bottom, "axis");
        const auto x_ticks = x.ticks(std::max(2, static_cast<int>((right - left) / 55)));
        const auto x_texts = x_.texts(x_ticks);
        for (std::size_t i = 0; i < x_ticks.size(); ++i) {
            const double half = detail::text_width(x_texts[i]) / 2, at = x(x_ticks[i]);
            out += svg_line(at, bottom, at, bottom + 4, "axis");
            out += svg_text(std::min(at, width_ - half), bottom + 15, x_texts[i], anchor::middle);
        }
        out += svg_text((left + right) / 2, height_ - 3, x_.label, anchor::middle, "label");
        out += svg_text(0, 11, y_.label, anchor::start, "label");

        out += "<g clip-path=\"url(#" + id_ + "-c)\">";
        for (const mark& m : marks_) out += drawn(m, x, y);
        out += "</g>";
        for (const mark& m : marks_) {
            if (m.kind != kind::vertical) continue;
            const double at = x(m.points[0].x), half = detail::text_width(m.label) / 2;
            out += svg_line(at, top - 4, at, bottom, "rule");
            out += svg_text(std::clamp(at, half, width_ - half), top - 8, m.label, anchor::middle);
        }
        return svg_drawing(id_, width_, height_, title_, description, out + end_labels(x, y, top, bottom, right));
    }

private:
    enum class kind { line, faint, dots, bars, reference, vertical };
    struct mark {
        chart::kind kind;
        std::vector<point> points;
        int style;
        std::string label;
        std::vector<std::string> titles;
        double size;  // radius of dots, width of bars
    };

    static void pad(detail::bounds& b, double share) {
        const double by = share * (b.high - b.low);
        b.low -= by, b.high += by;
    }
    static std::string shown(const std::string& label) { return shortened(label, 14); }

    // At most 600 points: of each stretch the lowest and the highest, so that peaks stay.
    static std::vector<point> thinned(std::vector<point> points) {
        constexpr std::size_t most = 600;
        if (points.size() <= most) return points;
        std::vector<point> out;
        for (std::size_t n = 0; n < most / 2; ++n) {
            const auto first = points.begin() + static_cast<std::ptrdiff_t>(n * points.size() / (most / 2)),
                       last = points.begin() + static_cast<std::ptrdiff_t>((n + 1) * points.size() / (most / 2));
            auto [low, high] =
                std::minmax_element(first, last, [](const point& a, const point& b) { return a.y < b.y; });
            if (low > high) std::swap(low, high);
            out.push_back(*low);
            if (high != low) out.push_back(*high);
        }
        return out;
    }
    static std::string path(const std::vector<point>& points, const scale& x, const scale& y) {
        std::string d;
        bool pen = false;  // a value that is missing lifts it
        for (const point& p : points) {
            if (std::isfinite(p.x) && std::isfinite(p.y))
                d += (pen ? "L" : "M") + coordinate(x(p.x)) + " " + coordinate(y(p.y));
            pen = std::isfinite(p.x) && std::isfinite(p.y);
        }
        return d;
    }
    static std::string drawn(const mark& m, const scale& x, const scale& y) {
        const auto title = [&](std::size_t i) {
            return i < m.titles.size() ? std::string_view(m.titles[i]) : std::string_view();
        };
        const auto curve = [&](const std::string& css) {
            return "<path class=\"" + css + "\" d=\"" + path(m.points, x, y) + "\"/>";
        };
        std::string out;
        switch (m.kind) {
            case kind::line: return curve("line " + style_class(m.style));
            case kind::faint: return curve("line faint " + style_class(m.style));
            case kind::reference: return curve("reference");
            case kind::dots:
                for (std::size_t i = 0; i < m.points.size(); ++i)
                    if (std::isfinite(m.points[i].y))
                        out += marker(x(m.points[i].x), y(m.points[i].y), m.style, m.size, "dot", title(i));
                return out;
            case kind::bars:
                for (std::size_t i = 0; i < m.points.size(); ++i) {
                    const double left = x(m.points[i].x), right = x(m.points[i].x + m.size), up = y(m.points[i].y);
                    const double inset = right - left > 4 ? 0.5 : 0;
                    if (m.points[i].y != 0)
                        out += svg_rect(left + inset, up, right - left - 2 * inset, y(0) - up,
                                        "bar " + style_class(m.style), title(i));
                }
                return out;
            case kind::vertical: return out;
        }
        return out;
    }
    std::string end_labels(const scale& x, const scale& y, double top, double bottom, double right) const {
        std::vector<const mark*> labelled;
        std::vector<double> wanted;
        for (const mark& m : marks_) {
            const auto last =
                std::find_if(m.points.rbegin(), m.points.rend(), [](const point& p) { return std::isfinite(p.y); });
            if (m.label.empty() || last == m.points.rend() || (m.kind != kind::line && m.kind != kind::faint)) continue;
            labelled.push_back(&m);
            wanted.push_back(std::clamp(y(last->y), top, bottom));
        }
        std::vector<double> placed = wanted;
        detail::spread(placed, 12.5, top + 2, bottom);
        std::string out;
        for (std::size_t i = 0; i < labelled.size(); ++i) {
            const auto& points = labelled[i]->points;
            const double end = std::min(x(points.back().x), right);
            out += "<path class=\"leader " + style_class(labelled[i]->style) + "\" d=\"M" + coordinate(end + 3) + " " +
                   coordinate(wanted[i]) + "L" + coordinate(right + 9) + " " + coordinate(placed[i]) + "\"/>";
            out += svg_text(right + 12, placed[i] + 3.5, shown(labelled[i]->label));
        }
        return out;
    }

    std::string id_, title_;
    axis x_, y_;
    double width_ = 360, height_ = 220;
    std::vector<mark> marks_;
};

// ---- rows

// One line of text, and under it what belongs to it on a common horizontal axis.
struct chart_row {
    enum class shape { bar, outline, interval };
    // One bar or dot of a row.
    struct mark {
        chart_row::shape shape;
        double low, high;  // bar, outline: from low to high; interval: its ends
        double value;  // of an interval: a marker
        int style;
        std::string title;
    };
    std::string label, value;  // left and right
    std::vector<mark> marks;
    bool strong = false;  // set apart: a total, a mean
};

// One row per entry along a common axis.
inline std::string row_chart(const std::string& id, const std::string& title, const axis& x,
                             const std::vector<chart_row>& rows, std::string_view description, double width = 360) {
    detail::bounds found;
    for (const auto& r : rows)
        for (const auto& m : r.marks) found.add(m.low), found.add(m.high), found.add(m.value);
    const double pitch = 31, top = 4, bottom = top + pitch * static_cast<double>(rows.size()), left = 6,
                 right = width - 8;
    if (!x.from_zero && found.high > found.low) {
        const double by = 0.04 * (found.high - found.low);
        found.low -= by, found.high += by;
    }
    const scale at = detail::make_scale(x, found, left, right);
    const auto ticks = at.ticks(5);
    const auto texts = x.texts(ticks);
    std::string out;
    for (std::size_t i = 0; i < ticks.size(); ++i) {
        const double half = detail::text_width(texts[i]) / 2;
        out += svg_line(at(ticks[i]), top, at(ticks[i]), bottom, ticks[i] == 0 ? "axis" : "grid");
        out += svg_text(std::clamp(at(ticks[i]), half, width - half), bottom + 14, texts[i], anchor::middle);
    }
    out += svg_text(width / 2, bottom + 29, x.label, anchor::middle, "label");
    double y = top;
    for (const auto& r : rows) {
        const std::string css = r.strong ? "strong halo" : "halo";
        const auto room = static_cast<std::size_t>((width - detail::text_width(r.value) - 16) / detail::character);
        out += svg_text(0, y + 11, shortened(r.label, room), anchor::start, css) +
               svg_text(width, y + 11, r.value, anchor::end, css);
        for (const auto& m : r.marks) {
            const double from = at(m.low), to = at(m.high), middle = y + 21;
            if (m.shape == chart_row::shape::bar)
                out += svg_rect(from, middle - 5, to - from, 10, "bar " + style_class(m.style), m.title);
            if (m.shape == chart_row::shape::outline)
                out += svg_rect(from, middle - 5, to - from, 10, "outline " + style_class(m.style), m.title);
            if (m.shape == chart_row::shape::interval) {
                for (double end : {from, to})
                    if (to > from)
                        out += svg_line(end, middle - 4, end, middle + 4, "line " + style_class(m.style) + " solid");
                if (to > from) out += svg_line(from, middle, to, middle, "line " + style_class(m.style) + " solid");
                out += marker(at(m.value), middle, m.style, r.strong ? 4.5 : 3.5, "dot", m.title);
            }
        }
        y += pitch;
    }
    return svg_drawing(id, width, bottom + 34, title, description, out);
}

// ---- heat maps

// values[row][column] in [0, 1]: rows named at the left, columns by a few labels below.
struct heat_map {
    std::string id, title, column_label;
    std::vector<std::string> rows;
    std::vector<std::string> columns;
    std::vector<std::vector<double>> values;
    double width = 360;

    std::string svg(std::string_view description) const {
        double left = 8;
        for (const auto& r : rows) left = std::max(left, detail::text_width(r) + 8);
        const double height = std::clamp(190.0 / static_cast<double>(std::max<std::size_t>(rows.size(), 1)), 5.0, 18.0),
                     top = 4;
        const double bottom = top + height * static_cast<double>(rows.size());
        const double cell = (width - left - 4) / static_cast<double>(std::max<std::size_t>(columns.size(), 1));
        const auto every =
            std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(12.5 / height)));  // rows that fit a name
        std::string out;
        for (std::size_t r = 0; r < rows.size(); ++r) {
            const double y = top + height * static_cast<double>(r);
            if (r % every == 0) out += svg_text(left - 5, y + height / 2 + 3.5, rows[r], anchor::end);
            for (std::size_t c = 0; c < columns.size() && c < values[r].size(); ++c) {
                if (!std::isfinite(values[r][c])) continue;
                const long step = std::lround(9 * std::clamp(values[r][c], 0.0, 1.0));
                out += svg_rect(left + cell * static_cast<double>(c), y, cell + 0.3, height - (height > 8 ? 1 : 0),
                                "h" + std::to_string(step), rows[r] + ", " + columns[c] + ": " + percent(values[r][c]));
            }
        }
        double free_from = left - 10;
        for (std::size_t c = 0; c < columns.size(); ++c) {
            const double middle = left + cell * (static_cast<double>(c) + 0.5),
                         half = detail::text_width(columns[c]) / 2;
            if (middle - half < free_from || middle + half > width) continue;
            out += svg_text(middle, bottom + 14, columns[c], anchor::middle);
            free_from = middle + half + 24;
        }
        out += svg_text((left + width) / 2, bottom + 29, column_label, anchor::middle, "label");
        return svg_drawing(id, width, bottom + 34, title, description, out);
    }
};

}  // namespace spectral::report
