"""Publishing and subscribing over DDS, with Cyclone DDS: what ROS 2 and Unitree's SDK send their messages with.

Needs the extra `robot`. Samples stay bytes until somebody looks at them, so that a reader that is asked 50 times a
second does not pay for 500 messages.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envs.common.messages import listed, nearest
from simreal.common.errors import UserError

# On loopback without multicast, participants find each other at ports of 127.0.0.1.
_LOOPBACK = """<CycloneDDS><Domain Id="any">
<General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>60</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""
_ON_INTERFACE = """<CycloneDDS><Domain Id="any"><General><Interfaces><NetworkInterface name="{}"/></Interfaces>
</General></Domain></CycloneDDS>"""
_POLICIES = {  # ids of the DDS standard, for what mismatches are about
    2: "durability", 4: "deadline", 5: "latency budget", 6: "ownership", 8: "liveliness", 10: "partition",
    11: "reliability", 12: "destination order", 13: "history", 23: "data representation", 24: "type consistency",
}  # fmt: skip
_ALIVE = 16  # DDS's state of an instance whose writer is there
_KEPT = 16  # samples between two looks
_DOMAINS: dict[int, tuple[str | None, Any]] = {}  # Cyclone configures a domain once per process


@dataclass(frozen=True)
class Sample:
    """A message as it came.

    Attributes:
        raw: its bytes, CDR with the four bytes of its header.
        source_s: when it was written, s since 1970 on the writer's clock.
        writer: a number of its own for each publisher.
    """

    raw: bytes
    source_s: float
    writer: int


def domain_of(domain: int | None) -> int:
    """The domain that a user names; else ROS_DOMAIN_ID, else 0. Raises UserError."""
    if domain is None:
        text = os.environ.get("ROS_DOMAIN_ID", "0")
        if not text.isdigit():
            raise UserError(f"ROS_DOMAIN_ID: expected a whole number from 0 to 232, got {text!r}")
        domain = int(text)
    if not 0 <= domain <= 232:
        raise UserError(f"--domain: expected a whole number from 0 to 232, got {domain}")
    return domain


_OPEN: list[weakref.ref[Any]] = []  # participants


@atexit.register
def _leave() -> None:
    """Leave all domains while Python still runs: others are told, and no listener waits for the interpreter's turn when
    that is ending. Domains themselves are left to the system: to free one waits without end now and then (Cyclone DDS
    11.0.1, in ddsi_stop)."""
    for known in _OPEN:
        participant = known()
        if participant is not None:
            participant.__del__()
    for _, domain in _DOMAINS.values():
        type(domain)._entities.pop(domain._ref, None)  # what is not there is not freed


class Bus:
    """A participant of a DDS domain.

    Args:
        domain: its number; None: see `domain_of`.
        interface: of the network, such as "eth0"; "lo" needs no multicast. None: as CYCLONEDDS_URI says, else chosen.

    Raises:
        UserError: Cyclone DDS is not installed, or the interface is not there.
    """

    def __init__(self, domain: int | None = None, interface: str | None = None) -> None:
        try:
            from cyclonedds import core
            from cyclonedds import domain as domains
        except ImportError:
            raise UserError("messages need Cyclone DDS, which is not installed: pip install 'simreal[robot]'") from None
        self.domain, self.interface = domain_of(domain), interface
        try:
            if interface is not None:
                self._configure(domains.Domain)
            self.participant = domains.DomainParticipant(self.domain)
            _OPEN.append(weakref.ref(self.participant))
        except core.DDSException as error:
            raise UserError(
                f"DDS: domain {self.domain} cannot be joined"
                f"{f' on interface {interface!r}' if interface else ''}: {error.msg or error}"
            ) from None
        self._discovered: tuple[Any, Any] | None = None  # readers of who publishes and who subscribes

    def _configure(self, make: Callable[[int, str], Any]) -> None:
        before = _DOMAINS.get(self.domain)
        if before is None:
            text = _LOOPBACK if self.interface == "lo" else _ON_INTERFACE.format(self.interface)
            _DOMAINS[self.domain] = self.interface, make(self.domain, text)
        elif before[0] != self.interface:
            raise UserError(f"--interface: domain {self.domain} is on {before[0]!r} already in this process")

    def publisher(self, topic: str, kind: type[Any]) -> Publisher:
        """Publishes messages of a type: reliable, volatile, keeps the last (ROS 2's and Unitree's default)."""
        return Publisher(self, topic, kind)

    def subscription(self, topic: str, kind: type[Any]) -> Subscription:
        """Subscribes best effort and volatile, which matches every publisher of a topic."""
        return Subscription(self, topic, kind)

    def published(self) -> dict[str, set[str]]:
        """Topics that somebody publishes, as far as they have been discovered: their types."""
        return self._topics(0)

    def subscribed(self) -> dict[str, set[str]]:
        """Topics that somebody subscribes to: their types."""
        return self._topics(1)

    def _topics(self, which: int) -> dict[str, set[str]]:
        from cyclonedds import builtin

        if self._discovered is None:
            topics = builtin.BuiltinTopicDcpsPublication, builtin.BuiltinTopicDcpsSubscription
            readers = [builtin.BuiltinDataReader(self.participant, topic) for topic in topics]
            self._discovered = readers[0], readers[1]
        own, found = self.participant.guid, dict[str, set[str]]()
        for sample in self._discovered[which].read(N=2000):
            alive = sample.sample_info.valid_data and sample.sample_info.instance_state == _ALIVE
            if alive and sample.participant_key != own and not sample.topic_name.startswith("DCPS"):
                found.setdefault(sample.topic_name, set()).add(sample.type_name)
        return found

    def there(self) -> str:
        """What is published in the domain, for a message."""
        names = sorted(self.published())
        return (
            f"published in domain {self.domain}: {listed(names)}"
            if names
            else f"nobody publishes anything in domain {self.domain}"
        )


