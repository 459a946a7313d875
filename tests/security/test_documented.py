"""docs/security.md says what the code does: the limits and the policy in it are held to the real ones."""

import re
from dataclasses import fields
from pathlib import Path

from magistral_ui.sessions.limits import SHARED, Limits
from magistral_ui.web.security_headers import content_security_policy

TEXT = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_table_has_each_limit_with_its_numbers() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)
    told = {name: (int(shared), int(own)) for name, shared, own in rows}
    names = [each.name for each in fields(Limits) if each.name != "shared"]
    assert told == {name: (getattr(SHARED, name), getattr(Limits(), name)) for name in names}


def test_the_policy_is_the_one_that_is_sent() -> None:
    found = re.search(r"```\n(default-src.*?)\n```", TEXT, re.DOTALL)
    assert found
    assert found[1].replace(";\n", "; ") == content_security_policy("…")
