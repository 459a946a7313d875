"""The files of a GGUF repository are told apart by their names as they are written on the Hub today, hostile ones among them."""

import pytest

from magistral_ui.models.gguf_names import ListedFile, is_safe_path, list_gguf, split_name

UNSLOTH = "unsloth/Magistral-Small-2509-GGUF"
BASE = "Magistral-Small-2509"


def labels(repository: str, *names: str) -> list[str]:
    return [each.label for each in listing(repository, *names).quantizations]


def listing(repository: str, *names: str):  # type: ignore[no-untyped-def]
    """The first is the largest."""
    return list_gguf(repository, [ListedFile(name, 10_000 - rank) for rank, name in enumerate(names)])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (f"{BASE}-Q4_K_M.gguf", "Q4_K_M"),
        (f"{BASE}-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        (f"{BASE}-UD-IQ3_XXS.gguf", "UD-IQ3_XXS"),
        (f"mistralai_{BASE}-IQ4_NL.gguf", "IQ4_NL"),
        (f"{BASE}.Q8_0.gguf", "Q8_0"),
        (f"{BASE}.i1-Q2_K_S.gguf", "i1-Q2_K_S"),
        (f"{BASE}_Q5_K_M.gguf", "Q5_K_M"),
        (f"BF16/{BASE}-BF16.gguf", "BF16"),
        (f"{BASE}-f16.gguf", "f16"),
        (f"{BASE}-fp16.GGUF", "fp16"),
        (f"{BASE}-MXFP4_MOE.gguf", "MXFP4_MOE"),
        (f"{BASE}-TQ1_0.gguf", "TQ1_0"),
        ("Magistral Small Q4_K_M.gguf", "Q4_K_M"),
        (f"{BASE}-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("q6_k.gguf", "q6_k"),
        ("model.gguf", "model"),
    ],
)
def test_a_file_s_name_says_its_quantization(name: str, label: str) -> None:
    assert labels(UNSLOTH, name) == [label]


def test_the_parts_of_a_model_belong_together() -> None:
    names = [f"BF16/{BASE}-BF16-0000{part}-of-00003.gguf" for part in (3, 1, 2)]
    (found,) = listing(UNSLOTH, *names).quantizations
    assert found.label == "BF16"
    assert [file.name for file in found.files] == sorted(names)
    assert found.bytes == 10_000 + 9_999 + 9_998
    assert labels(UNSLOTH, *names[:2]) == [], "a part is missing"
    assert labels(UNSLOTH, f"{BASE}-BF16-00001-of-99999.gguf") == []
    assert labels(UNSLOTH, f"{BASE}-BF16-00000-of-00000.gguf") == []


def test_projectors_are_told_from_models() -> None:
    names = (
        *("mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf"),
        *(f"vision/{BASE}-BF16-mmproj.gguf", f"mmproj-{BASE}-F16.gguf", f"{BASE}.mmproj-Q8_0.gguf"),
    )
    found = listing(UNSLOTH, *names, f"{BASE}-Q4_K_M.gguf", "imatrix_unsloth.gguf", f"{BASE}-imatrix.gguf")
    assert listing(UNSLOTH, "my mmproj F16.gguf").mmproj
    assert [each.label for each in found.quantizations] == ["Q4_K_M"]
    assert [file.name for file in found.mmproj] == [
        *("mmproj-BF16.gguf", f"vision/{BASE}-BF16-mmproj.gguf", "mmproj-F16.gguf"),
        *(f"mmproj-{BASE}-F16.gguf", "mmproj-F32.gguf", f"{BASE}.mmproj-Q8_0.gguf"),
    ]


def test_other_models_of_a_repository_have_their_whole_name() -> None:
    names = [f"{BASE}-{each}.gguf" for each in ("Q8_0", "Q4_K_M")]
    assert labels(UNSLOTH, *names, "Draft-0.5B-Q8_0.gguf") == ["Q8_0", "Q4_K_M", "Draft-0.5B-Q8_0"]
    assert labels(UNSLOTH, "Draft-0.5B-Q8_0.gguf", names[0]) == ["Draft-0.5B-Q8_0", "Q8_0"]
    assert labels("a/both", "one-Q8_0.gguf", "two-Q8_0.gguf") == ["one-Q8_0", "Q8_0"]


def test_the_same_name_twice_is_one_model() -> None:
    (found,) = listing(UNSLOTH, f"old/{BASE}-Q8_0.gguf", f"{BASE}-Q8_0.gguf").quantizations
    assert [file.name for file in found.files] == [f"{BASE}-Q8_0.gguf"]
    assert len(labels(UNSLOTH, f"{BASE}-Q8_0.gguf", f"{BASE}-q8_0.gguf")) == 1


def test_the_largest_comes_first_and_is_found_in_any_case() -> None:
    found = listing(UNSLOTH, f"{BASE}-Q8_0.gguf", f"{BASE}-UD-Q4_K_XL.gguf")
    assert [each.label for each in found.quantizations] == ["Q8_0", "UD-Q4_K_XL"]
    assert found.find("ud-q4_k_xl") is found.quantizations[1]
    assert found.find("Q4_K_XL") is None


def test_a_hundred_quantizations() -> None:
    names = [f"{BASE}-Q{bits}_K_{size}{more}.gguf" for bits in range(1, 9) for size in "SML" for more in ("", *"1234")]
    assert len(labels(UNSLOTH, *names[:100])) == 100


HOSTILE = (
    *(
        "../x-Q8_0.gguf",
        "/etc/x-Q8_0.gguf",
        "a/../../x-Q8_0.gguf",
        "..\\x-Q8_0.gguf",
        "C:\\x-Q8_0.gguf",
        "a//x-Q8_0.gguf",
    ),
    *("x\n-Q8_0.gguf", "x\x1b[31m-Q8_0.gguf", "x\0-Q8_0.gguf", "x\u202e-Q8_0.gguf", ". /x-Q8_0.gguf", "x*-Q8_0.gguf"),
    "x" * 2_000 + "-Q8_0.gguf",
)


@pytest.mark.parametrize("name", HOSTILE, ids=[ascii(name)[:30] for name in HOSTILE])
def test_a_hostile_name_is_left_out(name: str) -> None:
    assert not is_safe_path(name)
    assert labels(UNSLOTH, name, f"{BASE}-Q4_K_M.gguf") == ["Q4_K_M"]


@pytest.mark.parametrize("name", ["-Q" + "9" * 50_000 + ".gguf", "-" * 50_000 + ".gguf", ".gguf", "", "-Q8_0.gguf"])
def test_an_odd_name_is_no_trouble(name: str) -> None:
    assert len(labels(UNSLOTH, name)) <= 1


def test_a_name_with_a_quantization_is_split() -> None:
    assert split_name("a/b:Q4_K_M") == ("a/b", "Q4_K_M")
    assert split_name("a/b") == ("a/b", "")
