// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/safetensors.hpp: strict reader and atomic writer of safetensors files
//
// Layout: u64 little-endian N | N bytes of JSON | data. The JSON maps each name to {dtype, shape, data_offsets}, the
// offsets being relative to the data, and "__metadata__" to strings. The reader trusts nothing: entries must tile the
// data exactly, without holes, overlaps or a tail, and each length must be what dtype and shape say, in checked
// arithmetic. Tensors are spans into the mapped file and may be unaligned, so values are copied out with memcpy.
#pragma once
#include <spectral/core/check.hpp>
#include <spectral/core/view.hpp>
#include <spectral/io/atomic_file.hpp>
#include <spectral/io/dtype.hpp>
#include <spectral/io/json.hpp>
#include <spectral/io/mapped_file.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <ranges>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace spectral {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so must be the machine");

// A tensor of a file: its bytes lie in the file's mapping.
struct tensor_entry {
    spectral::dtype dtype;
    std::vector<index> shape;
    std::span<const std::byte> data;

    index size() const {  // number of elements; the reader has checked that it does not overflow
        index n = 1;
        for (index d : shape) n *= d;
        return n;
    }
};

namespace detail {
constexpr std::uint64_t safetensors_longest_header = 100'000'000;

inline std::string shape_list(const std::vector<index>& shape) {
    std::string out = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
    return out + "]";
}

// Bytes of a tensor of this type and shape, or nothing when they overflow or are not whole.
inline std::optional<std::uint64_t> tensor_bytes(dtype type, const std::vector<index>& shape) {
    std::uint64_t bits = static_cast<std::uint64_t>(dtype_bits(type));
    for (index d : shape)
        if (d < 0 || __builtin_mul_overflow(bits, static_cast<std::uint64_t>(d), &bits)) return std::nullopt;
    if (bits % 8 != 0) return std::nullopt;
    return bits / 8;
}

template <class T>
constexpr bool is_floating = std::is_floating_point_v<T> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

// One element from type S to type T; false when the value does not fit into an integer T.
template <class S, class T>
bool convert_element(S from, T& to) {
    if constexpr (std::is_same_v<S, bfloat16> || std::is_same_v<S, float16>) {
        return convert_element(static_cast<float>(from), to);
    } else if constexpr (std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>) {
        to = T(static_cast<float>(from));
    } else if constexpr (std::is_same_v<T, bool>) {
        to = from != S{};
    } else if constexpr (std::is_floating_point_v<T>) {
        to = static_cast<T>(from);
    } else {
        to = static_cast<T>(from);
        return std::in_range<T>(from);
    }
    return true;
}

template <class S, class T>
void convert_elements(const tensor_entry& entry, std::span<T> out, std::string_view where, std::string_view name) {
    if constexpr (is_floating<S> && !is_floating<T>) {
        fail(where, "tensor ", in_quotes(name), " holds ", dtype_name(entry.dtype), ", which cannot be read as ",
             dtype_name(dtype_of<T>));
    } else {
        for (std::size_t i = 0; i < out.size(); ++i) {
            S from;
            std::memcpy(&from, entry.data.data() + i * sizeof(S), sizeof(S));
            if (!convert_element(from, out[i])) [[unlikely]]
                fail(where, "tensor ", in_quotes(name), ", element ", i, ": the value does not fit into ",
                     dtype_name(dtype_of<T>));
        }
    }
}
}  // namespace detail

// A safetensors file, checked when it is opened. The spans of its entries live as long as the object.
//   safetensors_file file("model.safetensors");
//   std::vector<float> w = file.read<float>("token_emb.weight");     // from F64, F32, F16, BF16, ...
class safetensors_file {
public:
    explicit safetensors_file(const std::filesystem::path& path)
        : name_(path.string()), file_(std::make_shared<const mapped_file>(path)) {
        parse(file_->bytes());
    }
    // From memory that must outlive the object; `name` stands for the file in errors.
    safetensors_file(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) { parse(bytes); }

