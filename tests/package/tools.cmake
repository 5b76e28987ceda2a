# Installs the component "tools" of the build tree BUILD to PREFIX, from nothing, and runs what is there.
file(REMOVE_RECURSE ${PREFIX})
execute_process(
  COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX} --config ${CONFIG} --component tools
  COMMAND_ERROR_IS_FATAL ANY)
file(GLOB_RECURSE files RELATIVE ${PREFIX} ${PREFIX}/*)
list(SORT files)
set(expected bin/shard-ingest share/bash-completion/completions/shard-ingest share/man/man1/shard-ingest.1)
if(NOT files STREQUAL expected)
  message(FATAL_ERROR "installed ${files} instead of ${expected}")
endif()
execute_process(COMMAND ${PREFIX}/bin/shard-ingest --version COMMAND_ERROR_IS_FATAL ANY)
