#!/bin/sh
# What only tests need and no Python package brings: a headless Chromium for the UI, PostgreSQL for a tracking server and shared
# studies, OpenSSH's server for a remote of artifacts, Slurm for arrays.
# Debian or Ubuntu, as root: `sh scripts/install_services.sh`. Tests that miss one of them are skipped and say so.
set -eu

browser=""
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && browser=$name
done
database=$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null || true)
sshd=$(command -v sshd || ls /usr/sbin/sshd 2>/dev/null || true)

wanted=""
[ -n "$browser" ] || wanted="chromium"
[ -n "$database" ] || wanted="$wanted postgresql"
[ -n "$sshd" ] || wanted="$wanted openssh-server"
command -v slurmctld >/dev/null 2>&1 || wanted="$wanted slurmctld slurmd slurm-client"
[ -n "$wanted" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    echo "not installed, since that takes root and apt-get: $wanted; the tests that need them will be skipped" >&2
    exit 0
fi
echo "installing$wanted"
apt-get update -q >/dev/null || true
# The headless build is half the size where the distribution has it.
if [ -z "$browser" ] && apt-cache show chromium-headless-shell >/dev/null 2>&1; then
    wanted=$(echo "$wanted" | sed 's/chromium/chromium-headless-shell/')
fi
# shellcheck disable=SC2086
# Tests start what they need on ports of their own: no service is to be started by the installation.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $wanted >/dev/null ||
    echo "could not be installed: $wanted; the tests that need them will be skipped" >&2
