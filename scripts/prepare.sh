# Sourced by scripts/test, scripts/demo and scripts/cluster: from a minimal Debian 12 or 13 to built executables.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Says what comes next, with the time that has passed.
step() { printf '\n[%3ds] %s\n' "$SECONDS" "$*"; }

# Ends the script with a reason.
die() { printf '%s\n' "$*" >&2; exit 1; }

# Installs what is missing: npm, and the packages of the named groups of scripts/packages.txt.
install_packages() {
  local missing=() package
  for package in $(awk -v groups=" $* " '
      /^# [a-z]+:/ { group = substr($2, 1, length($2) - 1) }
      /^[a-z0-9]/ && index(groups, " " group " ") { print $1 }' scripts/packages.txt); do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  # Any Node.js with npm will do to install the packages, among which is the one that everything runs on.
  command -v npm >/dev/null || missing+=(nodejs npm)
  [ ${#missing[@]} -eq 0 ] && return
  step "Installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >/dev/null
  # The tests start what they need in namespaces of their own; this machine's services stay as they are.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=1
  fi
  local status=0
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null || status=$?
  [ -z "$made" ] || rm -f "$policy"
  return "$status"
}

# Installs the npm packages, among them the Node.js that everything runs on, and puts that first in PATH.
install_node_modules() {
  if ! npm ls --depth=0 >/dev/null 2>&1; then
    step 'Installing npm packages (the pinned Node.js is one of them)'
    npm ci --no-audit --no-fund --loglevel=error
  fi
  export PATH="$PWD/node_modules/.bin:$PATH"
}

prepare() {
  [ "$(id -u)" -eq 0 ] || die 'Network namespaces need root: run this as root.'
  command -v apt-get >/dev/null || die 'apt-get is missing: run this on Debian 12 or 13.'
  install_packages "$@"
  install_node_modules
  step 'Building the executables'
  npm run --silent build
}
