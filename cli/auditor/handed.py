"""Checks what somebody handed on, a bundle or a proof, with the log's public key alone, and tells what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from broker import bundle, codec, notes, reading
from broker.bundle import Checked, Told
from broker.errors import ConfigurationError, ProofError
from broker.merkle import check_inclusion, leaf_hash
from broker.notes import Vkey
from broker.notice import Header, Leaf
from cli import answer, exits
from cli.auditor.cases import Cases
from cli.auditor.content import brief, opened

SHOWN_FINDINGS = 20


def _read(file: Path) -> bytes:
    try:
        return reading.read(file.resolve(), bundle.SIZE_LIMIT)
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise ProofError(message) from error


def checkpoint_of(file: Path) -> str:
    """Give the checkpoint that a bundle or tlog-proof brings along, nothing checked. Raises ProofError."""
    data = _read(file)
    if data.startswith(notes.PROOF_HEAD.encode()):
        return notes.parse_proof(data.decode(errors="replace")).checkpoint
    return bundle.read(data).parts.get("checkpoint", b"").decode(errors="replace")


def verify_file(file: Path, key: Vkey, cases: Cases, *, as_json: bool) -> int:
    """Check a bundle or a tlog-proof, say what it shows, and give the exit code."""
    data = _read(file)
    if data.startswith(notes.PROOF_HEAD.encode()):
        return _verify_proof(data, key, as_json=as_json)
    checked = bundle.check(bundle.read(data), key)
    if as_json:
        answer.say(answer.in_json(_value(checked, cases)))
    else:
        answer.say("\n".join(_lines(checked, cases)))
    return exits.VERIFICATION_FAILED if checked.wrong else exits.DONE


def _verify_proof(data: bytes, key: Vkey, *, as_json: bool) -> int:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = "a proof is not UTF-8"
        raise ProofError(message) from error
    proof = notes.parse_proof(text)
    head = notes.open_checkpoint(proof.checkpoint, key)
    leaf = notes.extra_of(text)
    if not leaf:
        message = "the proof does not bring its leaf along: have it made with `valise audit prove`"
        raise ConfigurationError(message)
    check_inclusion(leaf_hash(leaf), proof.number, head.size, proof.proof, head.root)
    read = codec.decode(Leaf, leaf)
    value = {"leaf": proof.number, "size": head.size, "root": head.root, "at": _time(read.now), "kind": read.kind}
    first = f"Leaf {proof.number} ({read.kind}, {_time(read.now)}) is in the log {head.origin} of {head.size:,} leaves"
    answer.show(first, value, as_json=as_json, then=_compare(head))
    return exits.DONE


def _compare(head: notes.Checkpoint) -> str:
    return f"compare the head of size {head.size}, root {head.root.hex()[:16]}…, with one that you or a witness kept"


def _time(ms: int) -> str:
    return answer.iso(ms, "seconds")


def _first(checked: Checked) -> str:
    if checked.wrong:
        return answer.one_line(f"The bundle does not hold: {checked.wrong[0]}")
    manifest = checked.bundle.manifest
    what = "with data" if manifest.data == "clear" else "digests only"
    held = f"{answer.count(len(manifest.notices), 'notice')}, {answer.count(len(checked.told), 'leaf', 'leaves')}"
    return f"The bundle is good: {held}, {what}"


def _lines(checked: Checked, cases: Cases) -> list[str]:
    lines = [_first(checked)]
    if checked.head:
        lines.append(f"  {'log':<12} {checked.head.origin}, {checked.head.size:,} leaves")
    for number in sorted(checked.told):
        lines += _leaf_lines(checked.told[number], cases)
    lines += [f"  {'WRONG':<12} {answer.one_line(each)}" for each in checked.wrong[:SHOWN_FINDINGS]]
    if len(checked.wrong) > SHOWN_FINDINGS:
        lines.append(f"  {'WRONG':<12} and {len(checked.wrong) - SHOWN_FINDINGS} more")
    lines.append(
        f"  {'not shown':<12} that nothing was left out: `valise audit verify` over the whole trail shows that"
    )
    lines.append(_compare(checked.head) if checked.head else "have it exported again, or check the key")
    return lines


def _leaf_lines(told: Told, cases: Cases) -> list[str]:
    value = _told(told, cases)
    said = answer.one_line(f"{value['kind']} {value['code'] or ''}".rstrip())  # whoever holds the log writes any
    lines = [f"  leaf {told.number:<8} {value['at']}  {said}"]
    more: list[tuple[str, str]] = []
    if "notice" in value:
        more.append(("notice", f"{value['notice']} of {value['issuer']} ({value['purpose']}; {value['legal_basis']})"))
        more.append(
            ("signed", "by its issuer, checked" if value["signed"] else "not shown: the broker holds it no more")
        )
    more += [
        ("to", f"{each['bureau']}, delivery {each['delivery']}: {', '.join(each['shown']) or 'header only'}")
        for each in value.get("recipients", [])
    ]
    more += [("rules", ", ".join(value["rules"]))] if value.get("rules") else []
    if "receipt" in value:
        receipt = value["receipt"]
        case = f", case digest {receipt['case_digest']}" if receipt["case_digest"] else ""
        case = f", case {receipt['case']}" if receipt["case"] else case
        more.append(("by", f"{receipt['bureau']} {receipt['act']}{case}"))
    if "look" in value:
        more.append(("by", f"{value['look']['by']}, {value['look']['reason']}"))
    more += [
        (name, json.dumps(brief(body), ensure_ascii=False, default=answer.plain))
        for name, body in (value.get("content") or {}).items()
    ]
    return [*lines, *(f"      {name:<12} {answer.one_line(text)}" for name, text in more)]


def _value(checked: Checked, cases: Cases) -> dict[str, Any]:
    manifest, head = checked.bundle.manifest, checked.head
    return {
        "answer": _first(checked),
        "good": not checked.wrong,
        "data": manifest.data,
        "notices": list(manifest.notices),
        "log": {"origin": head.origin, "size": head.size, "root": head.root.hex()} if head else None,
        "leaves": [_told(checked.told[each], cases) for each in sorted(checked.told)],
        "wrong": checked.wrong,
    }


def _told(told: Told, cases: Cases) -> dict[str, Any]:
    """Say what the parts prove of one leaf."""
    leaf, decision = told.leaf, told.decision
    value: dict[str, Any] = {
        "leaf": told.number,
        "at": _time(leaf.now),
        "kind": leaf.kind,
        "code": leaf.code,
        "about": leaf.about,
        "policies": leaf.policies.hex(),
        "directory": leaf.directory.hex(),
    }
    names: list[str] = []
    if decision and decision.header:
        header = codec.decode(Header, decision.header)
        names = [each.name for each in header.compartments]
        value |= {
            "notice": str(UUID(bytes=header.notice_id)),
            "issuer": header.issuer,
            "purpose": header.purpose,
            "legal_basis": header.legal_basis,
            "rules": [each.rule for each in decision.rules],
            "signed": told.verified is not None,
            "content": opened(told.verified.envelope) if told.verified else None,
        }
    if leaf.rows is not None:
        value["recipients"] = [
            {"bureau": each.bureau, "delivery": each.delivery_number, "shown": _shown(each.shown, names)}
            for each in told.rows
        ]
    if told.receipt:
        digest = told.receipt.case_digest
        value["receipt"] = {
            "bureau": told.receipt.bureau,
            "act": told.receipt.act,
            "result": told.receipt.result,
            "case_digest": digest.hex() if digest else None,
            "case": cases.get(digest.hex()) if digest else None,
        }
    if told.look:
        value["look"] = {"by": told.look.by, "reason": told.look.reason}
    return value


def _shown(mask: int, names: list[str]) -> list[str]:
    return [
        names[bit] if bit < len(names) else f"compartment {bit}" for bit in range(mask.bit_length()) if mask >> bit & 1
    ]
