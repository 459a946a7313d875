"""Checks of disks, folders and downloaded models, of the way to the Hub, and of the port."""

from magistral_ui.doctor.checks import Check, Finding, gigabytes, known_part, note, ok
from magistral_ui.doctor.facts import Facts, HubFacts, StorageFacts
from magistral_ui.errors import Message

MIN_FREE = 10 * 10**9
"""Bytes for the smallest model of the family (3B: 7.7 GB), with room for what the app writes beside it."""
MIN_DATA_FREE = 10**8
DATA, UPLOADS = "MAGISTRAL_UI_DATA_DIR", "GRADIO_TEMP_DIR"
PLAIN_HOSTS = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::")
"""Hosts to listen on that say nothing of anybody's network."""


def disk(facts: Facts) -> Finding:
    found = _storage(facts)
    told = []
    for folder, name, problem in (
        (found.cache, "HF_HOME", found.cache_problem),
        (found.data, DATA, found.data_problem),
    ):
        if problem:
            values = {"folder": folder, "reason": problem, "name": name}
            told.append(Message("doctor_folder_unusable", values))
    small = [(found.data, DATA, found.data_free)] if not found.data_problem else []
    small += [(found.temporary, UPLOADS, found.temporary_free)] if found.temporary else []
    for folder, name, free in small:
        if free < MIN_DATA_FREE:
            told.append(Message("doctor_disk_low", {"folder": folder, "free": gigabytes(free), "name": name}))
    value = f"HF_HOME: {gigabytes(found.cache_free)} GB · {DATA}: {gigabytes(found.data_free)} GB"
    value += f" · {UPLOADS}: {gigabytes(found.temporary_free)} GB" if found.temporary else ""
    if told:
        return Finding("fault", value, tuple(told))
    if found.cache_free < MIN_FREE:
        return note("doctor_disk_low", value, folder=found.cache, free=gigabytes(found.cache_free), name="HF_HOME")
    return ok(value)


def models(facts: Facts) -> Finding:
    found = _storage(facts)
    copies = [f"{found.copies} × nf4/int8: {gigabytes(found.copies_bytes)} GB"] if found.copies else []
    value = " · ".join([*found.models, *copies]) or "–"
    shared = " · ".join([str(len(found.models)), *copies])
    if found.damaged:
        return Finding("fault", value, found.damaged, shared)
    if found.partial:
        told = Message("doctor_partial", {"count": found.partial, "size": gigabytes(found.partial_bytes)})
        return Finding("note", value, (told,), shared)
    return Finding("ok", value, (), shared)


def hub(facts: Facts) -> Finding:
    """Being offline is no fault; a token or a proxy that is refused is one."""
    found = known_part(facts, HubFacts, "hub")
    parts = ["HF_ENDPOINT" if found.custom else "huggingface.co", f"token: {found.token}"]
    parts += ["proxy"] if found.proxy else []
    parts += [f"{found.milliseconds} ms"] if found.milliseconds else []
    value = " · ".join(parts)
    if found.offline:
        return note("doctor_hub_offline", value)
    if found.problem is None:
        return ok(value)
    offline = found.problem.key == "doctor_hub_unreachable"
    return Finding("note" if offline else "fault", value, (found.problem,))


def port(facts: Facts) -> Finding:
    wanted = facts.wanted
    value = f"{wanted.host}:{wanted.port}"
    shared = value if wanted.host in PLAIN_HOSTS else str(wanted.port)
    if facts.port is None:
        return Finding("ok", value, (), shared)
    if facts.port.key == "port_in_use":
        return Finding("note", value, (Message("doctor_port_in_use", {"port": wanted.port}),), shared)
    return Finding("fault", value, (facts.port,), shared)


def _storage(facts: Facts) -> StorageFacts:
    return known_part(facts, StorageFacts, "storage")


CHECKS = (
    Check("disk", disk),
    Check("models", models),
    Check("hub", hub),
    Check("port", port),
)
