"""What the rules that read a text line by line look up, so that nothing is looked through again and again."""

from markdown_it.rules_block import StateBlock


def first_outside(state: StateBlock, line: int, end: int) -> int:
    """The first line behind `line` that stands no longer in the list item or quotation that is read; `end` if there is none."""
    key = (state.blkIndent, state.level, end)
    known = state.env.get("inside")
    if known and known[0] == key and known[1] <= line < known[2]:
        return int(known[2])
    to = line + 1
    while to < end and (state.sCount[to] >= state.blkIndent or state.isEmpty(to)):
        to += 1
    state.env["inside"] = (key, line, to)
    return to
