"""A draft that is wrong is told what to mend, all of it at once, and never what its fields hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.member_homes import Homes, make, person

NAME = "Otar Vardomelidze"


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ({}, ("record: is missing", "kind: is missing", "and 2 more", "`valise schema show person --example`")),
        ({"kind": "object"}, ("record: is missing", "`valise schema show object --example`")),
        ({"kind": ["x"], "record": {NAME: 1}}, ("kind: ", "record: ", "`valise schema show person --example`")),
        (json.loads(person("R-1", audience=7)), ("audience: is no object of its fields",)),
        (json.loads(person("R-1", topics=NAME)), ("topics: ",)),
    ],
)
def test_a_bad_draft_names_all_that_is_wrong_and_where_an_example_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], draft: dict[str, Any], said: tuple[str, ...]
) -> None:
    make(tmp_path)
    told = Homes(tmp_path).valise("publish", "-", "--bureau", "AT/ncb", given=json.dumps(draft))
    err = capsys.readouterr().err
    assert told.code == 1
    assert err.startswith("bad-file: ")
    assert [each for each in said if each not in err] == []
    assert NAME not in err
