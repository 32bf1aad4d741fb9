// SPDX-License-Identifier: Apache-2.0
// tests/cli/report_test.cpp: `spectral report`, and its pages in a browser without a window (skipped where there is
// none)
#include "cli/program.hpp"
#include "support/report_runs.hpp"
#include "support/xml.hpp"

namespace spectral::test {
namespace {

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

// Every figure's box, texts that cover each other, what sticks out at the right; into <pre id="measured">.
const char* const measure = R"(<script>
addEventListener('load', () => {
  const width = Number(location.hash.slice(1));
  document.body.style.width = width + 'px';   // a window would not get as narrow
  const out = {width: width, scroll: document.body.scrollWidth, requests: performance.getEntriesByType('resource').map(r => r.name),
               figures: {}, overlaps: []};
  for (const f of document.querySelectorAll('figure')) {
    const svgs = [...f.querySelectorAll('svg[role=img]')];
    out.figures[f.id] = svgs.length && svgs.every(s => s.getBoundingClientRect().width > 20 || s.closest('.token')) ? svgs.length : 0;
    for (const s of svgs) {
      const texts = [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
      for (let i = 0; i < texts.length; ++i) for (let j = i + 1; j < texts.length; ++j) {
        const [a, p] = texts[i], [b, q] = texts[j];
        const w = Math.min(p.right, q.right) - Math.max(p.left, q.left), h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (w > 1 && h > 0.3 * Math.min(p.height, q.height)) out.overlaps.push(f.id + ': ' + a + ' | ' + b);
      }
    }
  }
  const pre = document.createElement('pre');
  pre.id = 'measured';
  pre.textContent = JSON.stringify(out);
  document.body.append(pre);
});
</script>)";

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
    CHECK(!std::filesystem::exists(dir / "x.html"));
}

TEST_CASE("in a browser: every figure is drawn, nothing is asked for, nothing covers or sticks out", "[.browser]") {
    if (!has_browser()) {
        WARN("skipped: no chromium");
        return;
    }
    for (const bool deep : {false, true}) {
        temporary_dir dir;
        std::filesystem::create_directories(dir / "in");
        std::string files;
        for (const auto& f : write_report_runs(dir / "in", deep)) files += " " + quoted(f);
        REQUIRE(run("report" + files + " -o " + quoted(dir / "r.html")).code == 0);
        // as it is, its policy in force: a request or a script would be a message on the console
        const auto plain = browse(dir / "", "--dump-dom", (dir / "r.html").string());
        REQUIRE(plain.code == 0);
        CHECK(plain.err.find("CONSOLE") == plain.err.npos);
        CHECK(plain.out.find("</html>") != plain.out.npos);
        // without it, and with a script that measures
        std::string page = read_text_file(dir / "r.html");
        const auto policy = page.find("<meta http-equiv=\"Content-Security-Policy\"");
        REQUIRE(policy != page.npos);
        page.erase(policy, page.find('\n', policy) - policy);
        page.replace(page.find("</body>"), 7, std::string(measure) + "</body>");
        write_text(dir / "measured.html", page);
        for (const char* width : {"360", "700", "1200"}) {
            INFO(width << (deep ? ", deep" : ""));
            const auto seen =
                browse(dir / "", "--dump-dom --window-size=1300,900", (dir / "measured.html").string() + "#" + width);
            const auto from = seen.out.find("<pre id=\"measured\">");
            REQUIRE(from != seen.out.npos);
            std::string text = seen.out.substr(from + 19, seen.out.find("</pre>", from) - from - 19);
            for (const auto& [entity, c] : {std::pair{"&lt;", "<"}, std::pair{"&gt;", ">"}, std::pair{"&amp;", "&"}})
                for (std::size_t at = text.find(entity); at != text.npos; at = text.find(entity, at + 1))
                    text.replace(at, std::string(entity).size(), c);
            const auto got = nlohmann::json::parse(text);
            INFO(text);
            for (const auto& id : report_figures) {
                INFO(id);
                CHECK(got["figures"].value(id, 0) > 0);
            }
            CHECK(got["overlaps"].empty());
            CHECK(got["requests"].empty());
            CHECK(got["scroll"].get<int>() <= got["width"].get<int>());
        }
    }
}

}  // namespace spectral::test
