"""Every setting with its meaning, unit and default; a home's `settings.toml`, parsed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.errors import ConfigurationError


class Tls(BaseModel):
    """PEM files of one principal; paths are relative to the home."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ca: Path = Field(description="nodes-ca.pem: the only CA that a client trusts")
    certificate: Path = Field(description="the principal's certificate, then its CA")
    key: Path = Field(description="the principal's private key, PKCS#8")


class Settings(BaseModel):
    """One home's settings. `bus` is `sqlite:PATH` or `kafka:HOST:PORT[,HOST:PORT…]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Literal["operator", "member"] = Field(description="whose home this is")
    federation: str = Field(description="id of the federation", min_length=1)
    bus: str = Field(description="sqlite:PATH (relative to the home) or kafka:HOST:PORT", pattern="^(sqlite|kafka):.+")
    member: str | None = Field(default=None, description="the member whose home this is")
    bureau: str | None = Field(default=None, description="the bureau to act for where no --bureau says")
    tls: dict[str, Tls] = Field(default_factory=dict, description="PEM files by principal, for a Kafka bus")
    step_limit: int = Field(default=200, ge=1, le=500, description="records in one step")
    step_pause_ms: int = Field(default=20, ge=0, description="ms between the starts of two steps")
    shard: int = Field(default=0, ge=0, description="the shard that this broker owns")
    judge_limit_s: float = Field(default=30.0, gt=0, description="seconds a child may judge a record that killed us")

    @property
    def bus_kind(self) -> str:
        """`sqlite` or `kafka`."""
        return self.bus.partition(":")[0]

    @property
    def bus_address(self) -> str:
        """Path of the file, or HOST:PORT of the nodes."""
        return self.bus.partition(":")[2]


def load(home: Path) -> Settings:
    """Read `settings.toml` of a home. Raises ConfigurationError that says what to do."""
    path = home / "settings.toml"
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        message = f"no settings.toml in {home}: make the home with `valise broker init` or `valise demo`"
        raise ConfigurationError(message) from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def save(home: Path, settings: Settings) -> None:
    """Write `settings.toml`; only what differs from the defaults."""
    lines: list[str] = []
    given = settings.model_dump(mode="json", exclude_defaults=True)
    tls = given.pop("tls", {})
    for name, value in given.items():
        lines.append(f"{name} = {_toml(value)}")
    for principal, files in tls.items():
        lines.append(f'\n[tls."{principal}"]')
        lines.extend(f"{name} = {_toml(value)}" for name, value in files.items())
    home.mkdir(parents=True, exist_ok=True)
    (home / "settings.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower()
