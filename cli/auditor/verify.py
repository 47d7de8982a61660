"""`valise audit verify`: check whole trails offline, and what was handed on about them."""

from __future__ import annotations

import heapq
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from broker import begun, notes, reading
from broker.errors import ConfigurationError, ProofError
from broker.examine import examine
from broker.notes import Vkey
from broker.notice import CLOCK_SKEW_MS
from broker.report import Finding, Gap, Report
from cli import answer, exits
from cli.auditor import cases as told_cases
from cli.auditor import signed
from cli.auditor.cases import Cases
from cli.auditor.decisions import NOT_REPEATED, Decisions, records_beside
from cli.auditor.handed import checkpoint_of, verify_file
from cli.auditor.quorum import Quorum, Stood
from cli.auditor.shards import may_hold, trails
from cli.auditor.signed import Signatures
from cli.home import clock
from cli.operator_home import operator_folder
from cli.options import Everywhere, everywhere
from cli.progress import progress
from cli.seen import Seen, beside

SHOWN_FINDINGS, SHOWN_LOST, SHOWN_LEFT_OUT = 20, 20, 5


@dataclass(frozen=True, slots=True)
class Asked:
    """What the auditor wants checked beside the trail itself."""

    policies: tuple[Path, ...]
    records: bool
    root: str | None
    quorum: Quorum | None


@dataclass(frozen=True, slots=True)
class Checked:
    """One trail and what checking it came to; `decisions` None: they were not asked for."""

    folder: Path
    report: Report
    others: Seen
    key_file: Path | None
    decisions: Decisions | None
    signatures: Signatures
    stood: Stood | None = None
    """What the named witnesses stand by; None: none was named."""
    unmet: int = 0
    """How many files of others are of shards of which the whole home has no trail."""

    @property
    def beyond(self) -> int:
        """How many leaves no quorum of witnesses saw although there was time."""
        return self.stood.beyond(self.report.size, clock()) if self.stood else 0

    @property
    def findings(self) -> list[Finding]:
        """What does not hold."""
        found = [*self.report.findings, *self.signatures.findings]
        return found + (self.decisions.found.findings if self.decisions else [])

    @property
    def wrong(self) -> int:
        """How much does not hold."""
        return self.report.wrong + len(self.signatures.findings) + (self.decisions.found.wrong if self.decisions else 0)

    @property
    def code(self) -> int:
        """The exit code."""
        if self.wrong:
            return exits.VERIFICATION_FAILED
        whole = (
            self.report.compared
            and not self.report.gaps
            and not self.beyond
            and not self.unmet
            and self.signatures.whole
            and (self.decisions is None or self.decisions.whole)
        )
        return exits.DONE if whole else exits.PARTLY


