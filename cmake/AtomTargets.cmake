# Compile options shared by every target of ours, and the functions that declare them.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")
if(ATOM_SANITIZE)
  set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")  # line numbers are all that reports need; a quarter faster
endif()

add_library(atom_options INTERFACE)
target_compile_options(atom_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wno-sign-conversion -Werror>
  # Floating-point results must not depend on what a compiler chooses to contract.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off -fno-math-errno>)
target_include_directories(atom_options INTERFACE "${CMAKE_SOURCE_DIR}/src")
target_link_options(atom_options INTERFACE -static-libstdc++ -static-libgcc)
target_link_libraries(atom_options INTERFACE OpenMP::OpenMP_CXX)
if(ATOM_SANITIZE)
  target_compile_options(atom_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${ATOM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(atom_options INTERFACE -fsanitize=${ATOM_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # Its check of function types and coroutines do not go together (clang 14 cannot assemble them).
    target_compile_options(atom_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=function>)
  endif()
endif()
if(ATOM_COVERAGE)
  target_compile_options(atom_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:--coverage -fprofile-update=atomic>)
  target_link_options(atom_options INTERFACE --coverage)
endif()
if(ATOM_FUZZ)
  target_compile_options(atom_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
endif()

# atom_together(TARGET): its files are compiled several at a time, because most of a compiler's time
# goes into the headers and templates of libraries. What a file keeps in its anonymous namespace
# must then have another name than its neighbours'; preset clang compiles each file alone.
function(atom_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD "${ATOM_UNITY}" UNITY_BUILD_BATCH_SIZE 8)
endfunction()
# atom_alone(FILE...): these are compiled alone nevertheless.
function(atom_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# atom_room(NAME DEPS...): the static library of one folder under src/, from all its .cpp files.
# DEPS are the only rooms it may include (tools/check_tree.py compares the includes with them).
function(atom_room name)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp")
  add_library(atom_${name} STATIC ${sources})
  atom_together(atom_${name})
  atom_room_links(${name} ${ARGN})
endfunction()

# atom_room_links(NAME DEPS...): the same declaration for a room that chooses its sources itself.
function(atom_room_links name)
  target_link_libraries(atom_${name} PUBLIC atom_options)
  foreach(dep IN LISTS ARGN)
    target_link_libraries(atom_${name} PUBLIC atom_${dep})
  endforeach()
endfunction()

# atom_test(NAME LABEL DEPS...): one GoogleTest program from tests/NAME/*.cpp, each of its
# cases a ctest of its own with the given label.
function(atom_test name label)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp")
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_test ${sources})
  atom_together(${name}_test)
  target_include_directories(${name}_test PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_compile_definitions(${name}_test PRIVATE ATOM_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data")
  target_link_libraries(${name}_test PRIVATE atom_options GTest::gtest GTest::gtest_main)
  foreach(dep IN LISTS ARGN)
    target_link_libraries(${name}_test PRIVATE atom_${dep})
  endforeach()
  add_test(NAME ${name} COMMAND ${name}_test)
  set_tests_properties(${name} PROPERTIES LABELS "${label}")
endfunction()
