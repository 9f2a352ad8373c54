"""The catalogue is whole: each check that was promised is there, under its code and its name."""

from typing import Final, NamedTuple

import pytest

from meshdoctor_checks import CHECKS

BY_CODE: Final = {check.code: check for check in CHECKS}


class Row(NamedTuple):
    """What is promised of a check: `explains` are the codes that it is a cause of."""

    code: str
    name: str
    severity: str
    explains: tuple[str, ...]


def rows(table: str) -> list[Row]:
    words = [line.split() for line in table.splitlines() if line]
    return [Row(code, name, severity, tuple(codes)) for code, name, severity, *codes in words]


# Code, name, severity where nothing else is known of the case, and what it explains. Codes are
# stable: a line is added here, never changed, whatever becomes of the check.
CATALOGUE: Final = rows(
    """
MD101 control-plane-component-down error MD103 MD207 MD306 MD307
MD102 control-plane-component-missing error MD101 MD306
MD103 registry-not-followed error MD307 MD403
MD104 consul-without-leader error MD103 MD207
MD105 consul-dns-unreachable error
MD106 kubectl-context-mismatch warning
MD107 tracing-unreachable info
MD108 proxy-version-skew warning
MD201 service-without-protocol error MD401 MD403
MD202 registrator-drops-metadata error MD201
MD203 unknown-protocol error MD401 MD403
MD204 instances-disagree-on-protocol error MD401 MD403
MD205 tag-without-value warning MD502
MD206 stale-registration error MD405
MD207 running-but-not-registered error MD405 MD502
MD208 registered-off-the-mesh error MD405
MD209 control-plane-registered info
MD210 name-changed-by-port warning MD503
MD211 instance-failing-health warning MD405
MD212 name-not-a-host-name warning
MD301 workload-without-sidecar error
MD302 sidecar-down error MD301
MD303 redirect-not-installed error
MD304 sidecar-in-dead-namespace error MD301
MD305 sidecar-of-another-service warning
MD306 sidecar-not-connected error MD307
MD307 sidecar-out-of-date error MD402
MD308 update-rejected error MD307
MD309 listener-not-active warning MD402
MD310 admin-port-exposed warning
MD311 sidecar-unreachable warning
MD401 tcp-listener-collision error MD402
MD402 misrouted-call error
MD403 mixed-protocol-port error MD401 MD402
MD404 route-to-missing-cluster error MD402
MD405 cluster-without-endpoint error MD402
MD406 route-configuration-missing error MD402
MD407 host-name-not-served warning MD402
MD408 inbound-collision error
MD409 sidecars-disagree warning
MD410 really-tcp-on-one-port error MD401
MD501 subset-not-defined error MD404
MD502 subset-without-instance error MD405
MD503 host-not-registered error
MD504 rule-never-reached warning
MD505 weights-do-not-add-up error
MD506 two-rules-one-host warning
MD507 rule-not-in-effect error
MD508 http-rule-on-tcp-port error
MD601 wrong-service-answered error
MD602 name-not-resolved error
MD603 call-failed error
MD604 prediction-differs warning
MD701 upstream-port-collision error MD308 MD402
MD702 upstream-not-registered error MD405
MD703 registered-proxy-not-running error MD405 MD211 MD402
MD704 intention-denies error MD402
MD705 protocol-left-at-tcp error
MD706 protocols-disagree warning MD402
MD707 certificate-unsound error MD402
MD708 proxy-not-supported error MD308
MD709 sidecar-without-service warning MD405
"""
)
WHOLE: Final = ("MD1", "MD2", "MD3", "MD4", "MD5", "MD6")
"""The families of which nothing may lack."""


PROMISED: Final = [row for row in CATALOGUE if row.code.startswith(WHOLE) or row.code in BY_CODE]


@pytest.mark.parametrize("row", PROMISED, ids=lambda row: row.code)
def test_each_check_is_there_as_promised(row: Row) -> None:
    """By its code and name, with its severity, in its place in the chains of causes."""
    check = BY_CODE[row.code]
    assert (check.name, str(check.severity)) == (row.name, row.severity)
    assert set(row.explains) <= set(check.explains)


def test_no_check_is_outside_the_catalogue() -> None:
    """A new one gets its line here."""
    assert BY_CODE.keys() <= {row.code for row in CATALOGUE}
    assert len({row.code for row in CATALOGUE}) == len(CATALOGUE)
