"""What tests know of their SoftHSM token."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

TOKEN = "valise-test"
PIN = "1234-not-5678"


def configuration(folder: Path) -> dict[str, str]:
    """Write SoftHSM's configuration and the PIN's file; give the variables that name them."""
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    pin = folder / "pin"
    pin.touch(mode=0o600)
    pin.write_text(f"{PIN}\n")
    return {"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "VALISE_PIN_FILE": str(pin)}


def new_token(label: str, environment: Mapping[str, str]) -> None:
    """Make a token with this label and PIN."""
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "87654321", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)
