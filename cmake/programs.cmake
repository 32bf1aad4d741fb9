# SPDX-License-Identifier: Apache-2.0
# cmake/programs.cmake: how the programs, tests and benches of this repository are compiled
#
# spectral_own_flags carries what no user of the library gets: warnings, -march=native, sanitizers.
add_library(spectral_own_flags INTERFACE)
target_compile_options(spectral_own_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>)
if(SPECTRAL_NATIVE)
    target_compile_options(spectral_own_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()
if(SPECTRAL_SANITIZE)
    target_compile_options(spectral_own_flags INTERFACE
        -fsanitize=${SPECTRAL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")   # false alarms inside <regex> and <functional> once the sanitizers rewrote them
        target_compile_options(spectral_own_flags INTERFACE -Wno-maybe-uninitialized)
    endif()
    target_link_options(spectral_own_flags INTERFACE -fsanitize=${SPECTRAL_SANITIZE})
endif()

# every component that this build has
add_library(spectral_everything INTERFACE)
foreach(component IN LISTS spectral_components)
    target_link_libraries(spectral_everything INTERFACE spectral_${component})
endforeach()

# one line about this build, for `spectral info --build` and for the benches
set(native "portable")
if(SPECTRAL_NATIVE)
    set(native "-march=native")
endif()
set(transforms "no cpu executor")
if(SPECTRAL_CPU AND SPECTRAL_FFTW)
    set(transforms "own transforms, FFTW for other widths")
elseif(SPECTRAL_CPU)
    set(transforms "own transforms, matrix products for other widths")
endif()
set(spectral_build_info
    "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}, ${CMAKE_BUILD_TYPE}, ${native}, OpenMP ${OpenMP_CXX_VERSION}, ${transforms}")
if(SPECTRAL_SANITIZE)
    string(APPEND spectral_build_info ", sanitizers ${SPECTRAL_SANITIZE}")
endif()

# spectral_add_program(TARGET folder-under-bin sources...): an executable that links every component
function(spectral_add_program target folder)
    add_executable(${target} ${ARGN})
    target_link_libraries(${target} PRIVATE spectral_everything spectral_own_flags)
    target_compile_definitions(${target} PRIVATE "SPECTRAL_BUILD_INFO=\"${spectral_build_info}\"")
    set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF
        RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin/${folder}")
endfunction()
