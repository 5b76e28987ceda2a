#!/usr/bin/env python3
"""Usage: coverage.py SOURCE_DIR BUILD_DIR [--missing FILE...]

Prints what the tests of the coverage preset have run of include/ and src/, for each file, and fails if that is less
than 95 % of the lines or 90 % of the branches. --missing prints the lines of these files that have not run (-), or not each way (?).

What counts as a branch is a decision that the code has: not the edges that the compiler adds to each call that may
throw, nor what it adds where a scope ends, nor the comparisons that it writes for "= default". A line or branch of a template has run if it has in any instance: reports that
count each instance by itself mix up the branches of those that several programs have.
The sinks, which are components with tests of their own, are not counted.
"""
import json
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

MIN_LINES, MIN_BRANCHES = 95.0, 90.0
WANTED = re.compile(r"^(include|src)/(?!.*\b(sqlite|jsonl)\w*\.[ch]pp$)")
# Lines with nothing to decide: ends of scopes, and comparisons that the compiler writes.
NO_DECISION = re.compile(r"^[\s{}();,]*$|= default;")


def main():
    source, build = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    # Not the schedule explorer's nor the simulation's: they are optimised, whatever the preset says, and then branches are no
    # longer those of the code.
    optimised = {"test_schedule.dir", "shard_simulation.dir"}
    data = sorted(str(path) for path in build.rglob("*.gcda") if optimised.isdisjoint(path.parts))
    if not data:
        sys.exit(f"no coverage data under {build}: run the tests first")

    lines = defaultdict(lambda: defaultdict(int))  # file -> line -> count
    seen = defaultdict(set)  # (file, line) -> the counts of its branches, each time that it was compiled
    texts = {}
    for start in range(0, len(data), 8):
        command = [os.environ.get("GCOV", "gcov"), "--branch-probabilities", "--json-format", "--stdout"]
        output = subprocess.run(command + data[start:start + 8], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                cwd=build, check=True).stdout
        for document in output.splitlines():
            if not document.startswith(b"{"):
                continue
            for entry in json.loads(document)["files"]:
                path = os.path.relpath(os.path.join(build, entry["file"]), source)
                if not WANTED.match(path):
                    continue
                if path not in texts:
                    texts[path] = (source / path).read_text().splitlines()
                # After the instances of a template comes their sum, without a name; its branches are theirs in a row.
                named = {line["line_number"] for line in entry["lines"] if "function_name" in line}
                for line in entry["lines"]:
                    number = line["line_number"]
                    lines[path][number] += line["count"]
                    if "function_name" not in line and number in named:
                        continue
                    if not NO_DECISION.search(texts[path][number - 1]):
                        seen[path, number].add(tuple(min(count, 1) for count in decisions(line["branches"])))

    branches = defaultdict(dict)  # file -> (line, index) -> whether it was taken
    for (path, number), instances in seen.items():
        # A function that is always inlined has its branches once for each place, in a row.
        once = math.gcd(*map(len, instances))
        for instance in instances:
            for index, taken in enumerate(instance):
                key = number, index % once
                branches[path][key] = branches[path].get(key, 0) or taken

    if len(sys.argv) >= 5 and sys.argv[3] == "--missing":
        for path in sys.argv[4:]:
            print(path)
            partly = {number for (number, _), taken in branches[path].items() if not taken}
            for number, text in enumerate(texts[path], 1):
                if lines[path].get(number, 1) == 0 or number in partly:
                    print(f"{number:5} {'-' if lines[path].get(number, 1) == 0 else '?'} {text}")
        return 0

    rows = [(path, len(lines[path]), sum(map(bool, lines[path].values())), len(branches[path]),
             sum(map(bool, branches[path].values()))) for path in sorted(lines)]
    rows.append(("total", *(sum(row[column] for row in rows) for column in range(1, 5))))
    for path, all_lines, run, all_branches, taken in rows:
        print(f"{percent(run, all_lines):6.1f} % of {all_lines:5} lines  "
              f"{percent(taken, all_branches):6.1f} % of {all_branches:5} branches  {path}")
    _, all_lines, run, all_branches, taken = rows[-1]
    if percent(run, all_lines) < MIN_LINES or percent(taken, all_branches) < MIN_BRANCHES:
        print(f"too little: {MIN_LINES} % of the lines and {MIN_BRANCHES} % of the branches are needed")
        return 1
    return 0


def decisions(branches):
    """The counts of those that are no calls: a call that may throw has two edges, on and into the handler."""
    kept, i = [], 0
    while i < len(branches):
        if i + 1 < len(branches) and (branches[i]["throw"] or branches[i + 1]["throw"]):
            i += 2
            continue
        if not branches[i]["throw"]:
            kept.append(branches[i]["count"])
        i += 1
    return kept


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


if __name__ == "__main__":
    sys.exit(main())
