# Warnings are this project's own business: PRIVATE, never seen by a host.
# They become errors only through CMAKE_COMPILE_WARNING_AS_ERROR, which the presets set.
# -Wnull-dereference is left out: GCC 12 at -O2 reports it inside inlined libstdc++ code.
function(shard_warnings target)
  target_compile_options(${target} PRIVATE
    $<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:
      -Wall -Wextra -Wpedantic
      -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wcast-align
      -Wnon-virtual-dtor -Woverloaded-virtual>
    # GCC 12 sees an overlap in any inlined "text" + std::string that cannot be (its bug 105651).
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
    # "beta" is the part that checks the declared lock order (ACQUIRED_BEFORE).
    $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wthread-safety -Wthread-safety-beta>)
endfunction()
