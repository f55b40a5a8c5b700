"""A temperature of choices that falls with every training pass."""


def decay_of(temperature: float, final_temperature: float, anneal_steps: int, sharing: str) -> float:
    """The factor per training pass that takes a temperature from the first to the final one in `anneal_steps`.

    Raises:
      ValueError: for temperatures or a number of passes that allow for none.
    """
    if not 0 < final_temperature <= temperature:
        raise ValueError(
            f"{sharing}: final_temperature={final_temperature} must be above 0 and at most temperature={temperature}"
        )
    if anneal_steps < 1:
        raise ValueError(f"{sharing}: anneal_steps={anneal_steps} must be at least 1")
    return (final_temperature / temperature) ** (1 / anneal_steps)
