// SPDX-License-Identifier: Apache-2.0
// tests/report/report_test.cpp: pages are well-formed and whole, tables are right, sources are told apart, bad ones
// refused
#include <spectral/report/report.hpp>

#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/report_runs.hpp"
#include "support/xml.hpp"

#include <sstream>

namespace report_test {
using namespace spectral;
using namespace spectral::test;

report::page page_of(const std::filesystem::path& dir, bool deep) {
    report::sources s;
    for (const auto& file : write_report_runs(dir, deep)) s.add(file);
    return report::make_report("Runs & <controls>", s.finish());
}

std::size_t count_of(const std::string& text, const std::string& piece) {
    std::size_t n = 0;
    for (auto at = text.find(piece); at != text.npos; at = text.find(piece, at + 1)) ++n;
    return n;
}

TEST_CASE("every figure is there, with a drawing, its words and a table, in well-formed XML", "[report]") {
    for (const bool deep : {false, true}) {
        temporary_dir dir;
        const report::page page = page_of(dir / "", deep);
        const std::string html = page.html();
        const xml_outline xml = read_xml(html);
        CHECK(xml.problem == "");
        for (const auto& id : report_figures) {
            INFO(id);
            CHECK(xml.ids.contains(id));
            CHECK(xml.ids.at(id) == "figure");
        }
        int figures = 0;
        page.for_each_figure([&](const report::figure& f) {
            INFO(f.id);
            ++figures;
            CHECK(!f.panels.empty());
            CHECK(!f.table.rows.empty());
            for (const auto& [heading, drawing] : f.panels) CHECK(drawing.find("<svg role=\"img\"") != drawing.npos);
            for (const auto& row : f.table.rows) CHECK(row.size() == f.table.columns.size());
            for (const auto& row : f.shown.rows) CHECK(row.size() == f.shown.columns.size());
            for (const auto& row : f.summary.rows) CHECK(row.size() == f.summary.columns.size());
            // the page has every row: of the table, or of what is shown in its place; and of the summary
            const auto from = html.find("<figure id=\"" + f.id + "\""), to = html.find("</figure>", from);
            const std::string part = html.substr(from, to - from);
            const std::size_t rows = f.shown.rows.empty() ? f.table.rows.size() : f.shown.rows.size();
            CHECK(count_of(part, "<tr>") == rows + 1 + (f.summary.rows.empty() ? 0 : f.summary.rows.size() + 1));
        });
        CHECK(figures == static_cast<int>(report_figures.size()));
        // nothing is fetched, nothing runs
        CHECK(xml.elements.count("script") == 0);
        CHECK(html.find("://") == html.npos);
        for (const auto& [attribute, value] : xml.references) {
            INFO(attribute << "=" << value);
            const auto id = value.starts_with("#")       ? value.substr(1)
                            : value.starts_with("url(#") ? value.substr(5, value.size() - 6)
                                                         : "";
            CHECK((value == "data:," || xml.ids.contains(id)));
        }
        for (const char* bad : {"nan", "inf", "e+0"}) CHECK(html.find("\"" + std::string(bad)) == html.npos);
        // each drawing names itself
        CHECK(html.find("aria-labelledby=\"loss-t loss-d\"") != html.npos);
        CHECK(html.find("<title id=\"loss-t\">Loss</title><desc id=\"loss-d\">baseline ends at") != html.npos);
    }
}

TEST_CASE("text of others cannot break the page", "[report]") {
    CHECK(report::escaped("a<b>&\"\x01\xff\n") == "a&lt;b&gt;&amp;&quot;\uFFFD\uFFFD\n");
    temporary_dir dir;
    const std::string html = page_of(dir / "", false).html();
    CHECK(html.find("<ran>") == html.npos);
    CHECK(html.find("&lt;ran&gt;") != html.npos);
    CHECK(html.find("layer 1: attention, entropy 0.8") != html.npos);
}

TEST_CASE("CSV has every number", "[report]") {
    report::data_table t{{"run", "x"}, {}};
    t.add({"a, \"b\"", 1.0 / 3});
    t.add({"c", report::nothing});
    CHECK(report::csv(t) == "run,x\r\n\"a, \"\"b\"\"\",0.3333333333\r\nc,\r\n");
    temporary_dir dir, out;
    page_of(dir / "", false).write_csv(out / "");
    for (const auto& id : report_figures) CHECK(std::filesystem::exists(out / (id + ".csv")));
    const std::string loss = read_text_file(out / "loss.csv");
    CHECK(loss.starts_with("run,set,step,loss\r\nbaseline,valid,50,"));
    CHECK(std::count(loss.begin(), loss.end(), '\n') == 1 + 3 * (31 + 6));
    // of each layer's histogram all bins, with the noise's share, which goes on beside them
    const std::string entropy = read_text_file(out / "entropy.csv");
    CHECK(entropy.starts_with("run,layer,entropy from,tokens,share of tokens,share of noise\r\n"));
    CHECK(entropy.find("threshold,1,0.8658984375,1000,0.03") != entropy.npos);
    const std::size_t bins = count_of(entropy, "\n") - 1;
    CHECK(bins >= 2 * 90);
    double tokens = 0, noise = 0;
    std::istringstream lines(entropy);
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
        const auto last = line.rfind(','), before = line.rfind(',', last - 1);
        noise += std::strtod(line.c_str() + last + 1, nullptr),
            tokens += std::strtod(line.c_str() + before + 1, nullptr);
    }
    CHECK(std::abs(tokens - 2) < 1e-6);
    CHECK(std::abs(noise - 2) < 0.01);
    // every mark of the scatter: two evaluations, of three runs and of one, two types, thirty samples
    CHECK(count_of(read_text_file(out / "skip-against-length.csv"), "\n") == 1 + (3 + 1) * 2 * 30);
    for (const char* id : {"loss", "entropy", "skip-against-length", "perplexity-by-mode"})
        CHECK(std::filesystem::exists(out / (std::string(id) + "-summary.csv")));
    CHECK(read_text_file(out / "loss-summary.csv").starts_with("step,baseline (valid),"));
}

