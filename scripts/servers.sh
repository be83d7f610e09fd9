#!/usr/bin/env bash
# Installs what the tests and the demo need on Debian or Ubuntu: server binaries only.
# No system service is ever started. Running it again does nothing when all is there.
#
#   scripts/servers.sh demo    one MySQL or MariaDB server
#   scripts/servers.sh test    MySQL 9, MariaDB 10.11 or later, ZooKeeper, etcd, consul, a browser,
#                              network tools
#   scripts/servers.sh lint    the tools of .ci/run beside cargo
#   scripts/servers.sh mirror  nothing: it says where packages would be fetched from
#
# Packages come from where this machine's apt gets them, through the proxy that apt uses. VTORC_DEBIAN_MIRROR names
# another mirror of Debian; on anything but Debian it must be set for MySQL.
set -euo pipefail

what="${1:-test}"
cache="${VTORC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vtorc}"
mysql_tree="$cache/mysql-9"

say() { printf '==> %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

have_file() { for f in "$@"; do [ -e "$f" ] && return 0; done; return 1; }

cannot_install() {
  say "this script installs with apt, which is not here; please install: $*"
  exit 1
}

# Keeps packages from starting the services they bring: exit status 101 means "not allowed".
without_services() {
  local policy=/usr/sbin/policy-rc.d made=no
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made=yes
  fi
  local status=0
  "$@" || status=$?
  if [ "$made" = yes ]; then as_root rm -f "$policy"; fi
  return "$status"
}

apt_updated=no
apt_install() {
  command -v apt-get >/dev/null || cannot_install "$@"
  if [ "$apt_updated" = no ]; then
    say "reading the package lists"
    as_root apt-get update -qq
    apt_updated=yes
  fi
  say "installing $*"
  without_services as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need_compiler() { command -v cc >/dev/null || apt_install gcc libc6-dev; }

need_mariadb() {
  have_file /usr/sbin/mariadbd /usr/libexec/mariadbd /usr/bin/mariadbd ||
    apt_install mariadb-server-core mariadb-client-core
  # mariadb-install-db needs these two; some Debian releases ship them in mariadb-server.
  have_file /usr/bin/mariadb-install-db /usr/bin/mysql_install_db || apt_install mariadb-server-core
}

need_zookeeper() {
  command -v java >/dev/null || apt_install default-jre-headless
  have_file /usr/share/java/zookeeper.jar || apt_install zookeeper
}

need_etcd() {
  command -v etcd >/dev/null || apt_install etcd-server
  command -v etcdctl >/dev/null || apt_install etcd-client
}

# Each archive that apt is told of: its address and its suite, a line each. Understands one-line files and deb822 ones.
apt_archives() {
  local etc="${VTORC_APT_ETC:-/etc/apt}" file
  for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
    [ -r "$file" ] || continue
    # deb [option=value ...] address suite component ...
    sed -n 's/^[[:space:]]*deb[[:space:]][[:space:]]*\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\)[[:space:]][[:space:]]*\([^[:space:]]*\).*/\2 \3/p' "$file"
  done
  for file in "$etc"/sources.list.d/*.sources; do
    [ -r "$file" ] || continue
    # Paragraphs of fields; a field goes on where a line begins with a blank.
    awk '
      function tell(  u, s, i, j, us, ss) {
        if (types ~ /(^| )deb( |$)/ && enabled != "no") {
          u = split(uris, us, " "); s = split(suites, ss, " ")
          for (i = 1; i <= u; i++) for (j = 1; j <= s; j++) print us[i], ss[j]
        }
        types = uris = suites = enabled = field = ""
      }
      /^#/ { next }
      /^[ \t]*\r?$/ { tell(); next }
      /^[^ \t]/ { field = tolower($1); sub(/:.*/, "", field); sub(/^[^:]*:/, "") }
      { gsub(/[ \t\r]+/, " ") }
      field == "types" { types = types " " $0 }
      field == "uris" { uris = uris " " $0 }
      field == "suites" { suites = suites " " $0 }
      field == "enabled" { enabled = tolower($1) }
      END { tell() }
    ' "$file"
  done
}

# The mirror of Debian, or of whatever this is: the first archive by http that ends in its name and is not only for
# security updates.
mirror() {
  local distribution="$1" address suite
  if [ "$distribution" = debian ] && [ -n "${VTORC_DEBIAN_MIRROR:-}" ]; then
    echo "${VTORC_DEBIAN_MIRROR%/}"
    return
  fi
  while read -r address suite; do
    case "$address $suite" in
      *-security*) ;;
      http*"/$distribution "* | http*"/$distribution/ "*)
        echo "${address%/}"
        return
        ;;
    esac
  done < <(apt_archives)
  return 1
}

