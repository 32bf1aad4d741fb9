// SPDX-License-Identifier: Apache-2.0
// tests/docs/support_table.cpp: prints the table of operators, executors and scalars as Markdown
//   support_table              prints it
//   support_table FILE         fails where FILE, a page of docs/, does not hold it word for word
#include <docs/support_table.hpp>
#include <spectral/cpu.hpp>
#include <spectral/reference.hpp>

#include <cstdio>
#include <fstream>
#include <sstream>

namespace {

using namespace spectral::support;

// "float, double" of the scalars with which a row of one executor has its kernels
template <class RowsOf>
std::string cell(std::size_t i, const std::vector<std::string>& scalars, RowsOf&& rows_of) {
    std::string out;
    for (const auto& scalar : scalars)
        if (rows_of(scalar)[i].has) out += (out.empty() ? "" : ", ") + scalar;
    if (!out.empty()) return out;
    return rows_of(scalars.front())[i].composed ? "composed" : "—";
}

template <class Exec>
std::vector<row> host_rows(const std::string& scalar) {
    return scalar == "float" ? rows<Exec, float>() : rows<Exec, double>();
}

}  // namespace

int main(int count, char** arguments) {
    // The host executors compute in float and double; bfloat16 is storage there (weights of linear, embedding, head).
    const std::vector<std::string> host{"float", "double"}, device{"float", "double", "bfloat16"};
    const auto names = rows<spectral::reference::executor, double>();
    std::string table = "| operator, with its backward pass | reference | cpu | cuda |\n| --- | --- | --- | --- |\n";
    bool complete = true;
    for (std::size_t i = 0; i < names.size(); ++i) {
        complete = complete && (names[i].has || names[i].composed);
        table += "| " + names[i].name + " | " + cell(i, host, host_rows<spectral::reference::executor>) + " | " +
                 cell(i, host, host_rows<spectral::cpu::executor>) + " | " + cell(i, device, cuda_rows) + " |\n";
    }
    std::printf("%s", table.c_str());
    if (!complete) {
        std::fprintf(stderr,
                     "support_table: the reference executor lacks a kernel: a signature in support_table.hpp is old\n");
        return 1;
    }
    if (count < 2) return 0;
    std::stringstream page;
    page << std::ifstream(arguments[1]).rdbuf();
    if (page.str().find(table) != std::string::npos) return 0;
    std::fprintf(stderr, "support_table: %s does not hold this table: put it there\n", arguments[1]);
    return 1;
}
