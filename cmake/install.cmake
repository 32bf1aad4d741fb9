# SPDX-License-Identifier: Apache-2.0
# cmake/install.cmake: install and export, one target file per component, so that find_package looks for no more than asked
#   cmake --install build/cpu --component library    without the programs
include(CMakePackageConfigHelpers)
set(package_folder "${CMAKE_INSTALL_DATADIR}/cmake/spectral")

install(DIRECTORY include/ backends/reference/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
        FILES_MATCHING PATTERN "*.hpp")
if(SPECTRAL_CPU)
    install(DIRECTORY backends/cpu/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
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
