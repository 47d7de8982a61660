"""A withdrawal arrives, whatever has changed since its notice was published, and however late it comes."""

from __future__ import annotations

from dataclasses import replace

from broker.notice import Audience, Grant
from tests.exchange.test_held import DAY, TO, one, publish, withdrawal
from tests.federation import Federation
from tests.making import NOW


async def test_it_may_name_who_has_left_the_directory(federation: Federation) -> None:
    """Its audience means nothing: it goes to the holders. A notice of another kind names nobody unknown."""
    gone = Audience(everyone=False, agreements=("ended",), to=("XX", "YY/ncb"))
    envelope, _ = await publish(federation, one())
    (got,) = await federation.inbox(TO, 1)
    _, told = await publish(
        federation, withdrawal(envelope).routed(audience=gone, deny=("XX",), protected_from=("XX",))
    )
    assert told.kind == "routed"
    assert (await federation.inbox(TO, 2))[1].delivery.erases == (got.delivery.delivery_number,)
    _, told = await publish(federation, one().routed(audience=gone))
    assert (told.kind, told.code, told.detail) == ("rejected", "invalid-field", "agreements, to")


async def test_it_may_grant_something_to_who_has_left_the_directory(federation: Federation) -> None:
    """That means nothing either, but it is a grant all the same: of compartments that there are, and under H2."""
    envelope, _ = await publish(federation, one())
    (got,) = await federation.inbox(TO, 1)
    gone = (Grant("YY/ncb", ("reason",), NOW + DAY),)
    _, told = await publish(federation, withdrawal(envelope).but(handling=("H0",)).routed(grants=gone))
    assert (told.kind, told.code) == ("rejected", "invalid-field")
    wrong = (replace(gone[0], compartments=("identity",)),)
    _, told = await publish(federation, withdrawal(envelope).but(handling=("H2",)).routed(grants=wrong))
    assert (told.kind, told.code) == ("rejected", "invalid-field")
    _, told = await publish(federation, withdrawal(envelope).but(handling=("H2",)).routed(grants=gone))
    assert told.kind == "routed"
    assert (await federation.inbox(TO, 2))[1].delivery.erases == (got.delivery.delivery_number,)
    named = (replace(gone[0], compartments=("identity",)),)
    _, told = await publish(federation, one().but(handling=("H2",)).routed(grants=named))
    assert (told.kind, told.code) == ("rejected", "invalid-field")


async def test_it_arrives_though_its_own_time_is_over(federation: Federation) -> None:
    """Nothing of it is shown any more, and it erases all the same."""
    envelope, _ = await publish(federation, one())
    (got,) = await federation.inbox(TO, 1)
    _, told = await publish(federation, withdrawal(envelope).but(expires=NOW - DAY))
    assert told.kind == "routed"
    end = (await federation.inbox(TO, 2))[1]
    assert (end.delivery.erases, end.shown) == ((got.delivery.delivery_number,), set())
