"""Prints who receives a notice and who does not, why, and what would have to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import answer

if TYPE_CHECKING:
    from broker.explain import Account


def value(account: Account) -> dict[str, Any]:
    """Give an account as JSON has it; `why`, `uncertain` say in one word what `sentence` and `doubts` say in full."""
    return {
        **account._asdict(),
        "obstacles": [each._asdict() for each in account.obstacles],
        "why": account.sentence,
        "uncertain": bool(account.doubts),
        "withheld": {name: list(rules) for name, rules in account.withheld.items()},
    }


def table(accounts: Sequence[Account]) -> answer.Table:
    """List bureaus: yes or no, what is shown, by which terms and rules."""
    return answer.Table(
        ("bureau", "receives", "shown", "withheld", "by"),
        [
            (
                each.bureau,
                _answer(each),
                ", ".join(each.shown),
                ", ".join(each.withheld),
                ", ".join(each.rules) if each.receives else ", ".join(one.code for one in each.obstacles),
            )
            for each in accounts
        ],
    )


def legend(accounts: Sequence[Account]) -> Iterator[str]:
    """Say once what each code of the table means: first why some receive it, then why others do not."""
    receiving = {", ".join(each.rules): each.sentence for each in accounts if each.receives and each.rules}
    return meanings(receiving, {each.code: each.sentence for account in accounts for each in account.obstacles})


def meanings(receiving: Mapping[str, str], barring: Mapping[str, str]) -> Iterator[str]:
    """Say what codes mean: code → sentence, why it is received and why not."""
    width = max(map(len, [*receiving, *barring]), default=0)
    for which, said in (("yes", receiving), ("no", barring)):
        yield from (f"{which:<3}  {code:<{width}}  {said[code]}" for code in sorted(said))


def lines(account: Account) -> Iterator[str]:
    """Tell of one bureau in full."""
    if account.receives:
        yield f"  why       {account.sentence}"
        yield from (f"  rule      {each}" for each in account.rules)
        yield from (f"  fact      {each}" for each in account.facts)
        yield f"  shown     {', '.join(account.shown) or 'the header only'}"
        yield from (f"  withheld  {name}, by {', '.join(rules)}" for name, rules in account.withheld.items())
    for each in account.obstacles:
        yield f"  {each.term:<9} {each.code}: {each.sentence}"
        yield from (f"    fact    {fact}" for fact in each.facts)
        yield f"    change  {each.change}"
    yield from (f"  doubt     {each}" for each in account.doubts)


def _answer(account: Account) -> str:
    if account.receives:
        return "yes?" if account.doubts else "yes"
    return "maybe" if account.doubts else "no"


def headline(accounts: Sequence[Account], would: str = "received") -> str:
    """Count them: the answer in one line."""
    if any(each.held for each in accounts):
        receivers = sum(each.receives for each in accounts)
        return f"held for review: {receivers} of {len(accounts)} bureaus {would} it to review it, nobody else does yet"
    answers = [_answer(each) for each in accounts]
    maybe, unsure = answers.count("maybe"), answers.count("yes?")
    first = f"{answers.count('yes') + unsure} of {len(accounts)} bureaus {would} it"
    more = f", {maybe} more may: their subscriptions or clearances are not known here" if maybe else ""
    return first + more + (f"; for {unsure} of them what you may not know could still change it" if unsure else "")
