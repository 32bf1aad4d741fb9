// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/atomic_file.hpp: a file that appears whole under its name, or not at all
//
// Bytes go to a temporary file in the same directory; commit() syncs it and renames it over the target, then syncs the
// directory. A reader therefore sees the old file or the new one, an old file that somebody has mapped is never
// truncated, and a failure (disk full, file size limit, no permission) throws one sentence and leaves no temporary.
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
    explicit atomic_file(const std::filesystem::path& path) : path_(path), temporary_(path) {
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
        if (::fsync(file_) != 0) fail_with("cannot be synced to disk", errno);
        const int file = std::exchange(file_, -1);
        if (::close(file) != 0) fail_with("cannot be closed", errno);
        if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with("cannot be renamed into place", errno);
        committed_ = true;
        const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
        const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory >= 0) {
            ::fsync(directory);  // some file systems refuse to sync a directory: the file itself is safe already
            ::close(directory);
        }
    }

private:
    void abandon() noexcept {
        if (file_ >= 0) ::close(std::exchange(file_, -1));
        if (!committed_) ::unlink(temporary_.c_str());
        committed_ = true;
    }
    [[noreturn]] void fail_with(const char* what, int code) {
        abandon();
        fail(path_.string(), "the file ", what, ": ", std::strerror(code));
    }

    std::filesystem::path path_, temporary_;
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