@click.command()
@click.argument("trail_dir", required=False, type=click.Path(path_type=Path))
@click.option(
    "--seen",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What others kept: inbox.*.db, outbox.db, checkpoint, proof, bundle, a witness's state, or a folder. "
    "Default: the homes beside.",
)
@click.option("--vkey", "key_file", type=click.Path(path_type=Path), help="The log's public key from elsewhere.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A policy set (folder or file) of your own: repeat the decisions with it.",
)
@click.option(
    "--records",
    is_flag=True,
    help="Check decision records against leaves, and receipts that bureaus sent. --policy does, too, and --seen "
    "where it names an inbox.*.db or outbox.db.",
)
@click.option(
    "--root",
    metavar="FINGERPRINT",
    help="The federation's root from elsewhere: every directory and policy set must be signed under it. "
    "Default: as the members compared with pinned it.",
)
@click.option(
    "--witness", "witnesses", multiple=True, metavar="VKEY", help="A witness's verifier key, or the file with it."
)
@click.option("--quorum", type=click.IntRange(min=1), help="How many of the --witness must cosign. Default: all.")
@told_cases.told
@everywhere
def verify(
    given: Everywhere,
    trail_dir: Path | None,
    seen: tuple[Path, ...],
    key_file: Path | None,
    policies: tuple[Path, ...],
    records: bool,
    root: str | None,
    witnesses: tuple[str, ...],
    quorum: int | None,
    case_files: tuple[Path, ...],
) -> None:
    """Check the trail in TRAIL_DIR (all of HOME/operator) and compare it with what others kept.

    No bus is opened: what the home lacks, and nobody who is compared with has, is named.

    TRAIL_DIR may be a bundle (`audit export`) or a proof (`audit prove`): then it is checked with --vkey alone.

    With --witness a checkpoint must bear the cosignatures of a --quorum of them.

    Exit code 0: good; 4: something does not hold; 6: sound in itself, but compared with nothing, decided under a
    policy set that was not named, not checked against the signatures under --root, with leaves that no quorum of
    witnesses saw within the hour, without the trail of a shard of which others kept something, or begun anew after
    leaves were lost: which, and who still holds something of them, is told.
    """
    asked = Quorum.of(witnesses, quorum)
    if trail_dir and trail_dir.is_file():
        _verify_file(given, trail_dir, key_file, asked, told_cases.read(case_files))
        return
    folders = [trail_dir] if trail_dir else trails(operator_folder(given.home))
    checked = [_check(each, seen, key_file, Asked(policies, records, root, asked)) for each in folders]
    if not trail_dir:
        checked = _with_unmet(checked)
    code = next(
        (each for each in (exits.VERIFICATION_FAILED, exits.PARTLY) if each in {one.code for one in checked}), 0
    )
    if given.as_json:
        values = [_value(each) for each in checked]
        told = values[0] if len(values) == 1 else {"good": code == 0, "exit": code, "shards": values}
        answer.say(answer.in_json(told))
    else:
        for each in checked:
            _print(each)
        answer.say(_next_command(next((each for each in checked if each.code == code), checked[0]), given))
    if code:
        raise click.exceptions.Exit(code)


def _check(
    folder: Path,
    seen: tuple[Path, ...],
    key_file: Path | None,
    asked: Asked,
) -> Checked:
    there = any((folder / name).exists() for name in ("checkpoint", "tile", "vkey"))
    if not there and not (key_file and folder.is_dir()):
        raise _no_trail(folder)
    key = _key(key_file) if key_file else _key(folder / "vkey", _of_trail)
    everything = others = Seen(seen or beside(folder), folder)
    # A log that took another shard's name by its own word would be rid of all that others kept of it.
    if key_file or may_hold(folder, key.name):
        others = everything.without_other_shards(key.name)
    stood = asked.quorum.look(folder, key, others.heads(key.name)) if asked.quorum else None
    heads = heapq.merge(
        others.heads(key.name), others.ended(key.name), stood.heads() if stood else (), key=lambda each: each.size
    )
    report = examine(folder, key, heads, others.deliveries(), progress("checked"), others.told())
    if not there and not report.compared:  # a log that was burnt is one of which others kept something
        raise _no_trail(folder)
    for wrong in stood.wrong if stood else ():
        report.add("witnesses", wrong)
    # What members sent is held against the records wherever the auditor brings their files himself.
    sent = bool(seen) and records_beside(folder).is_file() and others.keeps_what_was_sent
    wanted = asked.policies or asked.records or sent
    decisions = Decisions.of(folder, asked.policies, others, report.gaps) if wanted else None
    signatures = signed.check(folder, report, everything, asked.root)
    return Checked(folder, report, others, key_file, decisions, signatures, stood)


def _with_unmet(checked: list[Checked]) -> list[Checked]:
    """Count what others kept that no trail of the home was compared with: a shard's log may have been put away."""
    unmet = set.intersection(*(set(each.others.left_out) for each in checked))
    here = {begun.shard_of(each.report.origin) for each in checked}
    federations = {each[0] for each in here if each}
    for file, origin in checked[0].others.witnessed():
        shard = begun.shard_of(origin)
        if shard and shard[0] in federations and shard not in here:
            unmet.add(file)
    return [replace(each, unmet=len(unmet)) for each in checked]


