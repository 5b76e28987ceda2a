# shard_component(name SOURCES file... LINKS target... DEPENDENCY "find_dependency arguments")
#
# An optional part of the library: its target is shard_name, alias shard::name, its header include/shard/name.hpp. It
# is installed with an export file of its own, so that find_package(shard COMPONENTS name) needs what it links and
# find_package(shard) does not.
function(shard_component name)
  cmake_parse_arguments(arg "" "DEPENDENCY" "SOURCES;LINKS" ${ARGN})
  set(target shard_${name})

  add_library(${target} ${arg_SOURCES})
  add_library(shard::${name} ALIAS ${target})
  target_sources(${target} PUBLIC
    FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include
    FILES ${PROJECT_SOURCE_DIR}/include/shard/${name}.hpp)
  target_link_libraries(${target} PUBLIC shard::shard PRIVATE ${arg_LINKS})
  shard_warnings(${target})
  set_target_properties(${target} PROPERTIES
    EXPORT_NAME ${name}
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL}
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "SHARED_LIBRARY")
    target_compile_definitions(${target} PRIVATE SHARD_BUILDING)
  endif()

  if(SHARD_INSTALL)
    set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/shard)
    install(TARGETS ${target} EXPORT shard_${name}Targets FILE_SET HEADERS)
    install(EXPORT shard_${name}Targets NAMESPACE shard:: DESTINATION ${package_dir})
    # Read by shardConfig.cmake before the targets.
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/shard_${name}Dependencies.cmake
      "find_dependency(${arg_DEPENDENCY})\n")
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/shard_${name}Dependencies.cmake
      DESTINATION ${package_dir})
  endif()
endfunction()