    const std::string& name() const { return name_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    const std::map<std::string, tensor_entry>& tensors() const { return tensors_; }
    bool contains(const std::string& tensor) const { return tensors_.count(tensor) != 0; }

    const tensor_entry& at(const std::string& tensor) const {
        const auto found = tensors_.find(tensor);
        if (found == tensors_.end()) [[unlikely]] {
            std::vector<std::string> names;
            for (const auto& entry : tensors_) names.push_back(entry.first);
            fail(name_, "there is no tensor ", in_quotes(tensor), suggestion(tensor, names));
        }
        return found->second;
    }

    // What keeps the entries' spans alive beyond this object: null if it was made from someone else's memory.
    std::shared_ptr<const void> owner(const std::string&) const { return file_; }

    // Copies a tensor, converting its elements to T. Floating point becomes T by rounding (through float for the
    // 16-bit types); integers must fit. The number of elements must be out.size().
    template <TensorElement T>
    void read(const std::string& tensor, std::span<T> out) const {
        const tensor_entry& entry = at(tensor);
        check_equal(static_cast<std::uint64_t>(out.size()), static_cast<std::uint64_t>(entry.size()), name_,
                    "elements of tensor " + in_quotes(tensor) + " of shape " + detail::shape_list(entry.shape));
        if (out.empty()) return;
        if (entry.dtype == dtype_of<T> && !std::is_same_v<T, bool>) {  // a bool must be 0 or 1, a byte need not be
            std::memcpy(out.data(), entry.data.data(), entry.data.size());
            return;
        }
        switch (entry.dtype) {
            case dtype::f64: return detail::convert_elements<double>(entry, out, name_, tensor);
            case dtype::f32: return detail::convert_elements<float>(entry, out, name_, tensor);
            case dtype::f16: return detail::convert_elements<float16>(entry, out, name_, tensor);
            case dtype::bf16: return detail::convert_elements<bfloat16>(entry, out, name_, tensor);
            case dtype::i64: return detail::convert_elements<std::int64_t>(entry, out, name_, tensor);
            case dtype::i32: return detail::convert_elements<std::int32_t>(entry, out, name_, tensor);
            case dtype::i16: return detail::convert_elements<std::int16_t>(entry, out, name_, tensor);
            case dtype::i8: return detail::convert_elements<std::int8_t>(entry, out, name_, tensor);
            case dtype::u64: return detail::convert_elements<std::uint64_t>(entry, out, name_, tensor);
            case dtype::u32: return detail::convert_elements<std::uint32_t>(entry, out, name_, tensor);
            case dtype::u16: return detail::convert_elements<std::uint16_t>(entry, out, name_, tensor);
            case dtype::u8:
            case dtype::boolean: return detail::convert_elements<std::uint8_t>(entry, out, name_, tensor);
            default:
                fail(name_, "tensor ", in_quotes(tensor), " holds ", dtype_name(entry.dtype),
                     ", which cannot be read as ", dtype_name(dtype_of<T>));
        }
    }
    template <TensorElement T>
    std::vector<T> read(const std::string& tensor) const {
        static_assert(!std::is_same_v<T, bool>, "std::vector<bool> has no elements to read into; use std::uint8_t");
        std::vector<T> out(static_cast<std::size_t>(at(tensor).size()));
        read(tensor, std::span<T>(out));
        return out;
    }

private:
    void parse(std::span<const std::byte> bytes) {
        check(bytes.size() >= 8, name_, "expected at least 8 bytes of header length, found ", bytes.size());
        std::uint64_t length = 0;
        std::memcpy(&length, bytes.data(), 8);
        check(length <= detail::safetensors_longest_header, name_, "header length: expected at most ",
              detail::safetensors_longest_header, ", found ", length);
        check(length <= bytes.size() - 8, name_, "header length: expected at most ", bytes.size() - 8,
              " (the rest of the file), found ", length);
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
        check(text.starts_with('{'), name_, "header: expected '{' as its first byte");
        const auto header = parse_json(text, name_);
        const std::span<const std::byte> data = bytes.subspan(8 + length);

        struct extent {
            std::uint64_t begin, end;
            const std::string* name;
        };
        std::vector<extent> extents;
        for (const auto& [key, value] : header.items()) {
            if (key == "__metadata__") {
                read_metadata(value);
                continue;
            }
            const auto [begin, end, entry] = read_entry(key, value, data);
            extents.push_back({begin, end, &tensors_.emplace(key, entry).first->first});
        }
        std::sort(extents.begin(), extents.end(), [](const extent& a, const extent& b) {
            return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
        });
        std::uint64_t reached = 0;
        for (const extent& e : extents) {
            check(e.begin == reached, name_, "tensor ", in_quotes(*e.name), ": expected to begin at byte ", reached,
                  " of the data, where the one before it ends, found ", e.begin);
            reached = e.end;
        }
        check_equal<std::uint64_t, std::uint64_t>(data.size(), reached, name_, "bytes of data");
    }

    void read_metadata(const nlohmann::json& value) {
        check(value.is_object(), name_, "__metadata__: expected an object of strings, found ", value.type_name());
        for (const auto& [key, text] : value.items()) {
            check(text.is_string(), name_, "__metadata__, ", in_quotes(key), ": expected a string, found ",
                  text.type_name());
            metadata_.emplace(key, text.get<std::string>());
        }
    }

    struct placed_entry {
        std::uint64_t begin, end;
        tensor_entry entry;
    };
    placed_entry read_entry(const std::string& key, const nlohmann::json& value,
                            std::span<const std::byte> data) const {
        const std::string tensor = "tensor " + in_quotes(key);
        check(value.is_object(), name_, tensor, ": expected an object, found ", value.type_name());
        for (const auto& item : value.items())
            check(item.key() == "dtype" || item.key() == "shape" || item.key() == "data_offsets", name_, tensor,
                  ": unknown field ", in_quotes(item.key()));
        const auto field = [&](const char* name) -> const nlohmann::json& {
            check(value.contains(name), name_, tensor, ": field \"", name, "\" is missing");
            return value[name];
        };
        placed_entry out;
        const auto& type = field("dtype");
        check(type.is_string(), name_, tensor, ", dtype: expected a string, found ", type.type_name());
        const auto known = dtype_from_name(type.get_ref<const std::string&>());
        check(known.has_value(), name_, tensor, ", dtype: expected a safetensors type such as F32, found ",
              in_quotes(type.get_ref<const std::string&>()));
        out.entry.dtype = *known;

        const auto& shape = field("shape");
        check(shape.is_array(), name_, tensor, ", shape: expected an array, found ", shape.type_name());
        for (const auto& d : shape) out.entry.shape.push_back(read_size(d, tensor, "shape"));
        const auto& offsets = field("data_offsets");
        check(offsets.is_array() && offsets.size() == 2, name_, tensor, ", data_offsets: expected [begin, end]");
        out.begin = static_cast<std::uint64_t>(read_size(offsets[0], tensor, "data_offsets"));
        out.end = static_cast<std::uint64_t>(read_size(offsets[1], tensor, "data_offsets"));
        check(out.begin <= out.end, name_, tensor, ", data_offsets: expected begin <= end, found [", out.begin, ", ",
              out.end, "]");
        check(out.end <= data.size(), name_, tensor, ", data_offsets: expected an end within the ", data.size(),
              " bytes of data, found ", out.end);

        const auto bytes = detail::tensor_bytes(*known, out.entry.shape);
        check(bytes.has_value(), name_, tensor, ": ", dtype_name(*known), " of shape ",
              detail::shape_list(out.entry.shape), " is not a whole number of bytes below 2^61");
        check(out.end - out.begin == *bytes, name_, tensor, ": ", dtype_name(*known), " of shape ",
              detail::shape_list(out.entry.shape), ": expected ", *bytes, " bytes, found ", out.end - out.begin);
        out.entry.data = data.subspan(out.begin, *bytes);
        return out;
    }
    index read_size(const nlohmann::json& value, const std::string& tensor, const char* what) const {
        constexpr std::uint64_t most = std::numeric_limits<index>::max();
        check(value.is_number_unsigned() && value.get<std::uint64_t>() <= most, name_, tensor, ", ", what,
              ": expected an integer from 0 to 2^63 - 1, found ", in_quotes(value.dump(), 40));
        return static_cast<index>(value.get<std::uint64_t>());
    }

    std::string name_;
    std::shared_ptr<const mapped_file> file_;  // shared, so that copies keep the entries valid
    std::map<std::string, std::string> metadata_;
    std::map<std::string, tensor_entry> tensors_;
};

// Collects tensors by reference (the caller's memory must live until write()) and writes them in one step.
//   safetensors_writer out;
//   out.add("w", {4, 8}, std::span<const float>(w));
//   out.write("model.safetensors");
class safetensors_writer {
public:
    void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }
    void set_metadata(std::map<std::string, std::string> metadata) { metadata_ = std::move(metadata); }

