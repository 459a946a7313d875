"""The inputs of recorded decode steps, at fixed addresses: one tensor, so that a step fills them with a single copy."""

import torch

from magistral_ui.engines.local.decode_step import StepInputs


class StaticInputs:
    """Inputs of up to `rows` rows whose sequences have up to `width` pages, packed into one tensor of int64.

    Tokens, positions, slots and lengths come first, then the tables, row by row: fewer rows are a shorter piece of it.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        """Filled with padding rows. On the host, memory is pinned if there is CUDA."""
        width += width % 2
        self._head = 3 * rows + (rows + 1) // 2
        self._per_row = width // 2
        pinned = device.type == "cpu" and torch.cuda.is_available()
        self._packed = torch.zeros(
            self._head + rows * self._per_row, dtype=torch.int64, device=device, pin_memory=pinned
        )
        self._tokens, self._positions, self._slots = (self._packed[n * rows : (n + 1) * rows] for n in range(3))
        self._lengths = self._packed[3 * rows : self._head].view(torch.int32)[:rows]
        self._tables = self._packed[self._head :].view(torch.int32).view(rows, width)
        self._lengths.fill_(1)
        self._copied: torch.cuda.Event | None = None
        if device.type == "cuda" and torch.cuda.is_available():
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    @property
    def nbytes(self) -> int:
        return self._packed.nbytes

    def first(self, rows: int, pages: int | None = None) -> StepInputs:
        """The first `rows` rows, where they are, with the first `pages` of their tables (default: all)."""
        kept = (self._tokens, self._positions, self._slots, self._tables[:, :pages], self._lengths)
        return StepInputs(*(each[:rows] for each in kept))

    def write(self, inputs: StepInputs, rows: int) -> None:
        """`inputs`, then padding rows up to `rows`; both are on the host."""
        count, pages = inputs.tables.shape
        self._tokens[:count], self._tokens[count:rows] = inputs.tokens, 0
        self._positions[:count], self._positions[count:rows] = inputs.positions, 0
        self._slots[:count], self._slots[count:rows] = inputs.slots, 0
        self._lengths[:count], self._lengths[count:rows] = inputs.lengths, 1
        self._tables[:rows].zero_()
        self._tables[:count, :pages] = inputs.tables

    def copy(self, host: "StaticInputs", rows: int) -> None:
        """Take the first `rows` rows of `host`, which must not be written to before `wait` has returned."""
        size = self._head + rows * self._per_row
        self._packed[:size].copy_(host._packed[:size], non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._packed.device))

    def wait(self) -> None:
        """Until the last copy has arrived. It has, if the host has read what that step computed."""
        if self._copied is not None:
            self._copied.synchronize()
