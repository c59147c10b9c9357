"""What goes wrong on the user's side: one sentence each, and the exit code that the command line gives."""


class LightenError(ValueError):
    """The input is wrong: says what failed, where, what was given and what is needed."""

    exit_code = 2


class BudgetError(LightenError):
    """The budget is understood but can't be met: says how near the network comes."""

    exit_code = 3
