"""Where members and thieves try their luck: a running, honest broker, and what it says of one record."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from broker import codec, streams
from broker.notice import Envelope, Header, Outcome
from tests.federation import Federation, Opened
from tests.making import Draft

TOPIC = "vehicles.stolen"
"""A topic that nobody reviews."""
REVIEWER = "EUROPOL/analysis"
"""Who reviews what is held."""
AUTHORITY = "EUROPOL/analysis"
"""Who may withdraw by order what others published."""


def notice(issuer: str = "AT/ncb", *to: str, **more: Any) -> Draft:
    """An honest notice of a series of its own, to LV/ncb unless said otherwise."""
    made = Draft(issuer, **more).to(*(to or ("LV/ncb",))).but(topics=(TOPIC,), record=os.urandom(8).hex())
    return made.numbered(1, os.urandom(8))


@dataclass
class Bench:
    """A running federation and what comes of a record."""

    federation: Federation

    async def put(self, member: str, value: bytes, family: str = "notices") -> Outcome:
        """Put a record on a member's stream; give what the member is told of it."""
        before = len(await self.federation.outcomes(member))
        await self.federation.append(f"{family}.{member.lower()}", value)
        return (await self.federation.outcomes(member, before + 1))[before]

    async def publish(self, draft: Draft | Envelope, stream: str = "") -> Outcome:
        """Publish on its issuer's stream, or another's; give what that stream's member is told."""
        envelope = draft if isinstance(draft, Envelope) else draft.envelope()
        return await self.put(stream or _member(envelope), codec.encode(envelope))

    async def delivered(self, draft: Draft | Envelope, bureau: str = "LV/ncb") -> Opened:
        """Publish what is in order; give the delivery to a bureau."""
        before = len(await self.federation.inbox(bureau))
        outcome = await self.publish(draft)
        assert (outcome.kind, outcome.code) == ("routed", None)
        return (await self.federation.inbox(bureau, before + 1))[before]

    async def inboxes(self) -> dict[str, int]:
        """How many deliveries each bureau has had, once all that was published is out."""
        await self.federation.settled()
        return {
            each: await self.federation.bus.end(streams.inbox(each))
            for each in ("AT/ncb", "AT/organised-crime", "LV/ncb", "LV/organised-crime", "GE/ncb", "RU/ncb")
        }


def _member(envelope: Envelope) -> str:
    return codec.decode(Header, envelope.header).member
