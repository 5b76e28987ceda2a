# Installs the build tree BUILD of SOURCE to PREFIX, from nothing.
# By way of another folder: what is found at PREFIX later must not depend on where it was installed to.
file(REMOVE_RECURSE ${PREFIX} ${PREFIX}.moved)
execute_process(
  COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX}.moved --config ${CONFIG}
  COMMAND_ERROR_IS_FATAL ANY)
file(RENAME ${PREFIX}.moved ${PREFIX})

# A user must see neither where this was built nor xxHash, which is compiled in.
file(GLOB_RECURSE files ${PREFIX}/*.cmake ${PREFIX}/*.pc)
foreach(file IN LISTS files)
  file(READ ${file} text)
  foreach(secret IN ITEMS ${SOURCE} ${BUILD} xxHash)
    string(FIND "${text}" ${secret} at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${file} mentions ${secret}")
    endif()
  endforeach()
endforeach()
