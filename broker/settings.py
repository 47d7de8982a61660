"""Every setting with its meaning, unit and default; a home's `settings.toml`, parsed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker import durable
from broker.errors import ConfigurationError

_MEND = "Correct it, or put that of a backup in its place"


class Tls(BaseModel):
    """PEM files of one principal; paths are relative to the home."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ca: Path = Field(description="nodes-ca.pem: the only CA that a client trusts")
    certificate: Path = Field(description="the principal's certificate, then its CA")
    key: Path = Field(description="the principal's private key, PKCS#8")


class Witness(BaseModel):
    """A witness that the operator asks to cosign (C2SP tlog-witness)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    vkey: str = Field(description="its verifier key, as `valise audit witness --new-key` prints it")
    url: str = Field(description="where /add-checkpoint is asked", pattern="^https?://[^ ]+$")
    tls: Tls | None = Field(default=None, description="PEM files for a witness that wants to know who asks (https)")


class Settings(BaseModel):
    """One home's settings. `bus` is `sqlite:PATH` or `kafka:HOST:PORT[,HOST:PORT…]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Literal["operator", "member"] = Field(description="whose home this is")
    federation: str = Field(description="id of the federation", min_length=1)
    bus: str = Field(description="sqlite:PATH (relative to the home) or kafka:HOST:PORT", pattern="^(sqlite|kafka):.+")
    member: str | None = Field(default=None, description="the member whose home this is")
    bureau: str | None = Field(default=None, description="the bureau to act for where no --bureau says")
    tls: dict[str, Tls] = Field(default_factory=dict, description="PEM files by principal, for a Kafka bus")
    step_limit: int = Field(default=140, ge=1, le=500, description="records in one step")
    step_pause_ms: int = Field(default=20, ge=0, description="ms between the starts of two steps")
    shard: int = Field(default=0, ge=0, description="the shard that this broker owns")
    witnesses: tuple[Witness, ...] = Field(default=(), description="who is asked to cosign checkpoints; [[witnesses]]")
    witness_quorum: int = Field(default=0, ge=0, description="how many of the witnesses are enough; fewer is red")
    review_alarm_h: float = Field(default=8.0, gt=0, description="hours after which a silent reviewer raises an alarm")
    judge_limit_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds a child may check a batch, or judge a record that killed us",
    )

    @model_validator(mode="after")
    def _quorum_can_be_met(self) -> Self:
        if self.witness_quorum > len(self.witnesses) or (self.witnesses and not self.witness_quorum):
            message = f"witness_quorum says how many of the {len(self.witnesses)} witnesses are enough"
            raise ValueError(message)
        return self

    @property
    def bus_kind(self) -> str:
        """`sqlite` or `kafka`."""
        return self.bus.partition(":")[0]

    @property
    def bus_address(self) -> str:
        """Path of the file, or HOST:PORT of the nodes."""
        return self.bus.partition(":")[2]


def of_member(bureau: str, federation: str, bus: str, tls: dict[str, Tls] | None = None) -> Settings:
    """Make the settings of a member's home that acts for this bureau."""
    member = bureau.partition("/")[0]
    return Settings(role="member", federation=federation, bus=bus, member=member, bureau=bureau, tls=tls or {})


def load(home: Path) -> Settings:
    """Read `settings.toml` of a home. Raises ConfigurationError that says what to do."""
    path = home / "settings.toml"
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        how = (
            "the operator's home with `valise broker init`, a member's with `valise key new` (on a machine of its own "
            "after `valise member accept FILE`), all with `valise demo`"
        )
        message = f"no settings.toml in {home}: name another home with --home or VALISE_HOME, or make {how}"
        raise ConfigurationError(message) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'all'}: {each['msg']}" for each in error.errors())
        raise ConfigurationError(f"{path}: {wrong}. {_MEND}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}. {_MEND}") from error


def save(home: Path, settings: Settings) -> None:
    """Write `settings.toml`, only what differs from the defaults; a kill leaves it as it was or whole."""
    lines: list[str] = []
    given = settings.model_dump(mode="json", exclude_defaults=True)
    tls, witnesses = given.pop("tls", {}), given.pop("witnesses", ())
    for name, value in given.items():
        lines.append(f"{name} = {_toml(value)}")
    for principal, files in tls.items():
        lines.append(f'\n[tls."{principal}"]')
        lines.extend(f"{name} = {_toml(value)}" for name, value in files.items())
    for witness in witnesses:
        files = witness.pop("tls", None)
        lines.append("\n[[witnesses]]")
        lines.extend(f"{name} = {_toml(value)}" for name, value in witness.items())
        if files:
            lines.append("[witnesses.tls]")
            lines.extend(f"{name} = {_toml(value)}" for name, value in files.items())
    durable.make_lasting(home)
    durable.put(home / "settings.toml", ("\n".join(lines) + "\n").encode())


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower()
