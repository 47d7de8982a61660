"""Bureau decisions a second by our own rules, on one core, at 196 bureaus and 10 actions; goal 30 million.

A decision is what one bureau may do with one notice: receive it, or see one of its compartments. Every notice is
another one; its facts are computed from header and routing each time, and that is part of the time. Notices of kind
`person` have 11 actions, of which 10 are counted. Times are the processor's, for others work on it, too. Beside it:
compiling, explaining (to every bureau the whole account, in sentences, from the decision on), loading a set with 1,000
cases, the cost at 1,000 bureaus over that at 27, and 1,000,000 decisions held against Cedar (`--quick`: 30,000).
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench import scene
from broker import cases, likeness
from broker.cases import NOW, World, WrittenNotice
from broker.decide import Subscriptions, View
from broker.directory import NO_ANNEX, Annex, Directory
from broker.errors import VersionRefusedError
from broker.explain import accounts, of_prospect
from broker.facts import facts_of
from broker.notice import (
    CONFIDENTIALITIES,
    HANDLING_CODES,
    KINDS,
    PURPOSES,
    SPECIAL_CATEGORIES,
    SUBJECT_CATEGORIES,
    Header,
    Routing,
)
from broker.rules import ACTIONS, PolicySet, Read, Reference, Rules, read_rules
from tests.policy import invented

GOAL = 30_000_000
BUREAUS, COUNTED = 196, 10
SMALL, LARGE = 27, 1000
CASES = 1000
SET = PolicySet.packaged
GOALS = {"compile_ms": 100.0, "explain_ms": 5.0, "load_1000_cases_s": 2.0, "cost_1000_over_27": 6.0}
Notice = tuple[Header, Routing]


@dataclass(frozen=True)
class Federation:
    """A directory of members of one bureau each, and the rules compiled for it."""

    directory: Directory
    annex: Annex
    rules: Rules
    compiled_s: float

    @classmethod
    def of(cls, size: int) -> Federation:
        """Make one of `size` bureaus; reading the set and compiling it is timed."""
        directory, annex = _world(size)
        started = time.process_time()
        rules = Rules(read_rules(SET()), directory, annex)
        return cls(directory, annex, rules, time.process_time() - started)

    def cost(self, notices: Sequence[Notice]) -> float:
        """Decide on each notice once; give the seconds that one took."""
        judge, directory = self.rules.judge, self.directory
        # What the bench itself has made is not for the collector to search while the clock runs.
        gc.collect()
        gc.freeze()
        started = time.process_time()
        for header, routing in notices:
            judge(facts_of(header, routing, directory, NO_ANNEX, NOW))
        return (time.process_time() - started) / len(notices)


def _world(size: int) -> tuple[Directory, Annex]:
    chance, names = random.Random(size), [f"M{place:03}" for place in range(size)]
    bureaus = {f"{name}/ncb": chance.sample(PURPOSES, chance.randint(1, len(PURPOSES))) for name in names}
    lawful = {(source, target) for source in names for target in chance.sample(names, 20) if source != target}
    lawful |= {(names[0], target) for target in names[1:]}
    return cases.world_of(
        World(
            bureaus=bureaus,
            agreements={f"circle-{place}": chance.sample(names, 20) for place in range(10)},
            transfers=[f"{source}>{target}" for source, target in sorted(lawful)],
            clearances={each: chance.choice(CONFIDENTIALITIES) for each in bureaus},
        )
    )


def notices(directory: Directory, count: int, seed: int) -> list[Notice]:
    """Make up persons, no two alike, as issuers write them: most addressed to some, some wide, some restricted."""
    chance = random.Random(seed)
    return [cases.notice_of(_written(chance, directory, place), directory.federation) for place in range(count)]


def _written(chance: random.Random, directory: Directory, place: int) -> WrittenNotice:
    bureaus, parties = sorted(directory.bureaus), sorted(directory.members)

    def some(values: Sequence[str], most: int) -> list[str]:
        return chance.sample(values, chance.randint(0, min(most, len(values))))

    return WrittenNotice(
        issuer=chance.choice(bureaus),
        purpose=chance.choice(PURPOSES),
        confidentiality=chance.choice(CONFIDENTIALITIES),
        handling=some(HANDLING_CODES, 2),
        retain_until=NOW + 1 + place,
        everyone=chance.random() < 0.3,
        agreements=some(sorted(directory.agreements), 2),
        to=some(bureaus, 8),
        deny=some(parties, 2),
        origins=[(chance.choice(parties), some(parties, 5)) for _ in range(chance.randint(0, 2))],
        subject_categories=some(SUBJECT_CATEGORIES, 2),
        minor=chance.choice(("no", "no", "no", "yes", "unknown")),
        special_categories=some(SPECIAL_CATEGORIES, 1),
        protected_from=some(parties, 1),
    )


def measured(federation: Federation, count: int, runs: int) -> float:
    """Give the median cost of a notice over some runs, each with notices that were never judged before."""
    federation.cost(notices(federation.directory, 500, 0))
    return median(federation.cost(notices(federation.directory, count, 1 + run)) for run in range(runs))


def explained(federation: Federation) -> float:
    """Give the seconds that it takes to explain one notice to all its bureaus; median of 25 notices."""
    directory, read = federation.directory, read_rules(SET())
    everything = dict.fromkeys(sorted(directory.bureaus)[::2], ("*",))
    view = View(directory, federation.rules, Subscriptions.of(directory, everything))
    made = [Spoken(*each) for each in notices(directory, 25, 99)]
    gc.collect()
    gc.freeze()
    return median(_timed(lambda each=each: _explain(each, view, read)) for each in made)  # type: ignore[misc]  # a default


def _explain(notice: Spoken, view: View, read: Sequence[Read]) -> None:
    told = accounts(of_prospect(notice, ~0, view, read, NOW, NO_ANNEX))
    if len(told) != BUREAUS:
        message = f"{len(told)} bureaus were told of, not {BUREAUS}"
        raise AssertionError(message)


@dataclass(frozen=True)
class Spoken:
    """A notice that is explained: all that is needed of it."""

    header: Header
    routing: Routing


def with_cases(count: int) -> PolicySet:
    """Give our own set with its cases repeated until there are `count`."""
    files = dict(SET().files)
    texts = {name: text.split("[[case]]") for name, text in files.items() if name.startswith("cases/")}
    had = sum(len(parts) - 1 for parts in texts.values())
    for place in range(count - had):
        name = sorted(texts)[place % len(texts)]
        parts = texts[name]
        parts.append("\n" + parts[1 + place // len(texts) % (len(parts) - 1)].strip() + "\n\n")
    return PolicySet.of(files | {name: "[[case]]".join(parts) for name, parts in texts.items()})


def held(count: int) -> tuple[int, int]:
    """Hold `count` decisions of our own set against Cedar; give how many, and how many notices differ."""
    policies, read, done, differ, seed = SET(), read_rules(SET()), 0, 0, 0
    while done < count:
        chance = random.Random(f"bench {seed}")
        seed += 1
        directory, annex = invented.world(chance)
        rules, reference = Rules(read, directory, annex), Reference(policies, directory, annex)
        asked = [(bureau, action) for bureau in directory.bureaus_in(directory.everyone) for action in ACTIONS]
        for _ in range(5):
            facts = invented.notice(chance, directory, rules.literals)
            try:
                likeness.compare(rules, reference, directory, facts, asked)
            except VersionRefusedError as error:
                print(f"seed {seed - 1}: {error}", file=sys.stderr)
                differ += 1
            done += len(asked)
    return done, differ


def _timed(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def main() -> None:
    """Measure and print; exit 1 if the compiled form and Cedar differ anywhere."""
    as_json, quick = scene.flags(__doc__)
    count, runs = (2_000, 3) if quick else (5_000, 7)
    small, middle, large = (Federation.of(each) for each in (SMALL, BUREAUS, LARGE))
    cost = {len(each.directory.bureaus): measured(each, count, runs) for each in (small, middle, large)}
    crowd = with_cases(CASES)
    loads = [_timed(lambda: Rules.load(crowd, middle.directory, middle.annex)) for _ in range(runs)]
    decisions, differ = held(30_000 if quick else 1_000_000)
    value = round(BUREAUS * COUNTED / cost[BUREAUS])
    figures = {
        "compile_ms": round(min(middle.compiled_s, Federation.of(BUREAUS).compiled_s) * 1e3, 1),
        "explain_ms": round(explained(middle) * 1e3, 2),
        "load_1000_cases_s": round(median(loads), 2),
        "cost_1000_over_27": round(cost[LARGE] / cost[SMALL], 2),
    }
    result = {"bench": "policy", "goal": GOAL, "value": value, "unit": "bureau decisions/s", **figures}
    result |= {"held_against_cedar": decisions, "differing_notices": differ}
    rows: list[tuple[str, object]] = [(name, f"{each} (goal {GOALS[name]:g})") for name, each in figures.items()]
    rows += [(f"µs a notice at {size} bureaus", round(each * 1e6, 1)) for size, each in cost.items()]
    rows += [("rules", len(middle.rules.rules)), ("actions of a person", 1 + len(KINDS["person"]))]
    rows += [("decisions held against Cedar", decisions), ("notices that differ", differ)]
    scene.say(result, rows, as_json)
    if differ:
        sys.exit(1)


if __name__ == "__main__":
    main()
