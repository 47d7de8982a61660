"""The operator, with log key, bus and directory's operator keys, forges and alters what bureaus get."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker import codec
from broker.notice import DecisionRecord, Envelope, Header, Opened, Recipient, Row
from broker.route import Lines, lay
from tests.attacks.scene import (
    ALL,
    Scene,
    compartments,
    leaf_but,
    own_part,
    same,
    sealed_part,
    shared_part,
)
from tests.honest_broker import LOG_KEY
from tests.making import NOW, Draft, key_of, reference
from tests.member.conftest import draft


def forged(**changes: Any) -> Draft:
    """A notice in the name of AT/ncb, signed with the only signing key that the operator has."""
    return replace(Draft("AT/ncb", key=LOG_KEY), **changes)


async def test_the_operator_forges_a_notice_in_a_bureaus_name(scene: Scene) -> None:
    """He signs it with the log key and records it like any other. The collector refuses it: `issuer-key`."""
    await scene.operator.route(codec.encode(forged().envelope()), {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["issuer-key"])


async def test_the_operator_forges_a_notice_under_the_bureaus_own_key_id(scene: Scene) -> None:
    """He names AT's true key beside a signature of his own. The collector refuses it: `issuer-key`."""
    envelope = replace(forged().envelope(), key_id=key_of("AT/ncb").public.id)
    await scene.operator.route(codec.encode(envelope), {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["issuer-key"])


async def test_the_operator_signs_one_bureaus_notice_with_anothers_key(scene: Scene) -> None:
    """A border post of AT lends him its key to speak for AT/ncb. A key is one bureau's: `issuer-key`."""
    envelope = forged(key=key_of("AT/border")).envelope()
    await scene.operator.route(codec.encode(envelope), {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["issuer-key"])


async def test_the_operator_alters_a_header_on_its_way(scene: Scene) -> None:
    """He makes an exercise of a genuine notice. The digest in the leaf is another: the collector says `altered`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()

    def as_exercise(envelope: Envelope) -> Envelope:
        header = codec.decode(Header, envelope.header)
        return replace(envelope, header=codec.encode(replace(header, exercise=True)))

    await scene.hand(number, sealed_part(as_exercise))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["altered"])


async def test_the_operator_alters_a_header_and_records_the_altered_one(scene: Scene) -> None:
    """He puts the altered header's digest into the leaf, too. Then the issuer's signature fails: `issuer-key`."""
    (data,) = await scene.publish(draft())
    envelope = codec.decode(Envelope, data)
    header = codec.encode(replace(codec.decode(Header, envelope.header), action_sought="release him"))
    await scene.operator.route(codec.encode(replace(envelope, header=header)), {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["issuer-key"])


async def test_the_operator_commits_to_another_header_digest(scene: Scene) -> None:
    """The leaf of a genuine notice names another header. It is refused: `altered`, `wrong-leaf`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ALL})
    leaf = operator.leaves[number] = leaf_but(operator.leaves[number], header_digest=bytes(32))
    route = operator.routes[number]
    assert route.outcome is not None
    operator.routes[number] = replace(route, leaf=leaf, outcome=replace(route.outcome, leaf=leaf))
    await operator.seal()
    await operator.deliver(number)
    assert (await scene.collect()).alarms == ["altered"]
    assert await scene.learn() == ["wrong-leaf"]


async def test_the_operator_rewrites_what_a_compartment_says(scene: Scene) -> None:
    """He changes the narrative under its old salt. The digest that AT signed does not fit: `altered`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()
    await scene.hand(number, compartments({"narrative": Opened(bytes(32), b"he is innocent")}))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["altered"])


async def test_the_operator_redirects_a_delivery_to_another_bureau(scene: Scene) -> None:
    """He writes LV's delivery into GE's inbox. GE's collector sees whose it is: `other-bureau`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()
    await scene.hand(number, same, to="GE/ncb")
    seen = await scene.collect("GE/ncb")
    assert (seen.records, seen.alarms) == ([], ["other-bureau"])


async def test_the_operator_redirects_a_delivery_and_changes_the_address(scene: Scene) -> None:
    """He writes GE's name on LV's delivery. Its row is LV's, and no row of GE's is in the leaf: `wrong-row`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()
    await scene.hand(number, own_part(bureau="GE/ncb"), to="GE/ncb")
    row = codec.encode(Row("GE/ncb", 1, 0b111))
    await scene.hand(number, own_part(bureau="GE/ncb", row=row, index=3), to="GE/ncb")
    seen = await scene.collect("GE/ncb")
    assert (seen.records, seen.alarms) == ([], ["wrong-row", "wrong-row"])


async def test_the_operator_delivers_with_anothers_row(scene: Scene) -> None:
    """LV may see less than GE; he hands LV the row of GE. The row names GE: `wrong-row`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ("identity",), "GE/ncb": ALL})
    await scene.operator.seal()
    theirs = scene.delivery(number, "GE/ncb")
    await scene.put("LV/ncb", replace(theirs, bureau="LV/ncb"))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["wrong-row"])


