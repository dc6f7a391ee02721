"""What goes to worker processes is pickled while other threads of the program do as they like."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from helion.autotuner.travel import CannotTravel
from helion.autotuner.travel import pack
from helion.autotuner.travel import save
from helion.autotuner.travel import unpack


class Interrupted:
    """Pickles when it is asked for the third time; before, another thread's import came between."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.asked = 0

    def __reduce__(self) -> Any:
        self.asked += 1
        if self.asked < 3:
            raise RuntimeError(self.message)
        return str, ("there",)


IMPORTED = "dictionary changed size during iteration"


def test_an_import_of_another_thread_is_waited_for() -> None:
    assert unpack(pack([1, Interrupted(IMPORTED)], "the kernel"), "the kernel") == [1, "there"]


def test_arguments_are_written_once_though_an_import_came_between() -> None:
    file = io.BytesIO()
    file.write(b"head")
    x = torch.arange(5)
    save([x, Interrupted(IMPORTED)], file)
    file.seek(0)
    assert file.read(4) == b"head"
    loaded, word = torch.load(io.BytesIO(file.read()), weights_only=False)
    assert torch.equal(loaded, x) and word == "there"


def test_other_errors_are_said_at_once() -> None:
    value = Interrupted("no")
    with pytest.raises(CannotTravel, match="the kernel cannot be sent to a worker process: RuntimeError: no"):
        pack(value, "the kernel")
    assert value.asked == 1
