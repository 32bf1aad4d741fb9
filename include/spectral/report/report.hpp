// SPDX-License-Identifier: Apache-2.0
// include/spectral/report/report.hpp: the report of several runs: every figure that their sources have numbers for
#pragma once
#include <spectral/report/evaluation_figures.hpp>
#include <spectral/report/route_figures.hpp>
#include <spectral/report/skip_figures.hpp>
#include <spectral/report/training_figures.hpp>

namespace spectral::report {

//   sources s;   s.add("runs/baseline");   s.add("runs/threshold");   make_report("WikiText-2", s.finish()).html()
inline page make_report(const std::string& title, const std::vector<run_record>& runs) {
    std::string names;
    for (const auto& r : runs) names += (names.empty() ? "" : ", ") + r.name;
    page p(title, names);
    p.section("Results", "");
    p.add(results_figure(runs));
    add_training_figures(p, runs);
    add_evaluation_figures(p, runs);
    add_route_figures(p, runs);
    add_skip_figures(p, runs);
    return p;
}

}  // namespace spectral::report
