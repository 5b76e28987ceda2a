#!/usr/bin/env bash
# Usage: coverage.sh SOURCE_DIR BUILD_DIR
# Prints line coverage of include/ and src/ after the tests of the coverage preset ran.
# gcov alone does it: given all data files at once, it merges what several programs say about one header.
set -euo pipefail
source_dir=$1 build_dir=$2

mapfile -d '' -t data < <(find "$build_dir" -name '*.gcda' -print0)
((${#data[@]})) || { echo "no coverage data under $build_dir: run the tests first" >&2; exit 1; }

cd "$source_dir"
"${GCOV:-gcov}" --no-output --relative-only --source-prefix "$source_dir" "${data[@]}" 2>/dev/null |
  awk -F"[':% ]+" '
    /^File /           { file = $2; wanted = file ~ /^(include|src)\// }
    /^Lines executed/  { if (wanted) { lines = $5; hit = lines * $3 / 100; all += lines; got += hit
                                       printf "%6.1f %%  %5d lines  %s\n", $3, lines, file; wanted = 0 } }
    END                { if (!all) exit 1
                         printf "%6.1f %%  %5d lines  total\n", 100 * got / all, all }'
