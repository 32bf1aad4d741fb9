# SPDX-License-Identifier: Apache-2.0
# packaging/vcpkg/ports/spectral/portfile.cmake: this tree as a vcpkg port
#   vcpkg install spectral --overlay-ports=packaging/vcpkg/ports
# In a registry, SOURCE_PATH comes from vcpkg_from_git with the release's commit.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS options FEATURES
    fftw SPECTRAL_FFTW
    io SPECTRAL_IO
    text SPECTRAL_TEXT)
vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS ${options} -DSPECTRAL_TESTS=OFF -DSPECTRAL_EXAMPLES=OFF -DSPECTRAL_CUDA=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/spectral)
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug" "${CURRENT_PACKAGES_DIR}/lib")   # headers only
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