    void add(const std::string& name, dtype type, std::vector<index> shape, std::span<const std::byte> bytes) {
        check(name != "__metadata__", "safetensors_writer", "a tensor cannot be called __metadata__");
        const auto expected = detail::tensor_bytes(type, shape);
        check(expected.has_value() && bytes.size() == *expected, "safetensors_writer", "tensor ", in_quotes(name), ": ",
              dtype_name(type), " of shape ", detail::shape_list(shape), ": expected ", expected.value_or(0),
              " bytes, found ", bytes.size());
        check(names_.insert(name).second, "safetensors_writer", "tensor ", in_quotes(name), " is added twice");
        entries_.push_back({name, {type, std::move(shape), bytes}});
    }
    // A span, vector or array; not a temporary that owns its elements.
    template <std::ranges::contiguous_range Range>
        requires TensorElement<std::ranges::range_value_t<Range>> && std::ranges::sized_range<Range>
    void add(const std::string& name, std::vector<index> shape, Range&& values) {
        static_assert(std::ranges::borrowed_range<Range>,
                      "safetensors_writer::add keeps a reference until write(): pass a named vector or a span");
        using T = std::ranges::range_value_t<Range>;
        add(name, dtype_of<T>, std::move(shape),
            std::as_bytes(std::span<const T>(std::ranges::data(values), std::ranges::size(values))));
    }

