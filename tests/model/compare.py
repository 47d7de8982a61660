"""Compares what is due in a story with what came, leaf by leaf; tells a shortened story where they part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from broker.register import Register
from tests.model.author import story_of
from tests.model.life import Life
from tests.model.played import played
from tests.model.promises import Promises
from tests.model.story import Act, Outcome, Publish, Story

Came = Sequence[tuple[Outcome, ...] | Exception]


@dataclass(frozen=True)
class Parting:
    """Where model and broker part: `what` names it in the same words in every story."""

    what: str
    place: int
    due: tuple[Outcome, ...]
    came: tuple[Outcome, ...] | Exception
    life: Life


def parting(story: Story, came: Came, reading: type[Life] = Life) -> Parting | None:
    """Find the first act of which something else came than was due, or that breaks a promise."""
    life = reading(story.federation)
    promises = Promises(life)
    for place, (act, due, leaves) in enumerate(abreast(story, came, life)):
        if isinstance(leaves, Exception):
            what = f"the broker broke: {leaves!r}"
        else:
            what = difference(due, leaves)
            if not what and isinstance(act, Publish):
                what = promises.broken(act.notice, leaves)
        if what:
            return Parting(what, place, due, leaves, life)
    return None


def abreast(
    story: Story, came: Came, life: Life
) -> Iterator[tuple[Act, tuple[Outcome, ...], tuple[Outcome, ...] | Exception]]:
    """Give each act with what was due and what came of it."""
    for (at, act), leaves in zip(story.acts, came, strict=False):  # nothing comes after what broke
        yield act, life.take(act, at), leaves


def difference(due: tuple[Outcome, ...], came: tuple[Outcome, ...]) -> str:
    """Say in which fields they part, if they do."""
    if [each.kind for each in due] != [each.kind for each in came]:
        return f"due {', '.join(map(_named, due))}; came {', '.join(map(_named, came))}"
    for one, two in zip(due, came, strict=True):
        if not one.fits(two):
            names = (each.name for each in fields(one) if each.compare)
            return f"{one.kind}: other {', '.join(each for each in names if getattr(one, each) != getattr(two, each))}"
    return ""


def _named(outcome: Outcome) -> str:
    return " ".join([outcome.kind, *sorted(outcome.codes)])


def shortened(story: Story, again: Callable[[Story], Parting | None]) -> Story:
    """Leave out every act without which model and broker still part in the same way."""
    found = again(story)
    if found is None:
        return story
    acts = list(story.acts[: found.place + 1])
    for _ in range(2):  # what stood in the way of the one may have gone with the other
        for place in reversed(range(len(acts) - 1)):
            fewer = [*acts[:place], *acts[place + 1 :]]
            less = again(replace(story, acts=tuple(fewer)))
            if less and less.what == found.what:
                acts = fewer
    return replace(story, acts=tuple(acts))


def told(story: Story, came: Came, found: Parting | None) -> str:
    """Tell a story to a person: its federation, what happened, what came of it, and where it parts from the model."""
    world = story.federation.world.model_dump(exclude_defaults=True)
    lines = [f"{name}: {value}" for name, value in world.items()]
    lines += [f"authorities: {story.federation.authorities}", ""]
    for (at, act), leaves in zip(story.acts, came, strict=False):
        lines.append(f"{at % 1_000_000:>6} {act}")
        lines += [f"       -> {each}" for each in (leaves if isinstance(leaves, tuple) else [repr(leaves)])]
    if found:
        lines += ["", f"parts from the model: {found.what}"]
        lines += [f"       due  {each}" for each in found.due]
    return "\n".join(lines)


def retold(seed: int, register: Register) -> str:
    """Play a story anew and tell it: shortened if it parts from the model, else as it is."""

    def again(story: Story) -> Parting | None:
        return parting(story, played(story, register))

    story = shortened(story_of(seed), again)
    text = told(story, played(story, register), again(story))
    return f"seed {seed}\n{text}\n\nTo play it again: .venv/bin/python -m tests.model {seed}"
