// SPDX-License-Identifier: Apache-2.0
// tests/support/xml.hpp: is a text well-formed XML? Tags nest, attributes are quoted and appear once, entities are
// known, ids are unique. No namespaces, no DTD beyond one line.
#pragma once
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace spectral::test {

struct xml_outline {
    std::string problem;  // empty: well-formed
    std::map<std::string, int> elements;  // how often each tag was opened
    std::map<std::string, std::string> ids;  // id -> tag
    std::vector<std::pair<std::string, std::string>> references;  // attribute, value: href, src, url(...)
};

inline xml_outline read_xml(std::string_view text) {
    xml_outline out;
    std::vector<std::string> open;
    std::size_t at = 0;
    const auto bad = [&](const std::string& what) {
        if (out.problem.empty())
            out.problem = what + " at byte " + std::to_string(at) + ": " + std::string(text.substr(at, 60));
        return out;
    };
    const auto entities = [&](std::string_view piece) {
        for (std::size_t i = piece.find('&'); i != piece.npos; i = piece.find('&', i + 1)) {
            const auto end = piece.find(';', i);
            static const std::set<std::string_view> known{"&amp", "&lt", "&gt", "&quot"};
            if (end == piece.npos || !known.contains(piece.substr(i, end - i))) return false;
        }
        return true;
    };
    if (text.starts_with("<!DOCTYPE html>")) at = 15;
    while (at < text.size()) {
        if (text[at] != '<') {
            const auto next = std::min(text.find('<', at), text.size());
            const auto piece = text.substr(at, next - at);
            if (!entities(piece)) return bad("unknown entity");
            if (open.empty() && piece.find_first_not_of(" \n") != piece.npos) return bad("text outside the root");
            at = next;
            continue;
        }
        const bool closes = text.substr(at).starts_with("</");
        std::size_t i = at + (closes ? 2 : 1);
        const auto name_end = text.find_first_of(" />\n", i);
        if (name_end == text.npos || name_end == i) return bad("tag without a name");
        const std::string name(text.substr(i, name_end - i));
        i = name_end;
        if (closes) {
            if (text[i] != '>' || open.empty() || open.back() != name)
                return bad("</" + name + "> where " + (open.empty() ? "nothing" : open.back()) + " is open");
            open.pop_back();
            at = i + 1;
            continue;
        }
        ++out.elements[name];
        std::set<std::string> attributes;
        bool alone = false;
        while (true) {
            i = text.find_first_not_of(" \n", i);
            if (i == text.npos) return bad("tag without an end");
            if (text[i] == '>') break;
            if (text.substr(i).starts_with("/>")) {
                alone = true, ++i;
                break;
            }
            const auto equals = text.find('=', i);
            if (equals == text.npos || equals + 1 >= text.size() || text[equals + 1] != '"')
                return bad("attribute of " + name + " without quotes");
            const auto end = text.find('"', equals + 2);
            if (end == text.npos) return bad("attribute of " + name + " without an end");
            const std::string key(text.substr(i, equals - i)), value(text.substr(equals + 2, end - equals - 2));
            if (key.find_first_of(" <>\"'") != key.npos || !attributes.insert(key).second)
                return bad("attribute " + key + " of " + name);
            if (value.find('<') != value.npos || !entities(value)) return bad("markup in attribute " + key);
            if (key == "id" && !out.ids.emplace(value, name).second) return bad("id " + value + " twice");
            if (key == "href" || key == "src" || value.find("url(") != value.npos)
                out.references.emplace_back(key, value);
            i = end + 1;
        }
        if (!alone) open.push_back(name);
        at = i + 1;
        if (name == "style" || name == "script") {  // text of another language
            const auto end = text.find("</" + name + ">", at);
            if (end == text.npos) return bad(name + " without an end");
            at = end;
        }
    }
    if (!open.empty()) return bad("the text ends inside " + open.back());
    return out;
}

}  // namespace spectral::test