no_mirror() {
  say "no mirror of Debian is known: none is in /etc/apt/sources.list or /etc/apt/sources.list.d." \
    "Set VTORC_DEBIAN_MIRROR to the address of one, the part before /dists, and run this again"
  exit 1
}

# What apt reaches its archives through, for the programs that do not ask apt.
use_proxy_of_apt() {
  local proxy
  [ -z "${http_proxy:-}" ] && command -v apt-config >/dev/null || return 0
  proxy="$(apt-config --format '%v' dump Acquire::http::Proxy)"
  case "$proxy" in http*) export http_proxy="$proxy" ;; esac
}

# consul was packaged last for Debian 11 and Ubuntu 22.04; it needs nothing but libc.
consul_packages='
debian pool/main/c/consul/consul_1.8.7+dfsg1-2+b3_amd64.deb e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9
ubuntu pool/universe/c/consul/consul_1.8.7+dfsg1-3_amd64.deb 5dffb9dde12730b701f475005b2baf371aa7ea3c3bb4a183abd1c39767714c38
'
need_consul() {
  if have_file "$cache/consul/.complete" || command -v consul >/dev/null; then return; fi
  [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || {
    say "consul for the tests is prepared on Debian amd64 only; put a consul of your own into the PATH"
    return
  }
  local distribution path sum from known=no package="$cache/consul.deb"
  mkdir -p "$cache"
  use_proxy_of_apt
  while read -r distribution path sum; do
    [ -n "$path" ] || continue
    from="$(mirror "$distribution")" || continue
    known=yes
    say "fetching consul from $from/$path"
    if curl --fail --silent --show-error --location --retry 3 --output "$package" "$from/$path" &&
      echo "$sum  $package" | sha256sum --check --quiet; then
      rm -rf "$cache/consul"
      dpkg-deb --extract "$package" "$cache/consul"
      rm -f "$package"
      touch "$cache/consul/.complete"
      return
    fi
  done <<<"$consul_packages"
  [ "$known" = yes ] || no_mirror
  say "consul could not be had; put one of your own into the PATH"
  exit 1
}

# MySQL itself is only in Debian's unstable suite: its own small tree, run through its own loader.
need_mysql() {
  [ -e "$mysql_tree/.complete" ] && return
  [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || {
    say "MySQL for the tests is prepared on Debian amd64 only; set VTORC_TEST_MYSQLD to a mysqld of your own"
    return
  }
  local from
  from="$(mirror debian)" || no_mirror
  use_proxy_of_apt
  command -v debootstrap >/dev/null || apt_install debootstrap
  say "fetching MySQL 9 into $mysql_tree (about a minute)"
  rm -rf "$mysql_tree.part"
  mkdir -p "$cache"
  as_root debootstrap --variant=minbase \
    --include=mysql-server-core,mysql-client-core \
    sid "$mysql_tree.part" "$from" >"$cache/debootstrap.log" 2>&1 ||
    { tail -5 "$cache/debootstrap.log" >&2; say "debootstrap failed; its log is $cache/debootstrap.log"; exit 1; }
  as_root chown -R "$(id -u)" "$mysql_tree.part"
  touch "$mysql_tree.part/.complete"
  mv "$mysql_tree.part" "$mysql_tree"
}

need_tools() { command -v curl >/dev/null || apt_install curl; command -v openssl >/dev/null || apt_install openssl; }
need_browser() { have_file /usr/bin/chromedriver || apt_install chromium chromium-driver; }
need_network_tools() {
  have_file /usr/sbin/nft /sbin/nft || apt_install nftables
  have_file /usr/sbin/ip /sbin/ip || apt_install iproute2
}

case "$what" in
  demo)
    need_compiler
    if ! have_file /usr/sbin/mysqld "$mysql_tree/.complete"; then need_mariadb; fi
    ;;
  test)
    need_compiler
    need_mariadb
    need_zookeeper
    need_etcd
    need_mysql
    need_tools
    need_consul
    need_browser
    need_network_tools
    ;;
  lint)
    command -v shellcheck >/dev/null || apt_install shellcheck
    command -v codespell >/dev/null || apt_install codespell
    ;;
  mirror)
    mirror debian || mirror ubuntu || no_mirror
    ;;
  *)
    say "usage: $0 demo|test|lint|mirror"
    exit 2
    ;;
esac
