# Sourced by the scripts that build something: tests/run, examples/run, tests/*-long, ...
#
# ensure_packages PACKAGE... : makes sure that these Debian packages are installed. Installs what is missing
# where that is allowed (root, or sudo without a password); otherwise prints the command to run and exits 1.
# Without apt-get it does nothing: CMake's find_package then says what is missing.
ensure_packages() {
  command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || return 0

  local missing=() package
  # A compiler and CMake may come from anywhere, so only their commands are asked for.
  command -v c++ >/dev/null || [[ -n ${CXX:-} ]] || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0

  local as_root=()
  if ((EUID != 0)); then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      printf 'Missing packages. Run this as root, then try again:\n\n' >&2
      printf '  apt-get update && apt-get install -y --no-install-recommends %s\n\n' "${missing[*]}" >&2
      exit 1
    fi
  fi

  printf 'Installing %s\n' "${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update &&
         "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
           apt-get install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"
}

# What the presets need on GCC.
preset_packages=(ninja-build libboost-dev nlohmann-json3-dev libxxhash-dev libsqlite3-dev libzstd-dev libcli11-dev catch2
  libbenchmark-dev pkg-config)

# build_release TARGET : builds one program of the release preset, from the folder of the project.
build_release() {
  ensure_packages "${preset_packages[@]}"
  cmake --preset release >/dev/null
  cmake --build --preset release --target "$1"
}
