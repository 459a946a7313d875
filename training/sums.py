"""Work out a sum or a difference in words, digit by digit from the right; knows nothing of how it was asked."""

import re
import zlib

Say = dict[str, str]
_COLUMN = re.compile(r"^.*\d=\d+, .*$", re.MULTILINE)  # "7+5=12, write 2, carry 1"


def by_heart(a: int, b: int) -> bool:
    """Tell whether these are two digits, whose sum and difference are known without reasoning."""
    return 0 <= a <= 9 and 0 <= b <= 9


def held_out(a: int, b: int, minus: bool) -> bool:
    """Tell whether `a + b` (or `a - b`) belongs to the tenth that training never sees; what is known by heart does not."""
    return not by_heart(a, b) and zlib.crc32(f"{a} {'-' if minus else '+'} {b}".encode()) % 10 == 0


def result(a: int, b: int, minus: bool) -> int:
    """Return what is to be found."""
    return a - b if minus else a + b


def answer(a: int, b: int, minus: bool) -> str:
    """Return the answer shown, in Markdown."""
    return f"{a} {'-' if minus else '+'} {b} = **{result(a, b, minus)}**"


def rounded(value: int) -> int:
    """Round a number that is not negative to tens.

    >>> [rounded(value) for value in (487, 265, 14, 4)]
    [490, 270, 10, 0]
    """
    return (value + 5) // 10 * 10


def estimate(a: int, b: int, minus: bool) -> tuple[str, int]:
    """Return how to reckon with rounded numbers, column by column from the tens, and what that comes to.

    >>> for pair in ((487, 265, False), (12, 703, True), (-38, 14, True), (-520, 114, False)):
    ...     print(*estimate(*pair))
    490 + 270: 9+7=16, 4+2+1=7 760
    -(700 - 10): 10-1=9, 7-1-0=6 -690
    -(40 + 10): 4+1=5 -50
    -(520 - 110): 2-1=1, 5-1=4 -410
    """
    first, second = rounded(abs(a)), rounded(b)
    minus = minus != (a < 0)
    large, small = (second, first) if minus and second > first else (first, second)
    value = first - second if minus else first + second
    sign = "-" if minus else "+"
    value, shown = -value if a < 0 else value, f"{large} {sign} {small}"
    return (
        f"{f'-({shown})' if value < 0 else shown}: {', '.join(_short_columns(large // 10, small // 10, sign))}",
        value,
    )


def _short_columns(a: int, b: int, sign: str) -> list[str]:
    """Return the columns of a sum, or of a difference of an `a` that is not smaller, as equations."""
    over, written = 0, []
    for x, y in _columns(a, b, sign, {"columns": ""})[1]:
        left = x + y + over if sign == "+" else x - y - over
        borrowed = 10 if left < 0 else 0
        carried = ("+1" if sign == "+" else "-1") if over else ""
        middle = f"+{y}{carried}" if sign == "+" else f"{carried}-{y}"
        written.append(f"{x + borrowed}{middle}={left + borrowed}")
        over = int(left > 9 or left < 0)
    return written


def worked_out(thought: str) -> int:
    """Return after how many characters of a whole reasoning every digit of the result is written."""
    return max(found.end() for found in _COLUMN.finditer(thought))


def closed_early(a: int, b: int, minus: bool, cut: int, say: Say) -> tuple[str, int]:
    """Return what to answer when the reasoning was ended after `cut` characters, and the number that it names.

    It is the result where all its digits were found or need no finding, else an estimate that says what it is.
    """
    value = result(a, b, minus)
    if by_heart(a, b) or cut >= worked_out(reasoning(a, b, minus, say)):
        return answer(a, b, minus), value
    reckoned, near = estimate(a, b, minus)
    return say["unfinished"].format(x=f"{a} {'-' if minus else '+'} {b}", y=reckoned, r=near), near


