// SPDX-License-Identifier: Apache-2.0
// tests/cli/report_test.cpp: `spectral report`, and its pages in a browser without a window (skipped where there is
// none)
#include "cli/program.hpp"
#include "support/report_runs.hpp"
#include "support/xml.hpp"

namespace spectral::test {
namespace {

std::filesystem::path gallery() { return std::filesystem::path(SPECTRAL_TEST_DATA) / "../docs/gallery"; }

const char* const browser_line =
    "for b in chromium chromium-browser google-chrome; do command -v $b > /dev/null && exec $b --headless --no-sandbox --disable-gpu "
    "--disable-background-networking --disable-component-update --disable-sync --disable-default-apps --no-first-run --enable-logging=stderr ";

bool has_browser() {
    return run_shell("command -v chromium || command -v chromium-browser || command -v google-chrome").code == 0;
}

// The page's DOM once it is loaded; stderr has the console.
outcome browse(const std::filesystem::path& dir, const std::string& options, const std::string& page) {
    return run_shell("export HOME=" + quoted(dir) + "; " + browser_line + "--user-data-dir=" + quoted(dir / "profile") +
                     " " + options + " " + quoted("file://" + page) + "; done");
}

// In each of the layouts: every figure's drawings, texts that cover each other, what sticks out at the right, and the least
// contrast of words and of marks; into <pre id="measured">. Widths are set on the body, for a window would not get as
// narrow; paper is the print style sheet at the width of a page.
const char* const measure = R"(<script>
const light = c => {
  const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const rgb = text => (text.match(/[\d.]+/g) || []).map(Number);
function contrast(color, opacity, ground) {
  const [p, q] = [light(color.slice(0, 3).map((v, i) => opacity * v + (1 - opacity) * ground[i])), light(ground)];
  return (Math.max(p, q) + 0.05) / (Math.min(p, q) + 0.05);
}
function least(out, kind, element, color, opacity, ground) {
  const c = contrast(rgb(color), opacity, ground);
  if (!(c >= out[kind].value)) out[kind] = {value: c, of: element.outerHTML.slice(0, 120)};
}
function look(layout) {
  const paper = layout.name == 'paper', ground = rgb(getComputedStyle(document.body).backgroundColor);
  document.body.style.width = layout.width + 'px';
  const out = {name: layout.name, width: layout.width, scroll: document.body.scrollWidth, ground: ground, figures: {}, overlaps: [],
               words: {value: 99}, marks: {value: 99}, hidden: 0};
  for (const f of document.querySelectorAll('figure')) {
    const svgs = [...f.querySelectorAll('svg[role=img]')];
    const drawn = s => s.getBoundingClientRect().width > 20 && s.querySelector('path,rect,circle,line') || s.closest('.token');
    out.figures[f.id] = svgs.length && svgs.every(drawn) ? svgs.length : 0;
    for (const s of svgs) {
      const texts = [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
      for (let i = 0; i < texts.length; ++i) for (let j = i + 1; j < texts.length; ++j) {
        const [a, p] = texts[i], [b, q] = texts[j];
        const w = Math.min(p.right, q.right) - Math.max(p.left, q.left), h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (w > 1 && h > 0.3 * Math.min(p.height, q.height)) out.overlaps.push(f.id + ': ' + a + ' | ' + b);
      }
    }
    for (const d of f.querySelectorAll('details'))   // on paper all but the large tables are open
      if (paper && !d.classList.contains('large') && d.querySelector('table').getBoundingClientRect().height < 10) ++out.hidden;
  }
  for (const e of document.querySelectorAll('h1,h2,h3,h4,p,a,li,summary,td')) least(out, 'words', e, getComputedStyle(e).color, 1, ground);
  for (const e of document.querySelectorAll('th')) least(out, 'words', e, getComputedStyle(e).color, 1, rgb(getComputedStyle(e).backgroundColor));
  for (const e of document.querySelectorAll('svg text')) least(out, 'words', e, getComputedStyle(e).fill, 1, ground);
  for (const e of document.querySelectorAll('.line,.reference,.rule,.axis,.outline')) least(out, 'marks', e, getComputedStyle(e).stroke, 1, ground);
  for (const e of document.querySelectorAll('.dot,.bar')) least(out, 'marks', e, getComputedStyle(e).fill, Number(getComputedStyle(e).fillOpacity), ground);
  return out;
}
addEventListener('load', () => {
  const seen = {dark: matchMedia('(prefers-color-scheme: dark)').matches, requests: performance.getEntriesByType('resource').map(r => r.name),
                layouts: [{name: 'phone', width: 360}, {name: 'tablet', width: 700}, {name: 'desk', width: 1200}].map(look)};
  for (const sheet of document.styleSheets) for (const rule of sheet.cssRules)
    if (rule instanceof CSSMediaRule && rule.media.mediaText == 'print') rule.media.mediaText = 'all';
  seen.layouts.push(look({name: 'paper', width: 718}));
  const pre = document.createElement('pre');
  pre.id = 'measured';
  pre.textContent = JSON.stringify(seen);
  document.body.append(pre);
});
</script>)";

// What the script above found.
nlohmann::json measured(const std::string& dom) {
    const auto from = dom.find("<pre id=\"measured\">");
    REQUIRE(from != dom.npos);
    std::string text = dom.substr(from + 19, dom.find("</pre>", from) - from - 19);
    for (const auto& [entity, c] : {std::pair{"&lt;", "<"}, std::pair{"&gt;", ">"}, std::pair{"&amp;", "&"}})
        for (std::size_t at = text.find(entity); at != text.npos; at = text.find(entity, at + 1))
            text.replace(at, std::string(entity).size(), c);
    return nlohmann::json::parse(text);
}

// id and title of every figure of a page
std::vector<std::pair<std::string, std::string>> figures_of(const std::string& html) {
    std::vector<std::pair<std::string, std::string>> out;
    for (auto at = html.find("<figure id=\""); at != html.npos; at = html.find("<figure id=\"", at + 1)) {
        const auto id = at + 12, title = html.find("<h3>", at) + 4;
        out.push_back(
            {html.substr(id, html.find('"', id) - id), html.substr(title, html.find("</h3>", title) - title)});
    }
    return out;
}

// The page as it is, measured in light and dark, and printed.
void check_in_browser(const temporary_dir& dir, const std::filesystem::path& path) {
    std::string page = read_text_file(path);
    const auto figures = figures_of(page);
    CHECK(!figures.empty());
    // as it is, its policy in force: a request or a script would be a message on the console
    const auto plain = browse(dir / "", "--dump-dom", path.string());
    REQUIRE(plain.code == 0);
    CHECK(plain.err.find("CONSOLE") == plain.err.npos);
    CHECK(plain.out.find("</html>") != plain.out.npos);

    // on paper: a page or more, and every figure's heading in the outline
    std::filesystem::remove(dir / "paper.pdf");
    const auto printed = browse(
        dir / "", "--generate-pdf-document-outline --no-pdf-header-footer --print-to-pdf=" + quoted(dir / "paper.pdf"),
        path.string());
    REQUIRE(printed.code == 0);
    const std::string pdf = read_text_file(dir / "paper.pdf");
    CHECK(pdf.starts_with("%PDF"));
    CHECK(pdf.find("/Type /Page\n") != pdf.npos);
    for (const auto& [id, title] : figures) {
        INFO(id);
        const auto plain_letters = title.find_first_of("&(\\");  // the rest is written in other ways there
        CHECK(pdf.find("/Title (" + title.substr(0, plain_letters)) != pdf.npos);
    }

    // without the policy, and with a script that measures
    const auto policy = page.find("<meta http-equiv=\"Content-Security-Policy\"");
    REQUIRE(policy != page.npos);
    page.erase(policy, page.find('\n', policy) - policy);
    page.replace(page.find("</body>"), 7, std::string(measure) + "</body>");
    write_text(dir / "measured.html", page);
    for (const bool dark : {false, true}) {
        const auto seen =
            browse(dir / "",
                   std::string("--dump-dom --window-size=1300,900 --blink-settings=preferredColorScheme=") +
                       (dark ? "0" : "1"),
                   (dir / "measured.html").string());
        const auto got = measured(seen.out);
        CHECK(got["dark"] == dark);
        CHECK(got["requests"].empty());
        REQUIRE(got["layouts"].size() == 4);
        for (const auto& layout : got["layouts"]) {
            INFO((dark ? "dark: " : "light: ") << layout.dump());
            for (const auto& [id, title] : figures) {
                INFO(id);
                CHECK(layout["figures"].value(id, 0) > 0);
            }
            CHECK(layout["overlaps"].empty());
            CHECK(layout["scroll"].get<int>() <= layout["width"].get<int>());
            CHECK(layout["hidden"] == 0);
            const bool ink_on_dark = dark && layout["name"] != "paper";
            CHECK((layout["ground"][0].get<int>() < 64) == ink_on_dark);
            CHECK(layout["words"]["value"].get<double>() >= 4.5);  // WCAG 2.2: 4.5 for text, 3 for graphics
            CHECK(layout["marks"]["value"].get<double>() >= 3);
        }
    }
}

}  // namespace

TEST_CASE("a report is written from files, with CSV, and refuses what is none", "[cli]") {
    temporary_dir dir;
    std::filesystem::create_directories(dir / "in");
    std::string files;
    for (const auto& f : write_report_runs(dir / "in")) files += " " + quoted(f);
    const auto made =
        run("report" + files + " --title 'A & B' -o " + quoted(dir / "r.html") + " --csv " + quoted(dir / "csv"));
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK(made.err.find("17 figures of 5 runs") != made.err.npos);
    const xml_outline xml = read_xml(read_text_file(dir / "r.html"));
    CHECK(xml.problem == "");
    for (const auto& id : report_figures) {
        CHECK(xml.ids.contains(id));
        CHECK(std::filesystem::exists(dir / "csv" / (id + ".csv")));
    }
    check_refused(run("report " + quoted(dir / "none") + " -o " + quoted(dir / "x.html")), {"none", "no such file"});
    check_refused(run("report" + files + " --text hello -o " + quoted(dir / "x.html")),
                  {"--text", "expected a run with a model that routes tokens"});
    check_refused(run("report" + files + " --text " + std::string(5000, 'x') + " -o " + quoted(dir / "x.html")),
                  {"--text", "expected a run with a model that routes tokens"});
    CHECK(!std::filesystem::exists(dir / "x.html"));
}

TEST_CASE("a report is not written over what it reads", "[cli]") {
    temporary_dir dir;
    const std::string line = "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"loss\": 2.25}\n";
    std::filesystem::create_directories(dir / "run");
    write_text(dir / "run/metrics.jsonl", line);
    std::filesystem::create_symlink("run/metrics.jsonl", dir / "link");
    write_text(dir / "run/run.json", "{}");
    check_refused(run("report " + quoted(dir / "run") + " -o " + quoted(dir / "run/run.json")),
                  {"run.json", "expected an output that is no input"});
    for (const char* out : {"run/metrics.jsonl", "link"})
        check_refused(run("report " + quoted(dir / "run") + " -o " + quoted(dir / out)),
                      {out, "expected an output that is no input, found the file", "metrics.jsonl"});
    CHECK(read_text_file(dir / "run/metrics.jsonl") == line);
    const auto piped = run("report " + quoted(dir / "run") + " -o /dev/stdout | cat");
    CHECK(piped.out.find("</html>") != piped.out.npos);
}

TEST_CASE("in a browser, light, dark, narrow and on paper: every figure is drawn, nothing is asked for, covered or cut",
          "[.browser]") {
    if (!has_browser()) {
        WARN("skipped: no chromium");
        return;
    }
    for (const bool deep : {false, true}) {
        INFO((deep ? "deep" : "shallow"));
        temporary_dir dir;
        std::filesystem::create_directories(dir / "in");
        std::string files;
        for (const auto& f : write_report_runs(dir / "in", deep)) files += " " + quoted(f);
        REQUIRE(run("report" + files + " -o " + quoted(dir / "r.html")).code == 0);
        CHECK(figures_of(read_text_file(dir / "r.html")).size() == report_figures.size());
        check_in_browser(dir, dir / "r.html");
    }
}

TEST_CASE("in a browser: the pages of docs/gallery", "[.browser]") {
    if (!has_browser()) {
        WARN("skipped: no chromium");
        return;
    }
    for (const auto& entry : std::filesystem::directory_iterator(gallery())) {
        if (entry.path().extension() != ".html") continue;
        INFO(entry.path());
        temporary_dir dir;
        check_in_browser(dir, entry.path());
    }
}

TEST_CASE("docs/gallery has the figures that its commands make, and says so of every page", "[cli]") {
    const std::string index = read_text_file(gallery() / "index.md");
    std::size_t pages = 0;
    for (const auto& entry : std::filesystem::directory_iterator(gallery())) {
        if (entry.path().extension() != ".html") continue;
        INFO(entry.path());
        ++pages;
        // | [title](page): ... | `spectral report SOURCES -o FILE --title TITLE` | ...
        const auto row = index.find("(" + entry.path().filename().string() + ")");
        REQUIRE(row != index.npos);
        const auto from = index.find("`spectral report ", row), to = index.find(" -o FILE", from);
        REQUIRE(from < index.find('\n', row));
        const std::string sources = index.substr(from + 17, to - from - 17);
        temporary_dir dir;
        const auto made = run_shell("cd " + quoted(gallery() / "../../bench/results") + " && \"$SPECTRAL\" report " +
                                    sources + " -o " + quoted(dir / "r.html"));
        INFO(made.err);
        REQUIRE(made.code == 0);
        CHECK(figures_of(read_text_file(dir / "r.html")) == figures_of(read_text_file(entry.path())));
    }
    CHECK(pages >= 3);
}

}  // namespace spectral::test