async def test_the_operator_lays_a_second_row_for_a_bureau(scene: Scene) -> None:
    """One row of LV shows little and stands in the decision; another shows all, at a free place. Each bureau's row
    stands at its own index: `wrong-row`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ("identity",)})
    route = operator.routes[number]
    record = codec.decode(DecisionRecord, route.decision)
    secret = Recipient(9, "LV/ncb", 0b111111111, delivery_number=1)
    laid = lay(Lines.numbered((*record.rows, secret)), record.seed, record.depth)
    leaf = operator.leaves[number] = leaf_but(operator.leaves[number], rows=laid.root)
    operator.routes[number] = replace(route, leaf=leaf, laid=laid)
    await operator.seal()
    await scene.hand(number, own_part(row=laid.rows[9], salt=laid.tree.salt(9), path=laid.tree.path(9), index=9))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["wrong-row"])


async def test_the_operator_delivers_to_somebody_whom_the_decision_does_not_name(scene: Scene) -> None:
    """He lays a row for GE and shows AT a decision without it. AT lays the rows again: `wrong-row`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ALL})
    route = operator.routes[number]
    record = codec.decode(DecisionRecord, route.decision)
    secret = Recipient(3, "GE/ncb", 0b111, delivery_number=1)
    laid = lay(Lines.numbered((*record.rows, secret)), record.seed, record.depth)
    operator.leaves[number] = leaf_but(operator.leaves[number], rows=laid.root)
    assert route.outcome is not None
    await operator.seal()
    await operator.tell("AT", replace(route.outcome, leaf=operator.leaves[number]))
    assert await scene.learn() == ["wrong-row"]


async def test_the_operator_tells_the_issuer_of_another_decision(scene: Scene) -> None:
    """He shows AT a decision record with fewer recipients than the leaf commits to: `wrong-leaf`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ALL, "GE/ncb": ALL})
    outcome = operator.routes[number].outcome
    assert outcome is not None
    record = codec.decode(DecisionRecord, outcome.decision)
    await operator.seal()
    await operator.tell("AT", replace(outcome, decision=codec.encode(replace(record, rows=record.rows[:1]))))
    assert await scene.learn() == ["wrong-leaf"]


async def test_the_operator_delivers_without_proof(scene: Scene) -> None:
    """He delivers before anything is signed, then with no proof at all: `unknown-head`, `not-in-trail`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.hand(number, same)
    await scene.hand(number, shared_part(proof=""))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["unknown-head", "not-in-trail"])


async def test_the_operator_proves_with_a_head_that_he_shows_to_nobody_else(scene: Scene) -> None:
    """He signs a head for one delivery and never announces it: `unknown-head`."""
    first, second = await scene.publish(draft("R-1"), draft("R-2"))
    await scene.operator.route(first, {"LV/ncb": ALL})
    hidden = scene.operator.record(second, {"LV/ncb": ALL})
    await scene.hand(hidden, same)
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == (["R-1"], ["unknown-head"])


async def test_the_operator_serves_a_stale_proof(scene: Scene) -> None:
    """The second delivery comes with the proof of the first, under a head that is older than it: `not-in-trail`."""
    first, second = await scene.publish(draft("R-1"), draft("R-2"))
    operator = scene.operator
    one = operator.record(first, {"LV/ncb": ALL})
    await operator.seal()
    stale = operator.prove(one)
    await operator.deliver(one)
    two = operator.record(second, {"LV/ncb": ALL})
    await operator.seal()
    await scene.hand(two, shared_part(proof=stale))
    await scene.hand(two, shared_part(proof=stale.replace("index 0", "index 1")))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == (["R-1"], ["not-in-trail", "not-in-trail"])


async def test_the_operator_delivers_what_he_recorded_as_rejected(scene: Scene) -> None:
    """He tells AT that its notice was rejected, and delivers it on the strength of that leaf: `wrong-leaf`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ALL})
    leaf = operator.leaves[number] = leaf_but(operator.leaves[number], kind="rejected", code="unknown-kind")
    await operator.seal()
    await scene.hand(number, shared_part(leaf=leaf, proof=operator.prove(number)))
    assert (await scene.collect()).alarms == ["wrong-leaf"]


async def test_the_operator_shows_more_compartments_than_the_row_says(scene: Scene) -> None:
    """The decision gives LV the identity; he leaves the narrative open as well. LV's collector: `not-as-shown`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ("identity",), "GE/ncb": ALL})
    await operator.seal()
    whole = codec.decode_compartments(codec.decode(Envelope, data).compartments)
    narrative = next(each.opened for each in whole if each.name == "narrative")
    await scene.hand(number, compartments({"narrative": narrative}))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["not-as-shown"])


