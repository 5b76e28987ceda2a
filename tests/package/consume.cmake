# Configures, builds and runs the consumer project SOURCE in the fresh folder BUILD.
file(REMOVE_RECURSE ${BUILD})
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BUILD} -G ${GENERATOR}
          -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_BUILD_TYPE=${CONFIG} ${OPTIONS}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(
  COMMAND ${CMAKE_COMMAND} --build ${BUILD} --config ${CONFIG} --target run
  COMMAND_ERROR_IS_FATAL ANY)
