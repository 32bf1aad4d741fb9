// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/page.hpp: one self-contained page of figures: drawings, what they show in words, numbers in
// tables
//
// No scripts, no network. Light and dark by the reader's setting, one column on a telephone. The page is well-formed
// XML after its first line. Every table is also a CSV file (write_csv); on paper small ones are opened and large ones
// left out.
#pragma once
#include <spectral/io/atomic_file.hpp>
#include <spectral/report/svg.hpp>

#include <filesystem>
#include <variant>

namespace spectral::report {

// A cell is text or a number; numbers are short on the page and whole in CSV.
using cell = std::variant<std::string, double>;
struct data_table {
    std::vector<std::string> columns;
    std::vector<std::vector<cell>> rows;
    void add(std::vector<cell> row) { rows.push_back(std::move(row)); }
};

// RFC 4180; a missing number is an empty field.
inline std::string csv(const data_table& t) {
    const auto field = [](const cell& c) -> std::string {
        if (const double* v = std::get_if<double>(&c)) {
            char text[48];
            std::snprintf(text, sizeof text, "%.10g", *v);
            return std::isfinite(*v) ? text : "";
        }
        const auto& text = std::get<std::string>(c);
        if (text.find_first_of(",\"\n\r") == text.npos) return text;
        std::string out = "\"";
        for (char ch : text) out += ch == '"' ? "\"\"" : std::string(1, ch);
        return out + "\"";
    };
    std::string out;
    const auto line = [&](const auto& cells) {
        for (std::size_t i = 0; i < cells.size(); ++i) out += (i ? "," : "") + field(cells[i]);
        out += "\r\n";
    };
    line(t.columns);
    for (const auto& r : t.rows) line(r);
    return out;
}

// A line of a legend.
struct legend_entry {
    std::string css;  // of its swatch: "bar s0", "reference", "dot s1"
    std::string text;
};

// A figure of a page with its table.
struct figure {
    std::string id;  // of the page and the CSV file
    std::string title, caption = "";
    std::vector<legend_entry> legend = {};
    std::vector<std::pair<std::string, std::string>> panels = {};  // heading (may be empty), SVG or other markup
    data_table table = {};  // every number that is drawn
    data_table shown = {};  // the same arranged for the page, where that reads better; CSV keeps `table`
    data_table summary = {};  // what follows from them: means, correlations, ends of curves
    bool wide = false;  // takes a whole row of the page
    const char* layout = "panels";  // "panels small": many small ones; "panels pairs": two in a row
    bool open_table = false;  // without asking
};

// The style sheet of every page, for light, dark, narrow and paper.
inline constexpr const char* page_style = R"(
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--faint:#d8dee4;--paper:#fff;--panel:#f6f8fa;--link:#0757a8;
--c0:#0b6bb3;--c1:#c8540a;--c2:#00805c;--c3:#a64d88;--c4:#8a6d00;--c5:#2f9bd0;--c6:#5b5b5b;
--a1:#f6d9b8;--a2:#eeb274;--a3:#de8531;--a4:#b65c0a;--d1:#d5e6f5;--d2:#a9cdeb;--d3:#69a7da;--d4:#2577b5;
--h0:#f0f4f8;--h1:#dfeaf4;--h2:#c8dcee;--h3:#acccea;--h4:#8db9e0;--h5:#6ca3d4;--h6:#4b8cc5;--h7:#3073b0;--h8:#1d5a94;--h9:#0f4274}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9da7b1;--faint:#343b43;--paper:#15181c;--panel:#1d2126;--link:#7cbcff;
--c0:#58aef2;--c1:#ff9352;--c2:#3fcfa0;--c3:#e592c6;--c4:#e3c04b;--c5:#a3d8f7;--c6:#b4b4b4;
--a1:#4a3520;--a2:#7a4f22;--a3:#b8722a;--a4:#f29a48;--d1:#1d3347;--d2:#27506f;--d3:#3a7fae;--d4:#6bbcf5;
--h0:#1f262e;--h1:#22303d;--h2:#263c50;--h3:#2b4a66;--h4:#31597e;--h5:#396a97;--h6:#447db1;--h7:#5393cb;--h8:#6baee3;--h9:#93caf7}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main,header,footer{max-width:74rem;margin:0 auto;padding:0 1rem}
header{padding-top:2rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:2.6rem 0 .2rem;padding-top:.9rem;border-top:1px solid var(--faint)}
h3{font-size:1rem;margin:0 0 .1rem}
h4{font-size:.8125rem;font-weight:600;margin:.2rem 0;color:var(--soft);overflow-wrap:anywhere}
p{margin:.2rem 0 .6rem;max-width:46rem}
.about,figcaption,footer{color:var(--soft)}
figcaption p,.about{font-size:.875rem;line-height:1.45}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1rem;padding:0;margin:.6rem 0 0;font-size:.875rem}
a{color:var(--link);text-underline-offset:.15em}
.figures,.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1.6rem 2rem;align-items:start}
.panels{gap:.8rem 2rem}
.pairs{grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),27rem));column-gap:3rem}
.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr));gap:.6rem 1.2rem}
.figures{margin-top:1rem}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
svg{display:block;width:100%;max-width:27rem;height:auto;overflow:visible;border-radius:2px}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}
svg .label{fill:var(--soft)}
svg .strong{font-weight:600;fill:var(--ink)}
svg .halo{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.grid{stroke:var(--faint);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1}
.rule{stroke:var(--ink);stroke-width:1.25}
.reference{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:4 2.5}
.s0{--c:var(--c0)}.s1{--c:var(--c1)}.s2{--c:var(--c2)}.s3{--c:var(--c3)}.s4{--c:var(--c4)}.s5{--c:var(--c5)}.s6{--c:var(--c6)}
.line{fill:none;stroke:var(--c);stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}
.line.s1{stroke-dasharray:7 3.5}.line.s2{stroke-dasharray:2 3.2}.line.s3{stroke-dasharray:9 3.5 2 3.5}.line.s4{stroke-dasharray:4 3}
.line.s5{stroke-dasharray:12 4}.line.s6{stroke-dasharray:1 3.5}
.line.solid,.line.faint{stroke-dasharray:none}
.line.faint{stroke-width:1;opacity:.55}
.leader{fill:none;stroke:var(--c);stroke-width:1.2}
.dot{fill:var(--c);stroke:var(--paper);stroke-width:.75}
.bar{fill:var(--c);fill-opacity:.82}
.outline{fill:none;stroke:var(--c);stroke-width:1.2}
.h0{fill:var(--h0)}.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}
.h5{fill:var(--h5)}.h6{fill:var(--h6)}.h7{fill:var(--h7)}.h8{fill:var(--h8)}.h9{fill:var(--h9)}
.a1{fill:var(--a1)}.a2{fill:var(--a2)}.a3{fill:var(--a3)}.a4{fill:var(--a4)}.d1{fill:var(--d1)}.d2{fill:var(--d2)}.d3{fill:var(--d3)}.d4{fill:var(--d4)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;padding:0;margin:.1rem 0 .4rem;font-size:.8125rem;color:var(--soft)}
.legend svg{display:inline-block;width:1.5rem;height:.75rem;margin-right:.35rem;vertical-align:-.05rem}
.tokens{line-height:1;margin:.5rem 0 .8rem}
.token{display:inline-block;vertical-align:top;margin:0 0 .7rem;font:.8125rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;text-align:center;white-space:pre}
.token svg{width:0;min-width:100%;max-width:none;border-radius:0;height:var(--h)}
details{margin:.3rem 0 0;font-size:.8125rem}
details+details{margin-top:0}
summary{cursor:pointer;color:var(--link);width:max-content;max-width:100%}
.scroll{overflow:auto;max-height:22rem;margin:.3rem 0;border:1px solid var(--faint);border-radius:4px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.8125rem;min-width:100%}
caption{text-align:left;color:var(--soft);padding:.3rem .6rem}
th,td{padding:.18rem .6rem;text-align:right;white-space:nowrap}
th{font-weight:600;background:var(--panel);position:sticky;top:0}
tbody tr+tr td{border-top:1px solid var(--faint)}
.words{text-align:left}
footer{padding:2.5rem 1rem 3rem;font-size:.8125rem}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media print{
:root{--ink:#000;--soft:#333;--faint:#ccc;--paper:#fff;--panel:#f2f2f2;--link:#000;--c0:#0b6bb3;--c1:#c8540a;--c2:#00805c;--c3:#a64d88;
--c4:#8a6d00;--c5:#2f9bd0;--c6:#5b5b5b;--a1:#f6d9b8;--a2:#eeb274;--a3:#de8531;--a4:#b65c0a;--d1:#d5e6f5;--d2:#a9cdeb;--d3:#69a7da;--d4:#2577b5;
--h0:#f0f4f8;--h1:#dfeaf4;--h2:#c8dcee;--h3:#acccea;--h4:#8db9e0;--h5:#6ca3d4;--h6:#4b8cc5;--h7:#3073b0;--h8:#1d5a94;--h9:#0f4274;color-scheme:light}
body{font-size:10pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
main,header,footer{max-width:none;padding:0}
nav{display:none}
.figures,.panels{grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem 1.4rem}
.panels.small{grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.4rem 1rem}
svg,h2,h3,figcaption,.panels>div,tr,.token{break-inside:avoid}
h2,h3,h4,h2+.about,figcaption,summary{break-after:avoid}
details{break-before:avoid}
.scroll{overflow:visible;max-height:none;border:0}
table{font-size:7pt;min-width:0;max-width:100%}
th,td{padding:.05rem .3rem}
th{position:static;vertical-align:bottom}
th,.words{white-space:normal}
details:not(.large)::details-content{display:block;content-visibility:visible;height:auto}
details.large .scroll{display:none}
details.large summary::after{content:" \2013  on the screen and in the CSV file"}
summary{list-style:none;color:#333}
footer{padding:.6rem 0 0;break-before:avoid}
}
)";

//   page p("WikiText-2", "what it is about");   p.section("Training", "");   p.add(figure);   write(p.html());
class page {
public:
    page(std::string title, std::string about) : title_(std::move(title)), about_(std::move(about)) {}

    // Figures that follow belong to it; a section without figures is left out.
    void section(std::string title, std::string about) {
        sections_.push_back({std::move(title), std::move(about), {}});
    }
    void add(figure f) {
        if (f.panels.empty()) return;
        check(!sections_.empty(), "report::page", "expected a section before the first figure");
        sections_.back().figures.push_back(std::move(f));
    }
    template <class F>
    void for_each_figure(F&& f) const {
        for (const auto& s : sections_)
            for (const auto& fig : s.figures) f(fig);
    }

    std::string html() const {
        std::string out =
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"/>\n"
            "<meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n<title>" +
            escaped(title_) + "</title>\n<style>" + page_style + "</style>\n</head>\n<body>\n<header>\n<h1>" +
            escaped(title_) + "</h1>\n<p class=\"about\">" + escaped(about_) + "</p>\n" + contents() +
            "</header>\n<main>\n";
        for (const auto& s : sections_) {
            if (s.figures.empty()) continue;
            out += "<section>\n<h2>" + escaped(s.title) + "</h2>\n";
            if (!s.about.empty()) out += "<p class=\"about\">" + escaped(s.about) + "</p>\n";
            out += "<div class=\"figures\">\n";
            for (const auto& f : s.figures) out += markup(f);
            out += "</div>\n</section>\n";
        }
        return out +
               "</main>\n<footer>Made by spectral report. Numbers under each figure; the same as files with --csv.</footer>\n"
               "</body>\n</html>\n";
    }

    // FIGURE.csv for every figure's table, FIGURE-summary.csv where it has one
    void write_csv(const std::filesystem::path& directory) const {
        std::filesystem::create_directories(directory);
        for_each_figure([&](const figure& f) {
            if (!f.table.columns.empty()) write_file_atomically(directory / (f.id + ".csv"), csv(f.table));
            if (!f.summary.rows.empty()) write_file_atomically(directory / (f.id + "-summary.csv"), csv(f.summary));
        });
    }

private:
    struct part {
        std::string title, about;
        std::vector<figure> figures;
    };

    std::string contents() const {
        std::string out = "<nav aria-label=\"Figures\"><ul>";
        for_each_figure(
            [&](const figure& f) { out += "<li><a href=\"#" + f.id + "\">" + escaped(f.title) + "</a></li>"; });
        return out + "</ul></nav>\n";
    }
    static std::string markup(const figure& f) {
        std::string out = "<figure id=\"" + f.id + "\"" + (f.wide ? " class=\"wide\"" : "") + ">\n<figcaption><h3>" +
                          escaped(f.title) + "</h3>" + (f.caption.empty() ? "" : "<p>" + escaped(f.caption) + "</p>");
        if (!f.legend.empty()) {
            out += "<ul class=\"legend\">";
            for (const auto& e : f.legend) out += "<li>" + swatch(e.css) + escaped(e.text) + "</li>";
            out += "</ul>";
        }
        out += "</figcaption>\n";
        if (f.panels.size() > 1) out += "<div class=\"" + std::string(f.layout) + "\">\n";
        for (const auto& [heading, drawing] : f.panels)
            out += (heading.empty() ? "<div>" : "<div><h4>" + escaped(heading) + "</h4>") + drawing + "</div>\n";
        if (f.panels.size() > 1) out += "</div>\n";
        return out + table(f, "Summary", f.summary) + table(f, "Numbers", f.shown.columns.empty() ? f.table : f.shown) +
               "</figure>\n";
    }
    static std::string swatch(const std::string& css) {
        const auto has = [&](const char* word) { return css.find(word) != css.npos; };
        const std::string c = " class=\"" + css + "\"";
        const std::string inside = (has("line") && !has("outline")) || has("reference")
                                       ? "<path" + c + " d=\"M1 6H23\"/>"
                                   : has("rule") ? "<path" + c + " d=\"M12 0V12\"/>"
                                   : has("dot")  ? marker(12, 6, css.back() - '0', 4, "dot", "")
                                                 : "<rect" + c + " x=\"3\" y=\"1\" width=\"18\" height=\"10\"/>";
        return "<svg aria-hidden=\"true\" viewBox=\"0 0 24 12\">" + inside + "</svg>";
    }
    // A folded table with all rows: up to 4,000, as a page must stay one that opens; of more, every nth and the last.
    static std::string table(const figure& f, const std::string& name, const data_table& t) {
        if (t.rows.empty()) return "";
        constexpr std::size_t on_page = 4000, on_paper = 64;
        const int digits = t.columns.size() > 14 ? 3 : 5;  // what fits on paper
        const std::size_t rows = t.rows.size(), every = (rows + on_page - 1) / on_page;
        std::string count = rows > on_paper ? std::to_string(rows) + " rows" : "";
        if (every > 1) count = "one row in " + std::to_string(every) + " of " + std::to_string(rows);
        std::string out =
            std::string("<details") + (rows > on_paper || t.columns.size() > 16 ? " class=\"large\"" : "") +
            (f.open_table ? " open=\"open\"" : "") + "><summary>" + name + (count.empty() ? "" : " (" + count + ")") +
            "</summary><div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"" + name +
            " of: " + escaped(f.title) + "\"><table><thead><tr>";
        std::vector<bool> words(t.columns.size(), false);
        for (const auto& r : t.rows)
            for (std::size_t c = 0; c < r.size(); ++c)
                if (std::holds_alternative<std::string>(r[c])) words[c] = true;
        const auto css = [&](std::size_t c) { return words[c] ? " class=\"words\"" : ""; };
        for (std::size_t c = 0; c < t.columns.size(); ++c)
            out += "<th scope=\"col\"" + std::string(css(c)) + ">" + escaped(t.columns[c]) + "</th>";
        out += "</tr></thead><tbody>\n";
        for (std::size_t r = 0; r < rows; ++r) {
            if (every > 1 && r % every != 0 && r + 1 != rows) continue;
            out += "<tr>";
            for (std::size_t c = 0; c < t.rows[r].size(); ++c) {
                const double* v = std::get_if<double>(&t.rows[r][c]);
                out += "<td" + std::string(css(c)) + ">" +
                       escaped(v ? short_value(*v, digits) : std::get<std::string>(t.rows[r][c])) + "</td>";
            }
            out += "</tr>\n";
        }
        return out + "</tbody></table></div></details>\n";
    }

    std::string title_, about_;
    std::vector<part> sections_;
};

}  // namespace spectral::report
