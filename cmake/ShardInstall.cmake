# What `cmake --install` puts into a prefix: library, headers, CMake package, shard.pc, licence.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/shard)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS shard EXPORT shardTargets FILE_SET HEADERS)
install(EXPORT shardTargets NAMESPACE shard:: DESTINATION ${package_dir})

configure_package_config_file(cmake/shardConfig.cmake.in shardConfig.cmake
  INSTALL_DESTINATION ${package_dir}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(shardConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/shardConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/shardConfigVersion.cmake
  DESTINATION ${package_dir})

# The prefix is named relative to the .pc file, so that an installed tree may be moved;
# a library directory outside the prefix (absolute CMAKE_INSTALL_LIBDIR) rules that out.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
  set(pc_prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /prefix/${pkgconfig_dir} /prefix)
  string(REGEX REPLACE "/$" "" up "${up}")
  set(pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(dir IN ITEMS LIB INCLUDE)
  if(IS_ABSOLUTE ${CMAKE_INSTALL_${dir}DIR})
    set(pc_${dir}DIR ${CMAKE_INSTALL_${dir}DIR})
  else()
    set(pc_${dir}DIR "\${prefix}/${CMAKE_INSTALL_${dir}DIR}")
  endif()
endforeach()
get_target_property(type shard TYPE)
set(pc_definitions)
if(type STREQUAL "SHARED_LIBRARY")
  set(pc_definitions " -DSHARD_SHARED")
endif()
configure_file(cmake/shard.pc.in shard.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/shard.pc DESTINATION ${pkgconfig_dir})

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
