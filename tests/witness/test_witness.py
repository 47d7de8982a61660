"""What a witness answers: every status of C2SP tlog-witness, in the order of its checks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from broker import cosignature, merkle, notes
from broker.errors import ConfigurationError
from broker.notes import NOTE_LIMIT, Checkpoint
from broker.witness import EVIDENCE_LIMIT, Witness
from tests.fake_bus import START
from tests.witness.log import LOG, LOG_KEY, ORIGIN, OTHER_KEY, Log, asked, cosigner, made

VECTORS = Path(__file__).parent.parent / "vectors" / "torchwood"


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with closing(made(tmp_path / "witness.db")) as witness:
        yield witness


def seen_by(state: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(state)) as database:
        return database.execute("SELECT origin, size FROM heads").fetchall()


async def test_every_step_of_a_growing_log_is_cosigned(witness: Witness) -> None:
    log, last = Log(), 0
    for size in (1, 2, 3, 7, 8, 8, 64, 300):
        log.grow(size - last)
        heard = await asked(witness, log.request(last))
        assert heard.status == 200, size
        (found,) = cosignature.cosignatures(log.note() + heard.text, [cosigner()]).values()
        assert (found.line, found.time) == (heard.text, START // 1000)
        last = size


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"old 0\n\n",
        b"hello\n\n" + Log(3).note().encode(),
        b"old 00\n\n" + Log(3).note().encode(),
        b"old -1\n\n" + Log(3).note().encode(),
        b"old 0\nAAAA\n\n" + Log(3).note().encode(),
        b"old 0\n" + Log(3).note().encode(),
        b"old 0\n\n" + Log(3).note()[:-1].encode(),
        b"old 0\n\n" + Log(3).head().text.encode(),
        b"old 0\n\n" + notes.sign(f"{ORIGIN}\n3\n", ORIGIN, LOG_KEY).encode(),
        b"old 0\n\n" + notes.sign(f"{ORIGIN}\n{2**63}\n{notes.line(bytes(32))}\n", ORIGIN, LOG_KEY).encode(),
        notes.format_advance(3, [bytes(32)] * 64, Log(3).note()).encode(),
        b"old 4\n\n" + Log(3).note().encode(),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_400(witness: Witness, body: bytes) -> None:
    heard = await asked(witness, body)
    assert (heard.status, witness.newest(sha256(ORIGIN.encode()).hexdigest())) == (400, None)


async def test_a_log_that_it_does_not_know_is_404_even_with_a_key_it_knows(witness: Witness) -> None:
    head = Checkpoint("log.example/other", 3, bytes(32))
    for name in (head.origin, ORIGIN):
        note = notes.sign(head.text, name, LOG_KEY)
        assert (await asked(witness, notes.format_advance(0, [], note).encode())).status == 404


async def test_a_checkpoint_that_no_trusted_key_signed_is_403(witness: Witness) -> None:
    good = Log(3).note()
    other = notes.sign_checkpoint(Log(3).head(), OTHER_KEY)
    failing = good.rpartition("\n\n")[0] + "\n\n" + Log(4).note().rpartition("\n\n")[2]
    for note in (other, failing, good + failing.rpartition("\n\n")[2]):
        assert (await asked(witness, notes.format_advance(0, [], note).encode())).status == 403


async def test_signatures_of_others_are_ignored_and_not_kept(witness: Witness, tmp_path: Path) -> None:
    other = notes.sign_checkpoint(Log(3).head(), OTHER_KEY).rpartition("\n\n")[2]
    request = notes.format_advance(0, [], Log(3).note() + other).encode()
    heard = await asked(witness, request)
    assert heard.status == 200
    assert witness.newest(sha256(ORIGIN.encode()).hexdigest()) == Log(3).note() + heard.text
    assert seen_by(tmp_path / "witness.db") == [(ORIGIN, 3)]


async def test_another_old_size_is_409_and_tells_its_own(witness: Witness) -> None:
    log = Log(5)
    assert (await asked(witness, log.request(3))).text == "0\n"
    assert (await asked(witness, log.request(0))).status == 200
    log.grow(5)
    for old in (0, 4, 10):
        heard = await asked(witness, log.request(old))
        assert (heard.status, heard.media, heard.text) == (409, "text/x.tlog.size", "5\n")


@pytest.mark.parametrize("at", [0, 1, 3, 4])
async def test_another_past_is_422_whatever_proof_it_brings(witness: Witness, at: int) -> None:
    log = Log(5)
    assert (await asked(witness, log.request(0))).status == 200
    for liar in (log.fork(at, 5 - at), log.fork(at, 9 - at)):
        for proof in (liar.proof(5), log.grow(9 - len(log.hashes)).proof(5), []):
            heard = await asked(witness, notes.format_advance(5, proof, liar.note()).encode())
            assert heard.status == 422
    assert (await asked(witness, log.request(5))).status == 200


async def test_a_proof_from_nothing_or_an_empty_tree_of_another_root_is_422(witness: Witness) -> None:
    needless = notes.format_advance(0, [bytes(32)], Log(3).note())
    rootless = notes.format_advance(0, [], notes.sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), LOG_KEY))
    for body in (needless, rootless):
        assert (await asked(witness, body.encode())).status == 422
    assert (await asked(witness, Log().request(0))).status == 200
    assert (await asked(witness, Log(3).request(0))).status == 200


async def test_what_a_log_signed_against_its_own_past_is_kept_as_evidence_within_bounds(tmp_path: Path) -> None:
    with closing(made(tmp_path / "witness.db")) as witness:
        log = Log(5)
        await asked(witness, log.request(0))
        liar = log.fork(2, 3).request(5)
        for _ in range(EVIDENCE_LIMIT + 5):
            assert (await asked(witness, liar)).status == 422
    with closing(sqlite3.connect(tmp_path / "witness.db")) as database:
        kept = database.execute("SELECT at, origin, request FROM evidence").fetchall()
    assert kept == [(START, ORIGIN, liar)] * EVIDENCE_LIMIT


async def test_one_log_s_contradictions_leave_room_for_another_s(tmp_path: Path) -> None:
    other = notes.vkey("log.example/trail-1", OTHER_KEY.public.raw)
    with closing(made(tmp_path / "witness.db", LOG, other)) as witness:
        log = Log(5)
        await asked(witness, log.request(0))
        for _ in range(EVIDENCE_LIMIT):
            await asked(witness, log.fork(2, 3).request(5))
        for root in (bytes(32), bytes([1] * 32)):
            note = notes.sign_checkpoint(Checkpoint(other.name, 2, root), OTHER_KEY)
            heard = await asked(witness, notes.format_advance(2 if root[0] else 0, [], note).encode())
    assert heard.status == 422
    with closing(sqlite3.connect(tmp_path / "witness.db")) as database:
        assert database.execute("SELECT count(*) FROM evidence WHERE origin = ?", (other.name,)).fetchone() == (1,)


async def test_the_whole_text_is_cosigned_with_lines_that_the_log_added(witness: Witness) -> None:
    text = f"{Log(3).head().text}extension\n"
    heard = await asked(witness, notes.format_advance(0, [], notes.sign(text, ORIGIN, LOG_KEY)).encode())
    assert heard.status == 200
    assert cosignature.cosignatures(f"{text}\n{heard.text}", [cosigner()])


async def test_a_body_over_the_limit_is_413_before_it_is_read_and_while_it_comes(witness: Witness) -> None:
    for declared in (str(NOTE_LIMIT + 1), "9" * 400, "x"):
        assert (await asked(witness, b"", declared=declared)).status == 413
    assert (await asked(witness, b"x" * (NOTE_LIMIT + 1), declared="none")).status == 413


async def test_there_is_nothing_else_to_ask(witness: Witness) -> None:
    assert (await asked(witness, method="GET")).status == 405
    assert (await asked(witness, path="/sign-subtree")).status == 404
    for path in ("/checkpoint", f"/{'0' * 64}/checkpoint", f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint"):
        assert (await asked(witness, method="GET", path=path)).status == 404


async def test_what_was_cosigned_last_is_there_for_monitors(witness: Witness) -> None:
    log = Log(5)
    await asked(witness, log.request(0))
    line = (await asked(witness, log.grow(4).request(5))).text
    heard = await asked(witness, method="GET", path=f"/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
    assert (heard.status, heard.text) == (200, log.note() + line)


async def test_each_log_has_a_past_of_its_own(tmp_path: Path) -> None:
    other = notes.vkey("log.example/trail-1", OTHER_KEY.public.raw)
    with closing(made(tmp_path / "witness.db", LOG, other)) as witness:
        assert (await asked(witness, Log(5).request(0))).status == 200
        head = Checkpoint(other.name, 2, merkle.root(Log(2).hashes))
        note = notes.sign_checkpoint(head, OTHER_KEY)
        assert (await asked(witness, notes.format_advance(0, [], note).encode())).status == 200
    assert sorted(seen_by(tmp_path / "witness.db")) == [(ORIGIN, 5), (other.name, 2)]


async def test_of_many_requests_at_once_none_turns_the_state_back(witness: Witness, tmp_path: Path) -> None:
    log = Log(40)
    await asked(witness, log.request(0, 1))
    heard = await asyncio.gather(*(asked(witness, log.request(1, new)) for new in range(2, 40)))
    good = [new for new, each in zip(range(2, 40), heard, strict=True) if each.status == 200]
    assert len(good) == 1
    assert {each.status for each in heard} == {200, 409}
    assert seen_by(tmp_path / "witness.db") == [(ORIGIN, good[0])]


def test_two_witnesses_never_share_a_state(tmp_path: Path) -> None:
    with closing(made(tmp_path / "witness.db")), pytest.raises(ConfigurationError, match="another witness"):
        made(tmp_path / "witness.db")
    made(tmp_path / "witness.db").close()


def test_what_is_no_state_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else" * 100)
    with pytest.raises(ConfigurationError, match="not the state"):
        made(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"something else" * 100
    with pytest.raises(ConfigurationError, match="folder that is there"):
        made(tmp_path / "nowhere" / "witness.db")


async def test_a_state_that_cannot_be_written_is_503_and_nothing_is_signed(tmp_path: Path) -> None:
    """And its own log says so: whoever runs it would else hear of it from the operator."""
    with capture_logs() as logged, closing(made(tmp_path / "witness.db")) as witness:
        log = Log(5)
        await asked(witness, log.request(0))
        with closing(sqlite3.connect(tmp_path / "witness.db", isolation_level=None)) as another:
            another.execute("DROP TABLE heads")
        heard = await asked(witness, log.grow(1).request(5))
        assert heard.status == 503
        assert "—" not in heard.text
    structlog.reset_defaults()
    assert [each["event"] for each in logged] == ["checkpoint.cosigned", "state.unavailable"]


async def test_it_answers_a_known_log_as_another_implementation_does(tmp_path: Path) -> None:
    known = json.loads((VECTORS / "add-checkpoint.json").read_text(encoding="utf-8"))
    with closing(made(tmp_path / "witness.db", notes.parse_vkey(known["log"]))) as witness:
        for step in known["steps"]:
            heard = await asked(witness, step["request"].encode())
            # Its bad signature has stray bits in its base64, which we do not even take for a signature (RFC 4648 §3.5).
            assert heard.status == (400 if step["status"] == 403 else step["status"])
            assert step["body"] in {None, heard.text}
            if heard.status == 200:
                note = step["request"].partition("\n\n")[2] + heard.text
                assert cosignature.cosignatures(note, [cosigner()])