def _verify_file(given: Everywhere, file: Path, key_file: Path | None, quorum: Quorum | None, known: Cases) -> None:
    """Check a bundle or proof: its own word for the key would prove nothing."""
    if key_file is None:
        message = f"name the log's public key with --vkey: {file} is checked with nothing else"
        raise ConfigurationError(message)
    key = _key(key_file)
    if quorum:
        quorum.check(checkpoint_of(file), key)
    if code := verify_file(file, key, known, as_json=given.as_json):
        raise click.exceptions.Exit(code)


def _no_trail(folder: Path) -> ConfigurationError:
    return ConfigurationError(f"there is no trail in {folder}: name its folder, or the home with --home")


def _of_trail(file: Path) -> bytes:
    """Read the key in the trail's own folder; one that the auditor names may be a link or a pipe of his."""
    return reading.read(file, notes.NOTE_LIMIT)


def _key(file: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> Vkey:
    try:
        return notes.parse_vkey(read(file).decode())
    except OSError as error:
        said = f"cannot read {file}: {error.strerror}; name the log's public key with --vkey"
        raise ConfigurationError(said) from error
    except (UnicodeDecodeError, ProofError) as error:
        raise ConfigurationError(f"{file} holds no verifier key: name one with --vkey ({error})") from error


def _answer(checked: Checked) -> str:
    report = checked.report
    if checked.wrong:
        first = checked.findings[0]
        return answer.one_line(f"The trail does not hold: {first.place}: {first.what}")
    if not report.compared:
        left_out = ": all that is here of others is of other shards" if checked.others.left_out else ""
        return f"The trail of {report.size:,} leaves is sound in itself, but was compared with nothing{left_out}"
    compared = f"{report.size:,} leaves, compared with {_compared(report)} that others kept"
    reserve = _reserve(checked)
    return f"The trail is sound, {compared}; but {reserve}" if reserve else f"The trail is good: {compared}"


def _reserve(checked: Checked) -> str:
    """Say what keeps a sound trail from being good, the gravest first; nothing if nothing does."""
    if checked.report.gaps:
        return f"leaves were lost: {', '.join(map(_gap, checked.report.gaps))}"
    if checked.beyond:
        return f"no quorum of witnesses saw its last {checked.beyond:,} leaves"
    if checked.unmet:
        return f"others kept {answer.count(checked.unmet, 'file')} of shards of which no trail is here"
    if not checked.signatures.whole:
        return "who signed directories and policy sets was not checked"
    return "not every decision was checked" if checked.code else ""


def _gap(gap: Gap) -> str:
    return f"{gap.first:,} to {gap.last:,} of {gap.origin} ({gap.count:,})"


def _lost(report: Report) -> Iterator[tuple[str, str]]:
    """Say what was lost, and who still holds what of it."""
    for gap in report.gaps:
        yield ("LOST", f"leaves {_gap(gap)}; {report.origin} goes on from there")
    for source, numbers in sorted(report.lost.items()):
        some = ", ".join(map(str, sorted(set(numbers))[:SHOWN_LOST]))
        yield ("still held", f"{answer.safe(source)}: {len(set(numbers)):,} of them: {some}")


def _compared(report: Report) -> str:
    heads, deliveries = answer.count(report.heads, "head"), answer.count(report.deliveries, "delivery", "deliveries")
    return f"{heads}, {deliveries} and {answer.count(report.told, 'outcome')}"


def _print(checked: Checked) -> None:
    report = checked.report
    answer.say(_answer(checked))
    pinned = checked.key_file or "vkey in the trail's own folder: pin one from elsewhere with --vkey"
    facts = [
        ("log", report.origin),
        ("leaves", f"{report.size:,}" if report.root else "unknown: no checkpoint could be read"),
        ("root", report.root.hex() if report.root else "unknown"),
        ("key", str(pinned)),
        ("compared with", f"{answer.count(len(checked.others.files), 'file')}: {_compared(report)}"),
        *_to_come(report),
        *_ahead(report),
        *_left_out(checked.others),
        *_beyond(report),
        *([("witnessed", checked.stood.line(report.size))] if checked.stood else []),
        *checked.signatures.lines(),
        *_lost(report),
        *(checked.decisions.lines() if checked.decisions else NOT_REPEATED),
        *(("WRONG", answer.one_line(f"{each.place}: {each.what}")) for each in checked.findings[:SHOWN_FINDINGS]),
    ]
    if checked.wrong > SHOWN_FINDINGS:
        facts.append(("WRONG", f"and {checked.wrong - SHOWN_FINDINGS:,} more"))
    for name, value in facts:
        answer.say(f"  {name:<14} {answer.one_line(value)}")


def _to_come(report: Report) -> list[tuple[str, str]]:
    """Say that leaves are dated later than it is here: either clock may be wrong, so that it decides nothing."""
    if report.now <= clock() + CLOCK_SKEW_MS:
        return []
    return [("to come", f"the last leaf is of {answer.when(report.now)}, and here it is {answer.when(clock())} (UTC)")]


def _ahead(report: Report) -> Iterator[tuple[str, str]]:
    """Say whose collectors took in what is dated later: which of the clocks was wrong, one member alone cannot say."""
    for member, each in sorted(report.ahead().items()):
        late = f"leaf {each.leaf_number:,} is dated {each.ahead // 60_000:,} minutes later than {member} took it in"
        yield ("ahead", f"{late}: its clock was slow, or the log's was fast")


def _left_out(others: Seen) -> list[tuple[str, str]]:
    """Say what speaks of other shards, and so neither for this trail nor against it."""
    names = ", ".join(f"{each.parent.name}/{each.name}" for each in others.left_out[:SHOWN_LEFT_OUT])
    return [("left out", answer.safe(f"{len(others.left_out)} files of other shards: {names}"))] if names else []


def _beyond(report: Report) -> list[tuple[str, str]]:
    """Say which leaves no head of others covers: they came since, or were shown to nobody."""
    if not report.compared or report.agreed == report.size:
        return []
    return [("not compared", f"leaves {report.agreed:,} to {report.size - 1:,}: in no head that others kept")]


def _next_command(checked: Checked, given: Everywhere) -> str:
    folder = shlex.quote(str(checked.folder))
    if checked.wrong:
        return f"valise audit verify {folder} --json"
    if not checked.report.compared:
        return f"valise audit verify {folder} --seen PATH"
    if checked.beyond:
        return f"valise audit verify {folder} --witness VKEY --seen PATH"
    if not checked.signatures.whole:
        return f"valise audit verify {folder} --root FINGERPRINT --seen PATH"
    if checked.code:
        return given.again("valise audit verify --policy DIR")
    return given.again(f"valise audit show {max(checked.report.size - 1, 0)}")


def _value(checked: Checked) -> dict[str, Any]:
    report = checked.report
    return {
        "answer": _answer(checked),
        "good": checked.code == 0,
        "exit": checked.code,
        "origin": report.origin,
        "size": report.size if report.root else None,
        "root": report.root.hex() if report.root else None,
        "now": report.now,
        "key": str(checked.key_file) if checked.key_file else "own-folder",
        "compared": {
            "files": [str(each) for each in checked.others.files],
            "left_out": [str(each) for each in checked.others.left_out],
            "heads": report.heads,
            "deliveries": report.deliveries,
            "outcomes": report.told,
            "up_to": report.agreed,
            "ahead": {who: {"leaf": each.leaf_number, "ms": each.ahead} for who, each in report.ahead().items()},
        },
        "witnesses": checked.stood.value() | {"unseen": checked.beyond} if checked.stood else None,
        "signatures": checked.signatures.value(),
        "decisions": checked.decisions.value() if checked.decisions else None,
        "lost": {
            "gaps": [{"origin": each.origin, "first": each.first, "last": each.last} for each in report.gaps],
            "held": {source: sorted(set(numbers)) for source, numbers in report.lost.items()},
        },
        "wrong": checked.wrong,
        "findings": [{"place": each.place, "what": each.what} for each in checked.findings],
        "more": checked.wrong - len(checked.findings),
    }
