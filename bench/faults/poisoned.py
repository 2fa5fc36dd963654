"""`python -m faults.poisoned run RECIPE ...`: carnac's command line, whose fork server imports `faults.poison` too."""

from __future__ import annotations

from typing import Any

import carnac.engine.run
from carnac.cli import main
from carnac.engine.run import Runner


class PoisonedRunner(Runner):
    """A Runner whose children come poisoned."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**{**fields, "preload": (*fields["preload"], "faults.poison")})


if __name__ == "__main__":
    carnac.engine.run.Runner = PoisonedRunner  # type: ignore[misc]
    main()
