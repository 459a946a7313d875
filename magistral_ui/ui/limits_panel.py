"""What a visitor of a shared page is told before it matters: the limits in words, and how to sign out; it sets none."""

from dataclasses import fields

from magistral_ui.sessions.limits import Limits
from magistral_ui.ui.components import component, heading
from magistral_ui.ui.labels import label
from magistral_ui.ui.rendering import Json


def build_limits_panel(limits: Limits, login: bool) -> None:
    """The panel's last part, inside whatever container is open; nothing where the page is its owner's."""
    if not (limits.shared or login):
        return
    if limits.shared:
        heading(label("limits_heading"))
    component("guest", limits_value(limits, login))


def limits_value(limits: Limits, login: bool) -> Json:
    """The sentences by key, and what fills them all."""
    keys = (
        "limits_message",
        "limits_reply",
        "limits_conversation",
        "limits_pace",
        "limits_pictures",
        "limits_unattended",
    )
    values = {each.name: getattr(limits, each.name) for each in fields(limits)}
    more = {
        "picture_mb": limits.picture_bytes // 2**20,
        "picture_megapixels": limits.picture_pixels // 10**6,
        "unattended_minutes": -(-limits.unattended_seconds // 60),
    }
    return {"keys": list(keys) if limits.shared else [], "values": {**values, **more}, "login": login}