TEST_CASE("numbers for people", "[report]") {
    using report::short_value;
    CHECK(short_value(53.00899) == "53.01");
    CHECK(short_value(0.8656447) == "0.8656");
    CHECK(short_value(5000, 3) == "5000");
    CHECK(short_value(12345) == "12345");
    CHECK(short_value(123456) == "123.5k");
    CHECK(short_value(2.8693e12) == "2.869T");
    CHECK(short_value(-0.5) == "-0.5");
    CHECK(short_value(report::nothing) == "\u2013");
    CHECK(report::shortened("naïve name", 6) == "naïve\u2026");
    CHECK(report::coordinate(1.50) == "1.5");
    CHECK(report::coordinate(-0.001) == "0");
    const report::scale s{.low = 0.8, .high = 0.9, .from = 0, .to = 100};
    const auto ticks = s.ticks(5);
    REQUIRE(ticks.size() == 6);
    CHECK(report::tick_texts(ticks) == std::vector<std::string>{"0.8", "0.82", "0.84", "0.86", "0.88", "0.9"});
    const report::scale decades{.low = 1, .high = 1000, .from = 0, .to = 100, .logarithmic = true};
    CHECK(report::tick_texts(decades.ticks(4)) == std::vector<std::string>{"1", "10", "100", "1000"});
}

TEST_CASE("labels at the ends of lines keep their distance and their order", "[report]") {
    std::vector<double> y{100, 101, 99.5, 180, 181, 182};
    report::detail::spread(y, 12.5, 20, 186);
    auto sorted = y;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i + 1 < sorted.size(); ++i) CHECK(sorted[i + 1] - sorted[i] >= 12.5 - 1e-9);
    CHECK(y[2] < y[0]);
    CHECK(y[0] < y[1]);
    CHECK(sorted.back() <= 186);
}

TEST_CASE("a long run keeps its peaks", "[report]") {
    std::vector<report::point> points;
    points.reserve(100000);
    for (int i = 0; i < 100000; ++i) points.push_back({static_cast<double>(i), i == 77777 ? 50.0 : 1.0});
    report::chart c("c", "c", {.label = "x"}, {.label = "y"});
    c.line(points, 0);
    const std::string svg = c.svg("");
    CHECK(svg.size() < 20000);
    CHECK(svg.find("50") != svg.npos);
}

