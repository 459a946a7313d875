"""What a file of JSON takes is known before it is parsed, wherever the pieces end that are looked at."""

import json

import pytest

from magistral_ui.errors import ImportRefused
from magistral_ui.export import json as exported
from magistral_ui.export.json import MAX_DEPTH, parse_json

VALUE = {"a\\": ['"[[[[', "\\\\", '\\"', "\u0301]}", "", {"b": [1, 2.5, None]}]}


@pytest.mark.parametrize("piece", [1, 2, 3, 7, exported.PIECE])
def test_brackets_in_texts_do_not_count_and_others_do(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(exported, "PIECE", piece)
    written = json.dumps([VALUE, "[{" * MAX_DEPTH]).encode()
    assert parse_json(written, len(written)) == [VALUE, "[{" * MAX_DEPTH]
    monkeypatch.setattr(exported, "MAX_STRUCTURE_BYTES", 34)
    assert parse_json(written, len(written)), "brackets, commas, colons and numbers"
    monkeypatch.setattr(exported, "MAX_STRUCTURE_BYTES", 10)
    with pytest.raises(ImportRefused, match="import_too_large"):
        parse_json(written, len(written))
    monkeypatch.setattr(exported, "MAX_STRUCTURE_BYTES", 100)
    with pytest.raises(ImportRefused, match="import_not_json"):
        parse_json(b'["\\\\", ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]", 1_000)