async def test_the_operator_shows_fewer_compartments_than_the_row_says(scene: Scene) -> None:
    """He keeps the warnings from the officers who will meet an armed man: `not-as-shown`."""
    (data,) = await scene.publish(draft())
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()
    await scene.hand(number, compartments({"warnings": None}))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["not-as-shown"])


async def test_the_operator_empties_a_notice_and_calls_it_expired(scene: Scene) -> None:
    """He delivers it with nothing open, as one that ran out on its way. It has a year to go: `not-as-shown`."""
    (data,) = await scene.publish(draft(expires=NOW + 31_536_000_000))
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()
    await scene.put("LV/ncb", scene.delivery(number, expired=True))
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["not-as-shown"])


async def test_the_operator_names_a_directory_that_nobody_published(scene: Scene) -> None:
    """The leaf says that another directory was in force, in which a key of his is AT's: `unknown-directory`."""
    operator = scene.operator
    (data,) = await scene.publish(draft())
    number = operator.record(data, {"LV/ncb": ALL})
    leaf = operator.leaves[number] = leaf_but(operator.leaves[number], directory=bytes(32))
    await operator.seal()
    await scene.hand(number, shared_part(leaf=leaf, proof=operator.prove(number)))
    assert (await scene.collect()).alarms == ["unknown-directory"]


async def test_the_operator_reuses_a_delivery_number(scene: Scene) -> None:
    """He gives the second notice the number of the first, so that no gap shows. The first stays: `number-reused`."""
    first, second = await scene.publish(draft("R-1"), draft("R-2"))
    await scene.operator.route(first, {"LV/ncb": ALL})
    scene.operator.numbers.clear()
    await scene.operator.route(second, {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == (["R-1"], ["number-reused"])


async def test_the_operator_replays_an_old_delivery(scene: Scene) -> None:
    """He hands over once more what LV has had: it is known by its number, shown once and answered once."""
    (data,) = await scene.publish(draft())
    number = await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    await scene.hand(number, same)
    seen = await scene.collect()
    assert (seen.records, seen.alarms, len(await scene.receipts())) == ([], [], 1)


async def test_the_operator_replays_what_was_erased(scene: Scene) -> None:
    """After the withdrawal he hands over the old delivery again. Its number is known and erased: nothing comes back."""
    (data,) = await scene.publish(draft())
    number = await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    await scene.operator.route(await scene.withdraw("R-1"), {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    await scene.collect()
    await scene.hand(number, same)
    seen = await scene.collect()
    assert (seen.records, seen.alarms, scene.body(1)) == ([], [], None)


async def test_the_operator_invents_a_withdrawal(scene: Scene) -> None:
    """He signs a withdrawal in AT's name to have evidence erased at LV: `issuer-key`, and the notice stays."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    made = forged(kind="withdrawal", parts=("reason",)).but(
        record="R-1", version=2, references=(reference(codec.decode(Envelope, data), "withdraws"),)
    )
    await scene.operator.route(codec.encode(made.envelope()), {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == (["R-1"], ["issuer-key"])
    assert scene.body(1) is not None


async def test_the_operator_erases_one_notice_by_another(scene: Scene) -> None:
    """He orders, with a genuine notice of AT's, that another be erased. Only its withdrawal can: `unrelated`."""
    first, second = await scene.publish(draft("R-1"), draft("R-2"))
    await scene.operator.route(first, {"LV/ncb": ALL})
    await scene.operator.route(second, {"LV/ncb": ALL}, {"LV/ncb": ("erases", 1)})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == (["R-1"], ["unrelated"])
    assert scene.body(1) is not None


async def test_the_operator_erases_one_record_by_the_withdrawal_of_another(scene: Scene) -> None:
    """AT withdraws R-2; he orders R-1 erased with it. Issuer and record must be the same: `unrelated`."""
    first, _ = await scene.publish(draft("R-1"), draft("R-2"))
    await scene.operator.route(first, {"LV/ncb": ALL})
    withdrawal = await scene.withdraw("R-2")
    await scene.operator.route(withdrawal, {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    assert (await scene.collect()).alarms == ["unrelated"]
    assert scene.body(1) is not None


async def test_the_operator_adds_a_number_to_a_genuine_withdrawal(scene: Scene) -> None:
    """AT withdraws R-2; he orders R-1 erased in one go. LV rings (`unrelated`), erases neither, and AT's trace names LV
    as silent about the withdrawal."""
    for data in await scene.publish(draft("R-1"), draft("R-2")):
        await scene.operator.route(data, {"LV/ncb": ALL})
    withdrawal = await scene.withdraw("R-2")
    number = scene.operator.record(withdrawal, {"LV/ncb": ("reason",)})
    outcome = scene.operator.routes[number].outcome
    assert outcome is not None
    await scene.operator.seal()
    await scene.operator.tell("AT", outcome)
    await scene.hand(number, own_part(erases=(2, 1)))
    assert (await scene.collect()).alarms == ["unrelated"]
    assert scene.body(1) is not None
    assert (await scene.story(withdrawal)).silent == ("LV/ncb",)
