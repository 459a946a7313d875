"""GGUF files are recognised by what they hold; whatever else is in one gets a sentence of its own."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral_ui.engines.gguf.demo_file import mmproj_parts, write_mmproj
from magistral_ui.engines.gguf.writer import Zeros, write_gguf
from magistral_ui.errors import ModelError, ModelFilesBroken, ModelNotFound, NotAMistralModel
from magistral_ui.models.cards import CARDS, MAGISTRAL_1_0, MAGISTRAL_1_1, MAGISTRAL_1_2, ModelCard
from magistral_ui.models.folder import DEMO_FOLDER, check_name, inspect_folder
from magistral_ui.models.gguf_file import MmprojFacts, facts_of, inspect_gguf, is_projector, read_mmproj
from magistral_ui.models.gguf_folder import holds_gguf, mmproj_beside, model_in
from magistral_ui.models.gguf_header import TOKENS, GGUFDamaged, GGUFHeader, GGUFTensor, read_header
from magistral_ui.models.gguf_types import BF16
from magistral_ui.models.gguf_vocabulary import BYTES
from magistral_ui.models.shape import ModelShape
from tests.servers.broken_gguf import DAMAGED, OTHERS, demo_bytes, demo_parts, write_demo, write_split

REFUSED = DAMAGED | OTHERS
THINKING = ("<s>", "[THINK]", "[/THINK]")


def header_of_shape(shape: ModelShape, architecture: str, marks: tuple[str, ...] = THINKING, **told: Any) -> GGUFHeader:
    """The header of a model of full size, in bfloat16; tensors are of no length, for all that their offsets say."""
    inner, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = {
        "attn_norm": (shape.hidden,),
        "ffn_norm": (shape.hidden,),
        "attn_q": (shape.hidden, inner),
        "attn_k": (shape.hidden, keys),
        "attn_v": (shape.hidden, keys),
        "attn_output": (inner, shape.hidden),
        "ffn_gate": (shape.hidden, shape.intermediate),
        "ffn_up": (shape.hidden, shape.intermediate),
        "ffn_down": (shape.intermediate, shape.hidden),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (shape.hidden, shape.vocabulary),
        "output_norm": (shape.hidden,),
    }
    if not shape.tied:
        shapes["output"] = (shape.hidden, shape.vocabulary)
    shapes |= {f"blk.{n}.{name}": each for n in range(shape.layers) for name, each in layer.items()}
    tensors = tuple(GGUFTensor(f"{name}.weight", each, BF16, 0, 2 * _product(each)) for name, each in shapes.items())
    metadata = {
        "general.architecture": architecture,
        "general.file_type": 15,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        TOKENS: [*marks, *BYTES, *(f"t{n}" for n in range(shape.vocabulary - len(marks) - len(BYTES)))],
    }
    sizes = {
        "block_count": shape.layers,
        "context_length": shape.context_length,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.intermediate,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    metadata |= {f"{architecture}.{key}": value for key, value in sizes.items()}
    metadata |= {key.replace("__", "."): value for key, value in told.items()}
    return GGUFHeader(metadata, tensors, 0)


def _product(shape: tuple[int, ...]) -> int:
    rows, *columns = shape
    return rows * (columns[0] if columns else 1)


def full_size(card: ModelCard) -> ModelShape:
    assert card.shape is not None
    return card.shape.without_vision()


@pytest.mark.parametrize(
    ("key", "architecture"),
    [
        ("magistral-small-2509", "llama"),
        ("magistral-small-2509", "mistral3"),
        ("ministral-3-14b", "mistral3"),
        ("ministral-3-14b", "llama"),
        ("ministral-3-8b", "mistral3"),
        ("ministral-3-3b", "mistral3"),
    ],
)
def test_a_model_of_the_family_has_its_card_by_shape(key: str, architecture: str) -> None:
    card = CARDS[key]
    shape = full_size(card)
    facts = facts_of(header_of_shape(shape, architecture), "renamed.gguf")
    assert facts.shape == shape
    assert facts.quantization == "Q4_K_M"
    assert facts.card.sampling == card.sampling
    assert facts.card.system_prompt_file == card.system_prompt_file
    assert facts.card.keeps_reasoning == card.keeps_reasoning
    assert facts.card.recommended_length == card.recommended_length
    assert facts.takes_mmproj
    assert not facts.card.vision
    assert facts.card.repository is None  # a copy may have been trained further
    assert facts.card.gguf_repositories == ()
    weights = facts.weights
    norms = 2 * shape.hidden * 2 * shape.layers  # two in each layer, of two bytes a number
    assert sum(weights.layers) == 2 * shape.linear_parameters + norms
    assert weights.embedding == 2 * shape.vocabulary * shape.hidden
    assert weights.head == weights.embedding + 2 * shape.hidden
    assert weights.tied == shape.tied


@pytest.mark.parametrize(
    "told",
    [
        {"general__name": "Magistral Small 2507"},
        {"general__basename": "Magistral-Small", "general__version": "2507"},
    ],
)
def test_a_name_tells_magistral_1_1_from_1_2(told: dict[str, str]) -> None:
    shape = full_size(MAGISTRAL_1_2)
    facts = facts_of(header_of_shape(shape, "llama", **told), "x.gguf")
    assert facts.card.recommended_length == MAGISTRAL_1_1.recommended_length
    assert not facts.takes_mmproj
    by_file = facts_of(header_of_shape(shape, "llama"), "Magistral-Small-2507-Q4_K_M.gguf")
    assert by_file.card.system_prompt_file == MAGISTRAL_1_1.system_prompt_file
    other = facts_of(header_of_shape(full_size(CARDS["ministral-3-8b"]), "mistral3", **told), "x.gguf")
    assert other.takes_mmproj


def test_a_model_without_think_tokens_marks_reasoning_as_text() -> None:
    facts = facts_of(header_of_shape(full_size(MAGISTRAL_1_0), "llama", ("<s>",)), "x.gguf")
    assert facts.card.marks == "text"
    assert facts.card.system_prompt_file == MAGISTRAL_1_0.system_prompt_file


def test_a_model_with_settings_takes_an_effort() -> None:
    marks = (*THINKING, "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]")
    assert facts_of(header_of_shape(full_size(MAGISTRAL_1_2), "llama", marks), "x.gguf").card.takes_effort


def test_a_sliding_window_shortens_the_context() -> None:
    header = header_of_shape(full_size(MAGISTRAL_1_2), "llama", llama__attention__sliding_window=32_768)
    assert facts_of(header, "x.gguf").card.context_length == 32_768


@pytest.mark.parametrize(
    ("file_type", "expected"), [(17, "Q5_K_M"), (1_024 + 7, "Q8_0"), (None, "BF16"), (9_999, "BF16"), ("Q4", "BF16")]
)
def test_a_quantization_is_the_files_own_or_that_of_most_bytes(file_type: object, expected: str) -> None:
    header = header_of_shape(full_size(CARDS["ministral-3-3b"]), "mistral3", general__file_type=file_type)
    assert facts_of(header, "x.gguf").quantization == expected


def test_the_first_of_several_files_is_enough_to_estimate_all() -> None:
    whole = header_of_shape(full_size(MAGISTRAL_1_2), "llama")
    first = GGUFHeader({**whole.metadata, "split.count": 3, "split.no": 0}, whole.tensors[: len(whole.tensors) // 3], 0)
    facts, known = facts_of(first, "x-00001-of-00003.gguf"), facts_of(whole, "x.gguf")
    assert facts.split_count == 3
    assert facts.shape == known.shape
    assert facts.weights == known.weights


@pytest.mark.parametrize("file_type", [15, None])
def test_the_first_of_several_files_may_have_no_weights(tmp_path: Path, file_type: int | None) -> None:
    whole = header_of_shape(full_size(MAGISTRAL_1_2), "llama", general__file_type=file_type)
    facts = facts_of(GGUFHeader({**whole.metadata, "split.count": 3, "split.no": 0}, (), 0), "x-00001-of-00003.gguf")
    assert facts.shape == full_size(MAGISTRAL_1_2)
    assert 13e9 < sum(facts.weights.layers) + facts.weights.embedding + facts.weights.head < 27e9
    metadata, tensors = demo_parts()
    split = {"split.count": 2, "split.tensors.count": len(tensors)}
    write_gguf(tmp_path / "x-00001-of-00002.gguf", {**metadata, **split, "split.no": 0}, {})
    write_gguf(tmp_path / "x-00002-of-00002.gguf", {**split, "split.no": 1}, tensors)
    found, files = inspect_gguf(tmp_path / "x-00001-of-00002.gguf")
    assert len(files) == 2
    assert found.weights == inspect_gguf(write_demo(tmp_path / "whole.gguf"))[0].weights


def test_the_name_is_the_files_own_and_can_be_shown() -> None:
    shape = full_size(CARDS["ministral-3-3b"])
    named = header_of_shape(shape, "mistral3", general__name="Mi\x1b[31mni\n\u202estral" + "x" * 500)
    assert facts_of(named, "x.gguf").name == ("Mi[31mnistral" + "x" * 500)[:100]
    assert facts_of(header_of_shape(shape, "mistral3"), "file.gguf").card.name == "file.gguf"


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_run_gets_its_sentence(tmp_path: Path, fault: str) -> None:
    write, key = REFUSED[fault]
    path = tmp_path / "odd model.gguf"
    write(path)
    for inspect in (inspect_gguf, lambda each: check_name(str(each))):
        with pytest.raises((ModelFilesBroken, NotAMistralModel)) as refused:
            inspect(path)
        assert refused.value.message.key == key
        assert refused.value.message.values["model"] == path.name
        assert str(refused.value.message.values.get("found", "x")).isprintable()


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "no.gguf", Path("a" * 5_000 + ".gguf")):
        with pytest.raises(ModelNotFound):
            inspect_gguf(path)
        with pytest.raises(ModelNotFound):
            check_name(str(path))


def test_a_file_without_a_suffix_is_known_by_its_contents(tmp_path: Path) -> None:
    check_name(str(write_demo(tmp_path / "demo")))


@pytest.mark.parametrize("name", ["unsloth/Magistral-Small-2509-GGUF:Q4_K_M", "a/b:UD-Q4_K_XL", "a/b"])
def test_a_repository_with_a_quantization_is_accepted(name: str) -> None:
    check_name(name)


@settings(max_examples=150, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 80_000), st.integers(0, 255)), max_size=20),
    length=st.one_of(st.none(), st.integers(0, 80_000)),
)
def test_flipped_bytes_raise_only_our_own_errors(flips: list[tuple[int, int]], length: int | None) -> None:
    """The header is 60 kB long, and what is behind it does not matter here."""
    data = bytearray(demo_bytes()[:80_001])
    for position, byte in flips:
        data[position] = byte
    with suppress(ModelError, GGUFDamaged):
        assert facts_of(read_header(io.BytesIO(data[:length])), "x.gguf").shape.layers < 1_000


@pytest.fixture(scope="module")
def mmproj_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("mmproj") / "mmproj.gguf"
    write_mmproj(path)
    return path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_flipped_projector_raises_only_our_own_errors(
    tmp_path_factory: pytest.TempPathFactory, mmproj_bytes: bytes, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(mmproj_bytes)
    for position, byte in flips:
        data[position] = byte
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.write_bytes(data)
    with suppress(ModelError):
        assert read_mmproj(path).vision.image <= 2**14


def test_a_projector_says_what_it_fits(tmp_path: Path) -> None:
    write_mmproj(tmp_path / "any name")
    mmproj = read_mmproj(tmp_path / "any name")
    shape = inspect_folder(DEMO_FOLDER).shape
    assert (mmproj.vision, mmproj.width) == (shape.vision, shape.hidden)
    assert mmproj.bytes == (tmp_path / "any name").stat().st_size


@pytest.mark.parametrize(
    ("told", "error", "key"),
    [
        ({"clip.projector_type": "qwen2vl"}, NotAMistralModel, "not_a_mistral_model"),
        ({"general.architecture": "llama", "general.type": "model"}, NotAMistralModel, "not_a_mistral_model"),
        ({"clip.vision.projection_dim": 5_120}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.image_size": 2**30}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.patch_size": 0}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.block_count": "three"}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.attention.head_count": 0}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.attention.head_count": 7}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.embedding_length": 32}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.feed_forward_length": 3}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.spatial_merge_size": 5}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.block_count": 0}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.block_count": 4}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.block_count": 2**31}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.image_mean": [0.5]}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.vision.image_std": [1, 1, 1]}, ModelFilesBroken, "gguf_damaged"),
        ({"clip.has_vision_encoder": False}, ModelFilesBroken, "gguf_damaged"),
    ],
)
def test_another_projector_is_refused(tmp_path: Path, told: dict[str, Any], error: type[ModelError], key: str) -> None:
    metadata, tensors = mmproj_parts()
    write_gguf(tmp_path / "x.gguf", {**metadata, **told}, tensors)
    with pytest.raises(error) as refused:
        read_mmproj(tmp_path / "x.gguf")
    assert refused.value.message.key == key


@pytest.mark.parametrize("part", ["v.blk", "v.blk.2.ln2", "v.pre_ln", "mm.1"])
def test_a_projector_without_a_part_is_refused(tmp_path: Path, part: str) -> None:
    metadata, tensors = mmproj_parts()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(part)}
    write_gguf(tmp_path / "x.gguf", metadata, kept)
    with pytest.raises(ModelFilesBroken):
        read_mmproj(tmp_path / "x.gguf")


@pytest.mark.parametrize("name", ["v.blk.1.ln1.weight", "mm.1.weight"])
def test_a_projector_with_an_empty_part_is_refused(tmp_path: Path, name: str) -> None:
    metadata, tensors = mmproj_parts()
    write_gguf(tmp_path / "x.gguf", metadata, {**tensors, name: Zeros((128, 0), "F32")})
    with pytest.raises(ModelFilesBroken):
        read_mmproj(tmp_path / "x.gguf")


def test_a_split_model_is_found_by_any_of_its_files(tmp_path: Path) -> None:
    files = write_split(tmp_path, 3)
    whole, _ = inspect_gguf(write_demo(tmp_path / "whole.gguf"))
    for file in files:
        facts, found = inspect_gguf(file)
        assert found == tuple(files)
        assert facts.shape == whole.shape
        assert facts.weights == whole.weights
        assert facts.split_count == 3


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    files = write_split(tmp_path, 3)
    files[1].unlink()
    for file in (files[0], files[2]):
        with pytest.raises(ModelFilesBroken) as refused:
            inspect_gguf(file)
        assert refused.value.message.key == "gguf_part_missing"
        assert refused.value.message.values["file"] == "demo-00002-of-00003.gguf"


def test_a_renamed_part_is_missing(tmp_path: Path) -> None:
    first = write_split(tmp_path, 2)[0].rename(tmp_path / "demo.gguf")
    with pytest.raises(ModelFilesBroken) as refused:
        inspect_gguf(first)
    assert refused.value.message.values["file"] == "demo-00001-of-00002.gguf"


@pytest.mark.parametrize("fault", ["cut off", "of another model", "twice", "out of order"])
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, fault: str) -> None:
    files = write_split(tmp_path, 3)
    if fault == "cut off":
        files[2].write_bytes(files[2].read_bytes()[:-500])
    elif fault == "of another model":
        (other,) = write_split(tmp_path, 1, "other")
        other.replace(files[1])
    elif fault == "twice":
        files[1].write_bytes(files[2].read_bytes())
    else:
        files[1].rename(tmp_path / "kept")
        files[2].rename(files[1])
        (tmp_path / "kept").rename(files[2])
    with pytest.raises(ModelFilesBroken) as refused:
        inspect_gguf(files[0])
    assert refused.value.message.key == ("gguf_cut_off" if fault == "cut off" else "gguf_damaged")


def test_a_folder_with_one_model_is_that_model(tmp_path: Path) -> None:
    model = write_demo(tmp_path / "b.gguf")
    write_mmproj(tmp_path / "a projector.gguf")
    write_demo(tmp_path / "adapter.gguf", {"general.type": "adapter"})
    (tmp_path / "readme.md").write_text("About GGUF")
    assert holds_gguf(tmp_path)
    assert model_in(tmp_path) == model
    check_name(str(tmp_path))


def test_a_folder_with_a_split_model_is_that_model(tmp_path: Path) -> None:
    files = write_split(tmp_path, 3)
    assert model_in(tmp_path) == files[0]


def test_of_several_models_the_precision_chooses(tmp_path: Path) -> None:
    exact = write_demo(tmp_path / "x-BF16.gguf")
    coarse = write_demo(tmp_path / "x-UD-Q4_K_XL.gguf", {"general.file_type": 15})
    with pytest.raises(NotAMistralModel) as refused:
        model_in(tmp_path)
    assert refused.value.message.values["names"] == "x-BF16.gguf, x-UD-Q4_K_XL.gguf"
    with pytest.raises(NotAMistralModel):
        check_name(str(tmp_path))
    assert model_in(tmp_path, "bf16") == exact
    assert model_in(tmp_path, "UD-Q4_K_XL") == model_in(tmp_path, "Q4_K_M") == coarse
    check_name(str(tmp_path), "BF16")


def test_a_folder_with_a_projector_alone_says_so(tmp_path: Path) -> None:
    write_mmproj(tmp_path / "mmproj.gguf")
    with pytest.raises(NotAMistralModel) as refused:
        check_name(str(tmp_path))
    assert refused.value.message.key == "gguf_projector"


def test_a_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "demo.gguf"
    folder.mkdir()
    with pytest.raises(ModelError):
        check_name(str(folder))
    write_demo(folder / "x.gguf")
    check_name(str(folder))


def test_a_short_window_leaves_a_short_context(tmp_path: Path) -> None:
    facts, _ = inspect_gguf(write_demo(tmp_path / "x.gguf", {"llama.attention.sliding_window": 512}))
    assert facts.shape.context_length == facts.card.context_length == facts.card.recommended_length == 512


def test_a_folder_of_safetensors_is_not_for_llama_cpp(tmp_path: Path) -> None:
    write_demo(tmp_path / "x.gguf")
    (tmp_path / "config.json").write_text("{}")  # as repositories of GGUF files have one
    assert holds_gguf(tmp_path)
    check_name(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert not holds_gguf(tmp_path)
    assert not holds_gguf(tmp_path / "missing")
    assert not holds_gguf(DEMO_FOLDER)


def test_the_projector_beside_a_model_is_the_one_that_fits(tmp_path: Path) -> None:
    model = write_demo(tmp_path / "demo-BF16.gguf")
    facts, _ = inspect_gguf(model)
    assert mmproj_beside(model, facts.shape.hidden, facts.name) is None
    metadata, tensors = mmproj_parts()
    write_gguf(tmp_path / "broken.gguf", {**metadata, "clip.vision.projection_dim": 64}, tensors)
    write_demo(tmp_path / "other.gguf")
    assert mmproj_beside(model, facts.shape.hidden, facts.name) is None
    write_gguf(tmp_path / "another.gguf", {**metadata, "general.name": "Another"}, tensors)
    beside = mmproj_beside(model, facts.shape.hidden, facts.name)
    assert beside is not None
    assert beside[0].name == "another.gguf"
    write_mmproj(tmp_path / "zz.gguf")
    beside = mmproj_beside(model, facts.shape.hidden, facts.name)
    assert beside is not None
    assert beside[0].name == "zz.gguf"  # by the name inside
    write_mmproj(tmp_path / "demo-mmproj.gguf")
    beside = mmproj_beside(model, facts.shape.hidden, facts.name)
    assert beside is not None
    assert beside[0].name == "demo-mmproj.gguf"  # and then by the file's
    assert mmproj_beside(model, 5_120, facts.name) is None


def test_a_model_sees_with_its_projector() -> None:
    facts = facts_of(header_of_shape(full_size(MAGISTRAL_1_2), "llama"), "x.gguf")
    assert MAGISTRAL_1_2.shape is not None
    vision = MAGISTRAL_1_2.shape.vision
    assert vision is not None
    seeing = facts.with_mmproj(MmprojFacts(vision, 878_000_000, 5_120, ""))
    assert seeing.shape == MAGISTRAL_1_2.shape
    assert seeing.card.vision
    assert seeing.weights.mmproj == 878_000_000


def test_a_header_is_a_projectors_by_kind_or_architecture() -> None:
    assert is_projector(GGUFHeader({"general.architecture": "clip"}, (), 0))
    assert is_projector(GGUFHeader({"general.type": "mmproj"}, (), 0))
    assert not is_projector(GGUFHeader(demo_parts()[0], (), 0))
