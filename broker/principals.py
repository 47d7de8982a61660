"""How the nodes call who connects: asked of each node, by whose rules a certificate's Subject becomes a principal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its __init__ offers them without saying so
    AdminClient,
    ConfigResource,
    ResourceType,
)

from broker.kafka_admin import ANSWER_LIMIT_S, client_settings, metadata, settle

if TYPE_CHECKING:
    from broker.certificates import Credentials

RULES = "ssl.principal.mapping.rules"
_RULE = re.compile(r"(?:^|,)\s*(?:DEFAULT|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))")


def strangers(bootstrap: str, setup: Credentials, subject: str, principal: str) -> list[int]:
    """Name the nodes that run with rules by which whoever has this Subject (RFC 4514) is not called so.

    A node that does not tell its rules, or has some that Python reads otherwise than Java, is not named.
    Raises UnavailableError.
    """
    admin = AdminClient(client_settings(bootstrap, setup))
    return [each for each in sorted(metadata(admin).brokers) if _is_stranger(_rules(admin, each), subject, principal)]


def _rules(admin: AdminClient, node: int) -> str:
    asked = ConfigResource(ResourceType.BROKER, str(node))  # one a call: each tells its own
    for done in admin.describe_configs([asked], request_timeout=ANSWER_LIMIT_S).values():
        if found := settle(done, "tell its settings:", f"node {node}").get(RULES):
            return str(found.value or "")
    return ""


def _is_stranger(rules: str, subject: str, principal: str) -> bool:
    try:
        return bool(rules) and called(rules, subject) != principal
    except re.error:
        return False


def called(rules: str, subject: str) -> str | None:
    """Give the principal that a Subject becomes by rules as Kafka writes them; None: it is refused.

    Raises re.error for a pattern that is Java's only.
    """
    for each in _RULE.finditer(rules):
        pattern, name, case = each.groups()
        if pattern is None:
            return subject
        if found := re.fullmatch(pattern, subject):
            made = re.sub(r"\$(\d)", lambda place: found[int(place[1])] or "", name)
            return {"L": made.lower(), "U": made.upper()}.get(case, made)
    return None
