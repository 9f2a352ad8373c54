"""Which calls of two callers may fare differently, told by what their proxies differ in.

The sidecars of a mesh are told nearly the same: each has its own inbound listener, and here or
there one is behind. To ask every proxy again for every target would be a million times the same
answers where a thousand sidecars call a thousand services. So a caller is compared with an earlier
one, by the identities of the facts that the decoder shares. The walks of the earlier one told
what they asked (see `shared`): only targets about which something was asked that is now answered
differently are touched by the difference, and are followed for the later caller, too. All others
fare for it as for the earlier one.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final

from meshdoctor.routing.configuration import Configuration
from meshdoctor.routing.registry import Target
from meshdoctor.routing.shared import Question, Reader

CERTIFICATES: Final[Question] = ("certificates", "")
"""What the far side asks of the proxy, which walks do not."""

Facts = Mapping[str, dict[Any, Hashable]]
"""What there is to differ in: by section and key, what stands for the fact."""


class Followed:
    """A caller whose calls were followed target by target, for others to be compared with.

    `asked` runs beside the targets: what their walks asked of its proxy, None where they hold for
    this caller alone. The others' readers must be of the same shape.
    """

    def __init__(
        self,
        reader: Reader,
        facts: Facts,
        targets: Sequence[Target],
        asked: Sequence[Sequence[Question] | None],
    ) -> None:
        self._facts: Final = facts
        self._alone: Final = {place for place, each in enumerate(asked) if each is None}
        # By section, so that a question about one that facts leave out cannot be overlooked.
        self._needed: Final = {section: defaultdict[Any, list[int]](list) for section in facts}
        self._ports: Final[dict[Question, list[int]]] = defaultdict(list)
        for place, (target, questions) in enumerate(zip(targets, asked, strict=True)):
            for address in dict.fromkeys(address for address, _ in target.addresses):
                self._needed["own"][address].append(place)
            for question in questions or ():
                if question[0] == "port":
                    self._ports[question].append(place)
                    continue
                for section, key in _needs(reader.config, question):
                    self._needed[section][key].append(place)
        self._answers: Final = {question: reader.answer(question) for question in self._ports}

    def touched(self, reader: Reader, facts: Facts) -> set[int]:
        """The places of the targets whose calls may fare differently for another caller."""
        found = set(self._alone)
        for section, known in self._facts.items():
            needed = self._needed[section]
            for key, _ in known.items() ^ facts[section].items():
                found.update(needed.get(key, ()))
        for question, answer in self._answers.items():
            if reader.answer(question) != answer:
                found.update(self._ports[question])
        return found


def _needs(config: Configuration, question: Question) -> Iterator[tuple[str, Any]]:
    """The facts that a proxy answers a question by."""
    section, sought = question
    match section:
        case "listeners":
            yield from (("listener", each) for each in sought)
        case "endpoints":
            yield "cluster", sought
            cluster = config.clusters[sought].cluster
            yield "endpoints", cluster.name
            if cluster.eds_service_name:
                yield "endpoints", cluster.eds_service_name
        case _:
            yield question


def facts(reader: Reader, own_addresses: frozenset[str], certificates: int) -> Facts:
    """All that a caller may differ in from others, but for ports, which are asked for by number.

    `certificates` stands for those of its proxy.
    """
    config = reader.config
    return {
        "certificates": {"": certificates},
        "own": dict.fromkeys(own_addresses, True),
        "held": dict.fromkeys(config.proxy.held, True),
        "listener": {key: id(entry.listener) for key, entry in config.listeners.items()},
        "route": {name: id(entry.route_config) for name, entry in config.routes.items()},
        "cluster": {name: id(entry.cluster) for name, entry in config.clusters.items()},
        "endpoints": {name: id(held) for name, held in config.endpoints_by_name().items()},
    }
