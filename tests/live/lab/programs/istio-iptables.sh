#!/bin/sh
# A stand-in for the script of istio/proxy_init: the same chains, with -p PORT and -u UID.
while getopts p:u: option; do
  case $option in
    p) port=$OPTARG ;;
    u) uid=$OPTARG ;;
    *) exit 2 ;;
  esac
done
nat() { iptables -t nat "$@"; }
{
  nat -D PREROUTING -p tcp -j ISTIO_INBOUND
  nat -D OUTPUT -p tcp -j ISTIO_OUTPUT
  for chain in ISTIO_OUTPUT ISTIO_INBOUND ISTIO_REDIRECT; do
    nat -F $chain
    nat -X $chain
  done
} 2>/dev/null
set -e
nat -N ISTIO_REDIRECT
nat -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports "$port"
nat -N ISTIO_INBOUND
nat -A PREROUTING -p tcp -j ISTIO_INBOUND
nat -A ISTIO_INBOUND -p tcp -j ISTIO_REDIRECT
nat -N ISTIO_OUTPUT
nat -A OUTPUT -p tcp -j ISTIO_OUTPUT
nat -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ISTIO_REDIRECT
nat -A ISTIO_OUTPUT -m owner --uid-owner "$uid" -j RETURN
nat -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
nat -A ISTIO_OUTPUT -j ISTIO_REDIRECT
