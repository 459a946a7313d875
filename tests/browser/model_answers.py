"""What the server answers about models, for the tests of the page."""

from typing import Any


def models_answer(listed: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """The owner's answer on a computer that runs the demo model and is offered Ministral 3 8B."""
    return {
        "owner": True,
        "switchable": True,
        "why_not": None,
        "disk_free": 200 * 10**9,
        "idle_minutes": 0,
        "current": {"key": "demo", "precision": "float32", "context": 8_192, "state": "ready"},
        "running": 0,
        "asks": None,
        "failure": None,
        "offer": "ministral-3-8b",
        "timing": False,
        "models": listed,
        **values,
    }