    void write(const std::filesystem::path& path) const {
        std::vector<const named_entry*> order;
        for (const named_entry& e : entries_) order.push_back(&e);
        std::sort(order.begin(), order.end(), [](const named_entry* a, const named_entry* b) {
            const int a_bits = dtype_bits(a->entry.dtype), b_bits = dtype_bits(b->entry.dtype);
            return a_bits != b_bits ? a_bits > b_bits : a->name < b->name;  // wide types first: all stay aligned
        });
        const std::string text = header(order, path.string());
        atomic_file file(path);
        const std::uint64_t length = text.size();
        file.write(std::as_bytes(std::span(&length, 1)));
        file.write(text);
        for (const named_entry* e : order) file.write(e->entry.data);
        file.commit();
    }

private:
    struct named_entry {
        std::string name;
        tensor_entry entry;
    };
    // Written piece by piece: an ordered_json object of n keys would take n^2 steps.
    std::string header(const std::vector<const named_entry*>& order, const std::string& where) const {
        std::string text = "{";
        const auto text_of = [&](const auto& value, const std::string& what) {
            try {
                return nlohmann::json(value).dump();
            } catch (const nlohmann::json::exception&) {
                fail(where, what, " ", in_quotes(value), " is not valid UTF-8");
            }
        };
        if (!metadata_.empty()) {
            text += "\"__metadata__\":{";
            for (const auto& [key, value] : metadata_)
                text += text_of(key, "metadata key") + ":" + text_of(value, "metadata value") + ",";
            text.back() = '}';
            text += ',';
        }
        std::uint64_t begin = 0;
        for (const named_entry* e : order) {
            const std::uint64_t end = begin + e->entry.data.size();
            text += text_of(e->name, "tensor name") + ":{\"dtype\":\"" + std::string(dtype_name(e->entry.dtype)) +
                    "\",\"shape\":" + nlohmann::json(e->entry.shape).dump() + ",\"data_offsets\":[" +
                    std::to_string(begin) + "," + std::to_string(end) + "]},";
            begin = end;
        }
        if (text.back() == ',') text.pop_back();
        text += '}';
        text.resize((text.size() + 7) / 8 * 8, ' ');
        check(text.size() <= detail::safetensors_longest_header, where, "header length: expected at most ",
              detail::safetensors_longest_header, ", found ", text.size());
        return text;
    }

    std::vector<named_entry> entries_;
    std::set<std::string> names_;
    std::map<std::string, std::string> metadata_;
};

}  // namespace spectral
