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
  # The tests start what they need in namespaces of their own: of what is installed, no service is started, nor at the next boot.
  (
    policy=/usr/sbin/policy-rc.d before=$(enabled_services) made=
    trap '[ -z "$made" ] || rm -f "$policy"; disable_services "$before"' EXIT
    if [ ! -e "$policy" ]; then
      made=1
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod +x "$policy"
    fi
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  )
}

# Prints what starts when the machine boots: units of systemd, and scripts of System V, one a line.
enabled_services() {
  {
    find /etc/systemd/system -path '*.wants/*' -printf '%f\n'
    find /etc/rc[2-5].d -name 'S*' -printf '%f\n' | sed 's/^S[0-9]*//; s/$/.service/'
  } 2>/dev/null | sort -u
}

# Disables what is enabled now and is not in the given list.
disable_services() {
  local unit units
  units=$(enabled_services | grep -vxF -- "$1") || true
  for unit in $units; do
    systemctl --quiet disable "$unit" >/dev/null 2>&1 || printf 'Could not disable "%s": it starts at the next boot.\n' "$unit" >&2
  done
}

# Installs the npm packages, among them the Node.js that everything runs on.
install_node_modules() {
  npm ls --depth=0 >/dev/null 2>&1 && return
  step 'Installing npm packages (the pinned Node.js is one of them)'
  npm ci --no-audit --no-fund --loglevel=error
}

prepare() {
  [ "$(uname -m)" = x86_64 ] || die "This is a machine of $(uname -m): build and test on one of x86_64."
  [ "$(id -u)" -eq 0 ] || die 'Network namespaces need root: run this as root.'
  command -v apt-get >/dev/null || die 'apt-get is missing: run this on Debian 12 or 13.'
  if command -v npm >/dev/null; then
    # Neither needs the other: npm's packages run no script when they are installed.
    install_node_modules &
    install_packages "$@"
    wait $!
  else
    install_packages "$@"
    install_node_modules
  fi
  export PATH="$PWD/node_modules/.bin:$PATH"
  step 'Building the executables'
  npm run --silent build
}
