"""Tasks with annotations that only a type checker can resolve."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import gtaskman

if TYPE_CHECKING:
    from decimal import Decimal


class Priced(gtaskman.Task):
    width: int
    price: Decimal = None
    most: ClassVar[Decimal] = 5

    def run(self, progress):  # noqa: ARG002
        return self.width


def priced(width: int, price: Decimal | None = None): ...
