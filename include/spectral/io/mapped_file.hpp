// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/mapped_file.hpp: a file mapped read-only into memory
//
// The pages are read when they are touched, so opening a large checkpoint costs nothing. Files of ours are replaced by
// rename and never shortened, so a mapping stays valid; a foreign program that truncates a mapped file kills us.
#pragma once
#include <spectral/core/check.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <utility>

namespace spectral {

class mapped_file {
public:
    explicit mapped_file(const std::filesystem::path& path) {
        const std::string where = path.string();
        // not blocking: a pipe under this name is refused below instead of waited for
        const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        check(file >= 0, where, "the file cannot be opened: ", std::strerror(errno));
        struct closer {
            int file;
            ~closer() { ::close(file); }
        } close_at_end{file};
        struct ::stat status {};
        check(::fstat(file, &status) == 0, where, "the file cannot be examined: ", std::strerror(errno));
        check(S_ISREG(status.st_mode), where, "expected a regular file, found a directory or a device");
        check(status.st_size > 0, where, "the file is empty");
        size_ = static_cast<std::size_t>(status.st_size);
        void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        check(address != MAP_FAILED, where, "the file cannot be mapped: ", std::strerror(errno));
        data_ = static_cast<const std::byte*>(address);
    }
    ~mapped_file() {
        if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
    }
    mapped_file(mapped_file&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace spectral