def reasoning(a: int, b: int, minus: bool, say: Say) -> str:
    """Return the reasoning for `a + b` or `a - b`, where `a` may be negative and `b` is not.

    It first repeats what is asked, in the order asked; a difference is then lined up and its digits compared from
    the left, so that which number is larger is worked out and not guessed.

    >>> say = {"columns": "{x}:", "carry": "{x}={s}, write {w}, carry 1", "step": "{x}={s}, write {w}", "so": "So {r}."}
    >>> say["strip"] = "{p}: {r}"
    >>> reasoning(7, 15, False, say).splitlines()
    ['7+15', '07+15:', '7+5=12, write 2, carry 1', '0+1+1=2, write 2', 'So 22.']
    >>> reasoning(29, 21, True, say).splitlines()
    ['29-21', '29-21: 2,2 = 9,1 >', '29-21:', '9-1=8, write 8', '2-2=0, write 0', '08: 8']
    """
    asked = f"{a}{'-' if minus else '+'}{b}"
    if a < 0 and minus:
        first = say["same"].format(x=asked, y=f"-({-a}+{b})")
        return "\n".join([first, *_add(-a, b, say), say["signed"].format(r=a - b)])
    if a < 0:
        first = say["same"].format(x=asked, y=f"{b}-{-a}")
        return "\n".join([first, *_subtract(b, -a, say)])
    return "\n".join([asked, *(_subtract(a, b, say) if minus else _add(a, b, say))])


def _subtract(a: int, b: int, say: Say) -> list[str]:
    compared = _compare(a, b)
    if a >= b:
        return [compared, *_take_away(a, b, say)]
    turned = say["larger"].format(a=b, x=f"{b}-{a}")
    return [compared, turned, *_take_away(b, a, say), say["signed"].format(r=a - b)]


def _compare(a: int, b: int) -> str:
    """Line two numbers up, and compare their digits from the left down to the first that differ."""
    width = max(len(str(a)), len(str(b)))
    top, bottom = f"{a:0{width}}", f"{b:0{width}}"
    compared = []
    for x, y in zip(top, bottom, strict=True):
        compared.append(f"{x},{y} {'=' if x == y else '>' if x > y else '<'}")
        if x != y:
            break
    return f"{top}-{bottom}: {' '.join(compared)}"


def _columns(a: int, b: int, sign: str, say: Say) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the first line and the pairs of digits from the right."""
    width = max(len(str(a)), len(str(b)))
    top, bottom = f"{a:0{width}}", f"{b:0{width}}"
    pairs = [(int(x), int(y)) for x, y in zip(reversed(top), reversed(bottom), strict=True)]
    return [say["columns"].format(x=f"{top}{sign}{bottom}")], pairs


def _close(written: str, total: int, say: Say) -> str:
    if written == str(total):
        return say["so"].format(r=total)
    return say["strip"].format(p=written, r=total)


def _add(a: int, b: int, say: Say) -> list[str]:
    lines, pairs = _columns(a, b, "+", say)
    carry, written = 0, ""
    for place, (x, y) in enumerate(pairs):
        total = x + y + carry
        shown = f"{x}+{y}" + ("+1" if carry else "")
        carry = int(total > 9 and place < len(pairs) - 1)
        digit = total - 10 if carry else total
        lines.append(say["carry" if carry else "step"].format(x=shown, s=total, w=digit))
        written = f"{digit}{written}"
    return [*lines, _close(written, a + b, say)]


def _take_away(a: int, b: int, say: Say) -> list[str]:
    """Take `b` away from an `a` that is not smaller."""
    lines, pairs = _columns(a, b, "-", say)
    borrow, written = 0, ""
    for x, y in pairs:
        shown = (f"{x}-1" if borrow else f"{x}") + f"-{y}"
        left = x - borrow - y
        borrow = int(left < 0)
        if borrow:
            left += 10
            lines.append(say["borrow"].format(x=shown, y=f"1{shown}", s=left, w=left))
        else:
            lines.append(say["step"].format(x=shown, s=left, w=left))
        written = f"{left}{written}"
    return [*lines, _close(written, a - b, say)]
