# SPDX-License-Identifier: Apache-2.0
# cmake/install.cmake: install and export, one target file per component, so that find_package looks for no more than asked
#   cmake --install build/cpu                        headers, package files and the program spectral
#   cmake --install build/cpu --component library    without the program (component `program` is that alone)
# What is installed is what was configured: cuda where a CUDA Toolkit was found, no cpu with -DSPECTRAL_CPU=OFF.
include(CMakePackageConfigHelpers)
set(package_folder "${CMAKE_INSTALL_DATADIR}/cmake/spectral")

install(DIRECTORY include/ backends/reference/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
        FILES_MATCHING PATTERN "*.hpp")
if(SPECTRAL_CPU)
    install(DIRECTORY backends/cpu/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
        FILES_MATCHING PATTERN "*.hpp")
endif()
if(TARGET spectral_cuda)
    list(APPEND spectral_components cuda)
    install(DIRECTORY backends/cuda/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
        FILES_MATCHING PATTERN "*.hpp")
endif()
foreach(component IN LISTS spectral_components)
    install(TARGETS spectral_${component} EXPORT spectral-${component})
    install(EXPORT spectral-${component} NAMESPACE spectral:: DESTINATION "${package_folder}" COMPONENT library
            FILE spectral-${component}.cmake)
endforeach()
configure_package_config_file(cmake/spectral-config.cmake.in "${PROJECT_BINARY_DIR}/spectral-config.cmake"
                              INSTALL_DESTINATION "${package_folder}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/spectral-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/spectral-config.cmake" "${PROJECT_BINARY_DIR}/spectral-config-version.cmake"
              cmake/FindFFTW3.cmake cmake/FindPCRE2.cmake cmake/Findutf8proc.cmake
        DESTINATION "${package_folder}" COMPONENT library)
# each package brings its licence, where Debian looks for it; the program also those of the libraries compiled into it
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/libspectral-dev" COMPONENT library RENAME copyright)
if(TARGET spectral)
    install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/spectral" COMPONENT program RENAME copyright)
    install(FILES NOTICE DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/spectral" COMPONENT program)
endif()

# ---- Debian packages: cmake --preset package && cmake --build build/package --target package ----
#   libspectral-dev   the headers and what find_package reads
#   spectral          the program
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME spectral)
set(CPACK_PACKAGE_CONTACT "spectral developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL library)
if(TARGET spectral)
    list(APPEND CPACK_COMPONENTS_ALL program)
endif()
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libspectral-dev)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_ARCHITECTURE all)
set(dependencies "")   # what each component's headers include
if(SPECTRAL_CPU)
    list(APPEND dependencies libeigen3-dev)
    if(SPECTRAL_FFTW)
        list(APPEND dependencies libfftw3-dev)
    endif()
endif()
if(SPECTRAL_IO)
    list(APPEND dependencies nlohmann-json3-dev)
endif()
if(SPECTRAL_TEXT)
    list(APPEND dependencies libpcre2-dev libutf8proc-dev)
endif()
list(JOIN dependencies ", " CPACK_DEBIAN_LIBRARY_PACKAGE_DEPENDS)
set(CPACK_DEBIAN_LIBRARY_DESCRIPTION "${PROJECT_DESCRIPTION} (headers)")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME spectral)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAM_DESCRIPTION "${PROJECT_DESCRIPTION} (program)")
if(SPECTRAL_NATIVE)   # packages run on other machines than the one that built them
    set(CPACK_COMPONENTS_ALL library)
endif()
include(CPack)
