"""Each attack of `make soak-attack`, a few times on a running page behind a proxy: it comes as far as it is meant to."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from magistral_ui.sessions.limits import SHARED
from magistral_ui.web.exposure import Exposure
from tests.security.conftest import Served, serving
from tests.soak.attacks import ATTACKS
from tests.soak.attacks.attack import PASSWORD, PUBLIC, Attack, Stranger

TRIES = 6
"""More than the wrong passwords that one address may try at once."""
LIMITS = replace(SHARED, messages_per_minute=600, upload_mb_per_hour_per_address=200)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    people = [f"stranger {number}{too}" for number in range(len(ATTACKS)) for too in ("", " too")]
    exposure = Exposure("proxy", url=f"https://{PUBLIC}")
    folder = tmp_path_factory.mktemp("public")
    with serving(folder, limits=LIMITS, exposure=exposure, passwords=dict.fromkeys(people, PASSWORD)) as served:
        yield served


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=[each.strike.__module__.rpartition(".")[2] + ": " + each.name for each in ATTACKS]
)
def test_an_attack_comes_no_further_than_it_is_meant_to(public: Served, attack: Attack) -> None:
    stranger = Stranger(public.url, ATTACKS.index(attack))
    try:
        seen = Counter(attack.attempt(stranger) for _ in range(TRIES if attack.per_minute > 10 else 1))
    finally:
        stranger.close()
    assert seen.keys() <= attack.reaches | attack.may
    assert seen.keys() & attack.reaches
