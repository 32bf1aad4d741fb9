// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/weight_files.hpp: the tensors of a model directory, in one safetensors file or in shards
//
// Files named by an index are untrusted: a name, not a path.
#pragma once
#include <spectral/io/json.hpp>
#include <spectral/io/safetensors.hpp>

#include <list>

namespace spectral {

// The weights of a model directory: model.safetensors, or the shards that model.safetensors.index.json names.
class weight_files {
public:
    explicit weight_files(const std::filesystem::path& directory) {
        namespace fs = std::filesystem;
        const fs::path whole = directory / "model.safetensors", index_file = directory / "model.safetensors.index.json";
        if (fs::exists(whole) || !fs::exists(index_file)) {
            take(whole);
            return;
        }
        name_ = index_file.string();
        const auto json = read_json_file(index_file);
        check(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(), name_,
              "expected an object with \"weight_map\"");
        check(!json["weight_map"].empty(), name_, "weight_map: expected at least one tensor, found none");
        std::map<std::string, safetensors_file*> opened;
        for (const auto& [tensor, file] : json["weight_map"].items()) {
            check(file.is_string(), name_, "weight_map[", in_quotes(tensor), "]: expected a file name");
            const std::string shard = file.get<std::string>();
            check(!shard.empty() && shard.find('/') == std::string::npos && shard.find('\\') == std::string::npos &&
                      shard != "." && shard != "..",
                  name_, "weight_map[", in_quotes(tensor), "]: expected a plain file name, found ", in_quotes(shard));
            auto& slot = opened[shard];
            if (!slot) slot = &files_.emplace_back(directory / shard);
            check(slot->contains(tensor), name_, "weight_map[", in_quotes(tensor), "]: ", shard, " has no such tensor");
            where_[tensor] = slot;
        }
        for (const auto& file : files_)
            for (const auto& [tensor, entry] : file.tensors()) {
                const auto owner = where_.find(tensor);
                check(owner != where_.end() && owner->second == &file, file.name(), "tensor ", in_quotes(tensor),
                      ": the index does not place it in this shard");
            }
    }

    // one file of any name
    static weight_files of_file(const std::filesystem::path& file) {
        weight_files out;
        out.take(file);
        return out;
    }
    weight_files(weight_files&&) = default;  // shards are referred to: a list keeps them in place
    weight_files& operator=(weight_files&&) = default;

    const std::string& name() const { return name_; }
    const std::map<std::string, std::string>& metadata() const {
        return files_.front().metadata();
    }  // of the first file
    bool contains(const std::string& tensor) const { return where_.count(tensor) != 0; }
    const tensor_entry& at(const std::string& tensor) const { return file_of(tensor).at(tensor); }
    std::shared_ptr<const void> owner(const std::string& tensor) const { return file_of(tensor).owner(tensor); }
    template <class T>
    void read(const std::string& tensor, std::span<T> out) const {
        file_of(tensor).read(tensor, out);
    }
    std::map<std::string, tensor_entry> tensors() const {
        std::map<std::string, tensor_entry> all;
        for (const auto& [name, file] : where_) all.emplace(name, file->at(name));
        return all;
    }

private:
    weight_files() = default;
    void take(const std::filesystem::path& file) {
        files_.emplace_back(file);
        for (const auto& [name, entry] : files_.back().tensors()) where_[name] = &files_.back();
        name_ = file.string();
    }
    const safetensors_file& file_of(const std::string& tensor) const {
        const auto found = where_.find(tensor);
        check(found != where_.end(), name_, "there is no tensor ", in_quotes(tensor));
        return *found->second;
    }
    std::list<safetensors_file> files_;
    std::map<std::string, const safetensors_file*> where_;
    std::string name_;
};

}  // namespace spectral
