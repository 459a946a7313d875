"""Checks of what both engines do with a model on this machine: arithmetic, a sampled reply, paces."""

from magistral_ui.doctor.checks import Check, Finding, PartMissing, fault, known_part, ok
from magistral_ui.doctor.facts import EngineFacts, Facts, LlamaReplyFacts

LIMITS = {"float32": 0.01}
"""By precision: how far logits may be from transformers', in standard deviations. A wrong position or mask gives more than 1."""
USUAL_LIMIT = 0.35
"""For arithmetic in bfloat16, which kernels round in their own ways."""


def model(facts: Facts) -> Finding:
    """Which model was tried, and whether it is the one that was asked for."""
    found, llama = facts.engine, facts.llama_reply
    tried = []
    if found:
        tried.append(f"{found.model}, {found.precision}, {found.device}, {found.layers}/{found.all_layers} layers")
    if llama:
        tried.append(f"{llama.model}, {llama.quantization}")
    missing = (found and found.missing) or (llama and llama.missing)
    if missing:
        return Finding("note", " · ".join(tried), (missing,))
    return ok(" · ".join(tried)) if tried else Finding("skipped")


def forward(facts: Facts) -> Finding:
    failure = facts.failures.get("engine")
    if failure is not None and "torch" in facts.failures:  # which is told there
        raise PartMissing("engine")
    if failure is not None:
        return Finding("fault", messages=(failure,))
    if facts.engine is None:
        return Finding("skipped")
    found = facts.engine
    value = " · ".join(f"{name} {difference:.1e}" for name, difference in found.differences.items())
    limit = LIMITS.get(found.precision, USUAL_LIMIT)
    worst = max(found.differences.values(), default=0.0)
    if not worst <= limit:  # also what is not a number
        return fault("doctor_forward_differs", value, difference=f"{worst:.2g}", limit=limit)
    return ok(value)


def reply(facts: Facts) -> Finding:
    found = _engine(facts)
    if found.failure:
        return fault("doctor_reply_failed", reason=found.failure)
    if found.warnings:
        return Finding("note", "; ".join(found.warnings))
    return ok(f"{found.reply_tokens} tokens")


def pace(facts: Facts) -> Finding:
    found = _engine(facts)
    parts = []
    for each in found.paces:
        together = each.sequences / each.step if each.step else 0
        parts.append(
            f"{each.sequences}: {1_000 * each.step:.1f} ms, {together:.0f} tok/s, prefill {each.prefill:.0f} tok/s"
        )
    return ok(" · ".join(parts))


def llama_reply(facts: Facts) -> Finding:
    failure = facts.failures.get("llama_reply")
    if failure is not None:
        return Finding("fault", messages=(failure,))
    if facts.llama_reply is None:
        return Finding("skipped")
    found: LlamaReplyFacts = facts.llama_reply
    value = f"1: {found.one:.0f} tok/s · 8: {found.eight:.0f} tok/s"
    if found.failure or not found.right:
        return fault("doctor_llama_wrong", value, reason=found.failure or "487 + 265 ≠ 752")
    return ok(value)


def _engine(facts: Facts) -> EngineFacts:
    return known_part(facts, EngineFacts, "engine")


CHECKS = (
    Check("model", model),
    Check("forward", forward),
    Check("reply", reply),
    Check("pace", pace),
    Check("llama-reply", llama_reply),
)
