// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/atomic_file.hpp: a file that appears whole under its name, or not at all
//
// Bytes go to a temporary file in the same directory; commit() syncs it and renames it over the target, then syncs the
// directory. A reader therefore sees the old file or the new one, an old file that somebody has mapped is never
// truncated, and a failure (disk full, file size limit, no permission) throws one sentence and leaves no temporary.
// A symbolic link stays: what it leads to is replaced. A device, a pipe or a socket is written as it stands.
#pragma once
#include <spectral/core/check.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace spectral {

class atomic_file {
public:
    explicit atomic_file(const std::filesystem::path& path)
        : path_(path), target_(followed(path)), temporary_(target_), in_place_(is_special(path)) {
        if (in_place_) {
            file_ = ::open(path_.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
            if (file_ < 0) fail_with("cannot be opened", errno);
            return;
        }
        static std::atomic<unsigned> count{0};  // two writers of one name, in one process or in two, do not meet
        temporary_ += "." + std::to_string(::getpid()) + "-" + std::to_string(count++) + ".tmp";
        file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file_ < 0) fail_with("cannot be created", errno);
    }
    ~atomic_file() { abandon(); }
    atomic_file(const atomic_file&) = delete;
    atomic_file& operator=(const atomic_file&) = delete;

    void write(std::span<const std::byte> bytes) {
        constexpr std::size_t most = std::size_t{1} << 30;  // Linux writes at most 2^31 - 4096 bytes per call
        while (!bytes.empty()) {
            const ::ssize_t n = ::write(file_, bytes.data(), bytes.size() < most ? bytes.size() : most);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) fail_with("cannot be written", errno);
            bytes = bytes.subspan(static_cast<std::size_t>(n));
        }
    }
    void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

    void commit() {
        if (!in_place_ && ::fsync(file_) != 0) fail_with("cannot be synced to disk", errno);
        const int file = std::exchange(file_, -1);
        if (::close(file) != 0) fail_with("cannot be closed", errno);
        if (in_place_) return;
        if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail_with("cannot be renamed into place", errno);
        committed_ = true;
        const std::filesystem::path parent = target_.has_parent_path() ? target_.parent_path() : ".";
        const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory >= 0) {
            ::fsync(directory);  // some file systems refuse to sync a directory: the file itself is safe already
            ::close(directory);
        }
    }

private:
    // where a symbolic link leads, whether or not there is a file
    static std::filesystem::path followed(std::filesystem::path path) {
        std::error_code problem;
        for (int links = 0; links < 40 && std::filesystem::is_symlink(std::filesystem::symlink_status(path, problem));
             ++links) {
            const auto next = std::filesystem::read_symlink(path, problem);
            if (problem) break;
            path = path.parent_path() / next;
        }
        return path;
    }
    static bool is_special(const std::filesystem::path& path) {
        std::error_code problem;
        const auto found = std::filesystem::status(path, problem);
        return std::filesystem::exists(found) && std::filesystem::is_other(found);
    }
    void abandon() noexcept {
        if (file_ >= 0) ::close(std::exchange(file_, -1));
        if (!committed_ && !in_place_) ::unlink(temporary_.c_str());
        committed_ = true;
    }
    [[noreturn]] void fail_with(const char* what, int code) {
        abandon();
        fail(path_.string(), "the file ", what, ": ", std::strerror(code));
    }

    std::filesystem::path path_, target_, temporary_;  // as given, without links, beside that
    bool in_place_;  // a file that a rename would put out of the way
    int file_ = -1;
    bool committed_ = false;
};

// Replaces `path` by these bytes in one step.
inline void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
    atomic_file file(path);
    file.write(bytes);
    file.commit();
}

}  // namespace spectral
