# SPDX-License-Identifier: Apache-2.0
# packaging/conan/conanfile.py: this tree as a Conan 2 package
#   conan create packaging/conan -o "spectral/*:fftw=True"     then test_package builds examples/consumer against it
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain
from conan.tools.files import copy, load


class Spectral(ConanFile):
    name = "spectral"
    license = "Apache-2.0"   # with fftw=True a program that links it is a work under the GPL
    description = "Spectral mixing and adaptive compute for transformers, on executors chosen at compile time"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"fftw": [True, False], "text": [True, False]}
    default_options = {"fftw": False, "text": True}

    @property
    def root(self):
        return os.path.normpath(os.path.join(self.recipe_folder, "..", ".."))

    def set_version(self):
        header = load(self, os.path.join(self.root, "include", "spectral", "version.hpp"))
        self.version = ".".join(re.findall(r"#define SPECTRAL_VERSION_\w+ (\d+)", header))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "include/*", "backends/*", "cmake/*"):
            copy(self, pattern, self.root, self.export_sources_folder)

    def requirements(self):
        self.requires("eigen/[>=3.4 <4]", transitive_headers=True)
        self.requires("nlohmann_json/[>=3.11 <4]", transitive_headers=True)
        if self.options.fftw:
            self.requires("fftw/[>=3.3.10 <4]", transitive_headers=True)
        if self.options.text:
            self.requires("pcre2/[>=10.40 <11]", transitive_headers=True)
            self.requires("utf8proc/[>=2.5 <3]", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for name, on in {"TESTS": False, "EXAMPLES": False, "FFTW": self.options.fftw, "TEXT": self.options.text}.items():
            toolchain.cache_variables["SPECTRAL_" + name] = bool(on)
        toolchain.cache_variables["SPECTRAL_CUDA"] = "OFF"
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install(component="library")

    def package_id(self):
        self.info.settings.clear()

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")   # its own spectral-config.cmake is found
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "spectral")]
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
