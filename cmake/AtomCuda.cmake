# CUDA: the compiler, the options of our device code, and the function that declares a family.

set(ATOM_CUDA_ARCHS "90a" CACHE STRING "GPU architectures to build for: 90a, and any of 80;86;89;100a;120a")
if(NOT "90a" IN_LIST ATOM_CUDA_ARCHS)
  message(FATAL_ERROR "ATOM_CUDA_ARCHS is '${ATOM_CUDA_ARCHS}': 90a must be among them")
endif()

if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(ATOM_NVCC nvcc HINTS /usr/local/cuda/bin REQUIRED)
  set(CMAKE_CUDA_COMPILER "${ATOM_NVCC}")
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF)  # each family names its own
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
find_package(CUDAToolkit 13.0 REQUIRED)

# CMake 3.25 does not know how this compiler spells C++20.
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")

add_library(atom_cuda_options INTERFACE)
target_compile_options(atom_cuda_options INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-O3 --expt-relaxed-constexpr -Werror=all-warnings
    -Xcompiler=-Wall,-Wextra,-Werror>)

# atom_cuda_family(TARGET NAME ARCHS SOURCES...): adds the sources to TARGET, compiled for those of
# ARCHS that were asked for; TARGET gets ATOM_HAVE_<NAME> when there is one.
function(atom_cuda_family target name archs)
  set(wanted "")
  foreach(arch IN LISTS archs)
    if(arch IN_LIST ATOM_CUDA_ARCHS)
      list(APPEND wanted "${arch}-real")
    endif()
  endforeach()
  if(NOT wanted)
    return()
  endif()
  add_library(atom_cuda_${name} OBJECT ${ARGN})
  set_target_properties(atom_cuda_${name} PROPERTIES CUDA_ARCHITECTURES "${wanted}")
  target_link_libraries(atom_cuda_${name} PRIVATE atom_cuda_options atom_options CUDA::cudart_static)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:atom_cuda_${name}>)
  string(TOUPPER "${name}" upper)
  target_compile_definitions(${target} PRIVATE ATOM_HAVE_${upper}=1)
endfunction()
