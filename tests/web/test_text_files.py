"""What operators write is read whatever editor they use, or refused with a sentence; never read wrongly."""

from pathlib import Path

import pytest

from magistral_ui.errors import BadSetting
from magistral_ui.web.access import limits_of, passwords_of, read_text
from magistral_ui.web.exposure import Exposure

WRITTEN = "# ours\r\nann:pässwörter\r\nbob:correct horse 馬\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r"])
def test_unicode_is_read_in_each_of_its_encodings(tmp_path: Path, encoding: str, ending: str) -> None:
    file = tmp_path / "people"
    file.write_bytes(WRITTEN.replace("\r\n", ending).encode(encoding))
    passwords, _ = passwords_of(str(file), Exposure(), no_password=False)
    assert passwords
    assert passwords.match("ann", "pässwörter")
    assert passwords.match("bob", "correct horse 馬")


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\xff\xfe"], ids=["big end first", "little end first"])
def test_a_mark_says_which_end_is_first(tmp_path: Path, mark: bytes) -> None:
    encoding = "utf-16-be" if mark == b"\xfe\xff" else "utf-16-le"
    (tmp_path / "limits.json").write_bytes(mark + '{"replies": 4}'.encode(encoding))
    assert limits_of(str(tmp_path / "limits.json"), Exposure("network")).replies == 4


@pytest.mark.parametrize(
    "data",
    ["ann:pässwörter".encode("latin-1"), b"ann:pass\0words", b"\xff\xfea", "名:密码密码密码密码".encode("gb18030")],
)
def test_other_encodings_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "people"
    file.write_bytes(data)
    for read in (
        lambda: passwords_of(str(file), Exposure(), no_password=False),
        lambda: limits_of(str(file), Exposure()),
    ):
        with pytest.raises(BadSetting) as refused:
            read()
        assert refused.value.message.key == "file_not_text"
        assert refused.value.message.values["file"] == str(file)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "gone"):
        with pytest.raises(BadSetting) as refused:
            read_text(file)
        assert refused.value.message.key == "file_not_read"
        assert refused.value.message.values["reason"]
    with pytest.raises(BadSetting) as refused:
        passwords_of("a" * 5_000, Exposure(), no_password=False)
    assert refused.value.message.key == "auth_not_sound"
