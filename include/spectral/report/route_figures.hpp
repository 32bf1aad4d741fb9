// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/route_figures.hpp: where each token of a text went, layer by layer (what route --json prints)
//
// The text flows as text does; under each token stands a column of cells, the first routed layer on top. Attention
// fills its cell, every other operator draws a bar of half the height, so that the two are told apart without colour.
#pragma once
#include <spectral/report/chart.hpp>
#include <spectral/report/sources.hpp>

namespace spectral::report {

namespace detail {
struct route_layer {
    std::string name;
    std::vector<double> op, entropy;
    double middle = nothing, spread = 1;  // threshold or median; distance that counts as far
};

inline std::vector<route_layer> route_layers(const json& route, std::size_t tokens) {
    std::vector<route_layer> out;
    for (const auto& [name, j] : route["layers"].items()) {
        route_layer l{.name = name, .op = numbers_of(member(j, "op")), .entropy = numbers_of(member(j, "entropy"))};
        check(l.op.size() == tokens, "route", "layer ", name, ": expected the operators of ", tokens, " tokens, found ",
              l.op.size());
        l.entropy.resize(l.entropy.empty() ? 0 : tokens, nothing);
        const auto thresholds = numbers_of(member(member(member(route, "entropy_router"), "thresholds"), name));
        std::vector<double> sorted;
        for (double h : l.entropy)
            if (std::isfinite(h)) sorted.push_back(h);
        std::sort(sorted.begin(), sorted.end());
        if (!sorted.empty()) {
            const auto at = [&](double q) {
                return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
            };
            l.middle = thresholds.empty() ? at(0.5) : thresholds.back();
            l.spread = std::max({at(0.9) - l.middle, l.middle - at(0.1), 1e-9});
        }
        out.push_back(std::move(l));
    }
    return out;
}
}  // namespace detail

// Routes and entropies of one text, token by token and layer by layer.
inline figure route_figure(const run_record& r, std::size_t number) {
    figure f{.id = "routing-" + std::to_string(number), .title = "Routing of a text: " + r.name, .wide = true};
    const auto& tokens = r.route["tokens"];
    const std::size_t n = tokens.size();
    auto layers = detail::route_layers(r.route, n);
    std::vector<std::string> operators;
    for (const auto& name : member(r.route, "operators"))
        if (name.is_string()) operators.push_back(name.get<std::string>());
    const auto operator_name = [&](double op) {
        return op >= 0 && op < static_cast<double>(operators.size()) ? operators[static_cast<std::size_t>(op)]
                                                                     : short_value(op);
    };
    const double last = static_cast<double>(operators.size()) - 1;
    f.caption =
        "Under each token one cell a routed layer, the first on top; stronger colour: further from the threshold (or the median). Hover for entropies.";
    f.legend = {{"a3", "attention (full cell)"},
                {"d3", (operators.empty() ? "dct" : operators.front()) + " (half a cell)"}};
    f.table.columns = {"position", "token"};
    std::string words;
    for (const auto& l : layers) {
        f.table.columns.insert(f.table.columns.end(),
                               {"layer " + l.name + " entropy", "layer " + l.name + " operator"});
        const auto there = std::count(l.op.begin(), l.op.end(), last);
        words += "Layer " + l.name + " sends " + std::to_string(there) + " of " + std::to_string(n) +
                 " tokens to attention (" + percent(static_cast<double>(there) / static_cast<double>(n), 0) + "). ";
    }
    f.caption += " " + words;
    const double side = layers.size() > 8 ? 5 : 8, pitch = side + 1,
                 height = pitch * static_cast<double>(layers.size());
    std::string out = "<div class=\"tokens\" style=\"--h:" + coordinate(height) +
                      "px\" role=\"group\" tabindex=\"0\" aria-label=\"" + escaped(f.title + ". " + words) + "\">";
    for (std::size_t i = 0; i < n; ++i) {
        const std::string piece = tokens[i].is_string() ? tokens[i].get<std::string>() : "";
        std::string shown, title;
        for (char c : piece) shown += c == '\n' ? "\u21B5" : c == '\t' ? "\u21E5" : std::string(1, c);
        std::vector<cell> line{static_cast<double>(i), piece};
        std::string cells;
        for (std::size_t l = 0; l < layers.size(); ++l) {
            const auto& layer = layers[l];
            const double h = layer.entropy.empty() ? nothing : layer.entropy[i];
            const bool attends = layer.op[i] == last;
            const double far = std::isfinite(h) ? std::abs(h - layer.middle) / layer.spread : 0.6;
            const int shade = 1 + std::min(3, static_cast<int>(far * 3));
            const std::string about = "layer " + layer.name + ": " + operator_name(layer.op[i]) +
                                      (std::isfinite(h) ? ", entropy " + short_value(h) : "");
            title += "; " + about;
            const double y = pitch * static_cast<double>(l);
            cells += svg_rect(0, attends ? y : y + side / 4, 100, attends ? side : side / 2,
                              (attends ? "a" : "d") + std::to_string(shade), piece + ": " + about);
            line.insert(line.end(), {h, operator_name(layer.op[i])});
        }
        f.table.add(std::move(line));
        out += "<span class=\"token\">" + escaped(shown.empty() ? "\u00A0" : shown) +
               "<svg role=\"img\" aria-label=\"" + escaped(piece + title) + "\" viewBox=\"0 0 100 " +
               coordinate(height) + "\" preserveAspectRatio=\"none\">" + cells + "</svg></span>";
        if (piece.find('\n') != piece.npos) out += "<br/>";
    }
    f.panels.push_back({"", out + "</div>"});
    return f;
}

// A figure for every route record of the runs.
inline void add_route_figures(page& p, const std::vector<run_record>& runs) {
    p.section("Routing of a text", "");
    std::size_t number = 0;
    for (const auto& r : runs)
        if (!r.route.is_null()) p.add(route_figure(r, ++number));
}

}  // namespace spectral::report
