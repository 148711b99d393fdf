#!/usr/bin/env bash
# feetech-servo-sdk 1.0.0: a packet handler for one series of servos changes the byte order of those made before it.
#
# Expected: `PacketHandler(0)` (low byte first, series STS and SMS) and `PacketHandler(1)` (high byte first, series SCS) serve two
# buses side by side, each in its order.
# Seen: the order is one for the whole module and the last handler sets it. A goal of 2048, the middle of the turn, written by the
# first handler leaves as 8 once the second exists; what it reads is swapped likewise. Nothing is said, checksums are right.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check feetech-servo-sdk==1.0.0 pyserial==3.5 2> /dev/null
"$place/venv/bin/python" - <<'PYTHON'
import scservo_sdk as sdk

SERVO, GOAL_POSITION, MIDDLE = 1, 42, 2048


class Wire:
    """A port without a servo: it keeps what is sent."""

    is_using, sent = False, b""

    def clearPort(self):
        pass

    def writePort(self, packet):
        self.sent = bytes(packet)
        return len(packet)


def goal(handler):
    """The goal position in the packet that leaves, low byte first as servos of the series STS read it; whether its checksum is right."""
    wire = Wire()
    handler.write2ByteTxOnly(wire, SERVO, GOAL_POSITION, MIDDLE)
    return int.from_bytes(wire.sent[6:8], "little"), wire.sent[-1] == ~sum(wire.sent[2:-1]) & 0xFF


low_first = sdk.PacketHandler(0)
before = goal(low_first)
sdk.PacketHandler(1)
after = goal(low_first)
print(f"goal written {MIDDLE}, sent {before[0]}; sent after another handler was made {after[0]}, checksum right: {after[1]}")
print("expected: 2048 both times; seen: 2048, then 8")
raise SystemExit(0 if before == (MIDDLE, True) and after == (8, True) else 1)
PYTHON
