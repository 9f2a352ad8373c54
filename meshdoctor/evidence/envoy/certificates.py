"""Envoy's `/certs`, decoded into facts. Only proxies with TLS have any."""

from typing import Final

import msgspec

from meshdoctor.evidence.envoy.facts import Certificate, Certificates
from meshdoctor.evidence.envoy.pages import decode_page
from meshdoctor.evidence.envoy.wire import Wire


class _Name(Wire, frozen=True):
    uri: str = ""


class _Certificate(Wire, frozen=True):
    serial_number: str = ""
    subject_alt_names: tuple[_Name, ...] = ()
    valid_from: str = ""
    expiration_time: str = ""


class _Context(Wire, frozen=True):
    ca_cert: tuple[_Certificate, ...] = ()
    cert_chain: tuple[_Certificate, ...] = ()


class _Certs(Wire, frozen=True):
    certificates: tuple[_Context, ...]


_CERTS: Final = msgspec.json.Decoder(_Certs, strict=False)


def decode_certificates(document: str, raw: bytes) -> Certificates:
    """`{"certificates": [{"ca_cert": [...], "cert_chain": [{"serial_number": "08", ...}]}]}`.

    Each is told once, where it stands first: every TLS context lists its own again. Raises
    DecodeError.
    """
    written: _Certs = decode_page(_CERTS.decode, document, raw)
    chains: dict[tuple[_Certificate, ...], tuple[Certificate, ...]] = {}
    authorities: dict[_Certificate, Certificate] = {}
    for number, context in enumerate(written.certificates):
        below = f"/certificates/{number}"
        chain = context.cert_chain
        if chain and chain not in chains:
            chains[chain] = tuple(
                _certificate(each, f"{below}/cert_chain/{place}")
                for place, each in enumerate(chain)
            )
        for place, each in enumerate(context.ca_cert):
            if each not in authorities:
                authorities[each] = _certificate(each, f"{below}/ca_cert/{place}")
    return Certificates(chains=tuple(chains.values()), authorities=tuple(authorities.values()))


def _certificate(written: _Certificate, pointer: str) -> Certificate:
    return Certificate(
        serial=written.serial_number,
        uris=tuple(name.uri for name in written.subject_alt_names if name.uri),
        valid_from=written.valid_from,
        expires=written.expiration_time,
        pointer=pointer,
    )