class Publisher:
    """Publishes messages of one type.

    Attributes:
        topic: DDS's name of it.
    """

    def __init__(self, bus: Bus, topic: str, kind: type[Any]) -> None:
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.topic import Topic
        from cyclonedds.util import duration

        self.topic, self.kind = topic, kind
        plain = Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False)
        # A command that waits for a slow reader is worth nothing: never block the loop for longer than a millisecond.
        reliable = Policy.Reliability.Reliable(duration(milliseconds=1))
        qos = Qos(reliable, Policy.Durability.Volatile, Policy.History.KeepLast(1), plain)
        self._writer = DataWriter(bus.participant, Topic(bus.participant, topic, kind), qos=qos)

    def write(self, sample: Any) -> None:
        """Publish a message of this type."""
        self._writer.write(sample)

    @property
    def matched(self) -> int:
        """Subscriptions that get it."""
        return len(self._writer.get_matched_subscriptions())

    def mismatch(self) -> str | None:
        """The quality of service that a subscriber asks for and does not get."""
        return _mismatch(
            self._writer.get_offered_incompatible_qos_status(), self.topic, "a subscriber asks for another"
        )


class Subscription:
    """Receives messages of one type, without waiting.

    Attributes:
        topic: DDS's name of it.
        received: messages so far.
    """

    def __init__(self, bus: Bus, topic: str, kind: type[Any]) -> None:
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic

        self.topic, self.kind, self.received = topic, kind, 0
        plain = Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False)
        qos = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(_KEPT), plain)
        self._reader = DataReader(bus.participant, Topic(bus.participant, topic, kind), qos=qos)

    def take(self) -> list[Sample]:
        """What has come since the last time, oldest first; at most the newest 16."""
        found: list[Sample] = []
        for sample in self._reader.take(N=_KEPT):
            sample: Any
            info = sample.sample_info
            if info.valid_data:
                found.append(Sample(sample.raw, info.source_timestamp * 1e-9, info.publication_handle))
        self.received += len(found)
        return found

    @property
    def matched(self) -> int:
        """Publishers whose messages it gets."""
        return len(self._reader.get_matched_publications())

    def mismatch(self) -> str | None:
        """The quality of service that a publisher does not offer."""
        return _mismatch(self._reader.get_requested_incompatible_qos_status(), self.topic, "a publisher offers another")


def _mismatch(status: Any, topic: str, who: str) -> str | None:
    if not status.total_count:
        return None
    policy = _POLICIES.get(int(status.last_policy_id), f"policy {int(status.last_policy_id)}")
    return f"{topic}: quality of service does not match: {who} {policy}"


def wait_until(ready: Callable[[], bool], wait_s: float) -> bool:
    """Whether something came true within a time."""
    end = time.monotonic() + wait_s
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def expect_publisher(bus: Bus, subscription: Subscription, wait_s: float, said: str) -> None:
    """Wait for somebody who publishes what a subscription wants.

    Args:
        bus: of the subscription.
        subscription: what is wanted.
        wait_s: how long.
        said: the topic as the user named it.

    Raises:
        UserError: nobody does; with what is there, another type, or a quality of service that does not match.
    """
    if not wait_until(lambda: subscription.matched > 0 or subscription.mismatch() is not None, wait_s):
        found = bus.published()
        _refuse_type(found, subscription, said, "published")
        raise UserError(f"{said}: nobody publishes it{nearest(subscription.topic, found)}; {bus.there()}")
    if not subscription.matched:
        _refuse_type(bus.published(), subscription, said, "published")
        raise UserError(f"{said}: {subscription.mismatch()}")


def _refuse_type(found: dict[str, set[str]], end: Publisher | Subscription, said: str, how: str) -> None:
    """Raise UserError where the other end of a topic has another type."""
    kinds, wanted = found.get(end.topic, set()), type_name(end.kind)
    if kinds and wanted not in kinds:
        raise UserError(f"{said}: is {how} as {', '.join(sorted(kinds))}, expected {wanted}")


def expect_subscriber(bus: Bus, publisher: Publisher, wait_s: float, said: str) -> None:
    """Wait for somebody who subscribes to what is published. Raises UserError as `expect_publisher`."""
    if not wait_until(lambda: publisher.matched > 0 or publisher.mismatch() is not None, wait_s):
        found = bus.subscribed()
        _refuse_type(found, publisher, said, "subscribed to")
        there = f"subscribed to in domain {bus.domain}: {listed(sorted(found))}"
        raise UserError(f"{said}: nobody subscribes to it{nearest(publisher.topic, found)}; {there}")
    if not publisher.matched:
        _refuse_type(bus.subscribed(), publisher, said, "subscribed to")
        raise UserError(f"{said}: {publisher.mismatch()}")


def type_name(kind: type[Any]) -> str:
    """The name of a message type on the wire."""
    return str(kind.__idl_typename__).replace(".", "::")