TEST_CASE("the entropy of noise", "[report]") {
    for (const auto& [d, mean, deviation] : {std::tuple{256, 0.8695, 0.0103}, std::tuple{1024, 0.8949, 0.0038}}) {
        const sample_density noise(gaussian_null(d, false, 2000));
        CHECK(std::abs(noise.mean() - mean) < 0.0008);
        CHECK(std::abs(noise.deviation() - deviation) < 0.1 * deviation);
        double area = 0;
        for (double x = 0.7; x < 1; x += 0.0005) area += 0.0005 * noise(x);
        CHECK(std::abs(area - 1) < 0.01);
        CHECK(std::abs(noise.above(noise.mean()) - 0.5) < 0.06);
    }
    CHECK(sample_density(gaussian_null(256, true, 500)).mean() < sample_density(gaussian_null(256, false, 500)).mean());
}

TEST_CASE("sources are told apart and named", "[report]") {
    temporary_dir dir;
    write_report_runs(dir / "");
    std::filesystem::create_directories(dir / "run/a");
    write_file_atomically(dir / "run/a/metrics.jsonl", metrics_of(1, true));
    write_file_atomically(dir / "run/a/eval.json", evaluation_of(true).dump());
    report::sources s;
    s.add((dir / "run/a").string() + "/");
    s.add("other=" + (dir / "threshold.jsonl").string());
    s.add((dir / "threshold.eval.json").string());
    const auto runs = s.finish();
    REQUIRE(runs.size() == 3);
    CHECK(runs[0].name == "a");
    CHECK(runs[0].training.size() == 31);
    CHECK(runs[0].evaluations.size() == 6);
    CHECK(runs[0].evaluation.contains("flops"));
    CHECK(runs[1].name == "other");
    CHECK(runs[1].evaluation["step"] == 300);  // the last one of training
    CHECK(runs[2].name == "threshold");
}

TEST_CASE("bad sources are refused in one sentence", "[report]") {
    temporary_dir dir;
    const auto refused = [&](const std::string& name, const std::string& text) {
        write_file_atomically(dir / name, text);
        return sentence_of([&] {
            report::sources s;
            s.add((dir / name).string());
            report::make_report("", s.finish()).html();
        });
    };
    CHECK(refused("a.jsonl", "{\"step\":1}\n{\"step\":") == "");
    CHECK(refused("b.jsonl", "{\"step\":1}\nx\n").find("b.jsonl: line 2: not valid JSON") != std::string::npos);
    CHECK(refused("c.jsonl", "").find("expected lines of metrics, found none") != std::string::npos);
    CHECK(refused("d.json", "[1]").find("expected a JSON object, found array") != std::string::npos);
    CHECK(refused("e.json", "{\"x\":{\"y\":1}}")
              .find("expected metrics (.jsonl) or what eval --json or route --json print") != std::string::npos);
    auto short_route = route_of();
    short_route["layers"]["1"]["op"] = {1};
    CHECK(refused("f.json", short_route.dump()).find("layer 1: expected the operators of 13 tokens, found 1") !=
          std::string::npos);
    CHECK(sentence_of([&] { report::sources().add((dir / "none").string()); }).find("no such file or directory") !=
          std::string::npos);
    CHECK(sentence_of([&] { report::sources().add((dir / "").string()); }).find("expected a run: metrics.jsonl") !=
          std::string::npos);
    // numbers of the wrong type are left out, not believed
    CHECK(refused(
              "g.jsonl",
              "{\"step\":1,\"loss\":\"high\",\"attention_share\":[1],\"meta_gate\":null}\n{\"step\":2,\"loss\":1}\n") ==
          "");
    CHECK(refused("h.json", R"({"runs":[{"types":{"a":{"gates":[{"block":-1}],"by_sample":7}}},3]})") == "");
    CHECK(
        refused(
            "i.json",
            R"({"t":{"loss":1,"flops":{"dct":3},"entropy_histogram":{"1":{"from":0,"width":-1,"count":[1]}},"entropy_router":{"features":8}}})") ==
        "");
}

}  // namespace report_test
