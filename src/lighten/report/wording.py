"""Numbers and choices in words, the same on the page, in the charts and in the terminal."""

import math

NONE = "not measured"
UNCHANGED = "unchanged"

REWRITES = {
    "keep": "kept",
    "depthwise": "depthwise separable",
    "blueprint": "blueprint separable",
    "spatial": "spatially separable",
    "tucker": "Tucker-2",
    "low-rank": "channel low-rank",
}


def is_number(value: float | None) -> bool:
    """Whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def count_text(value: float) -> str:
    """Three digits and a unit: 40.8 M, 272 k, 96."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{digits(value / size)} {unit}"
    return digits(value)


def bytes_text(value: float) -> str:
    """A size in bytes with its unit: 1.09 MB."""
    text = count_text(value)
    return f"{text}B" if " " in text else f"{text} B"


def ms_text(value: float | None) -> str:
    """Milliseconds to three digits."""
    return f"{digits(value)} ms" if is_number(value) else NONE


def seconds_text(value: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if value < 120:
        return f"{digits(value)} s"
    return f"{digits(value / 60)} min" if value < 7200 else f"{digits(value / 3600)} h"


def percent_text(value: float | None) -> str:
    """Per cent with two decimals."""
    return f"{value:.2f} %" if is_number(value) else NONE


def loss_text(value: float | None) -> str:
    """A loss to three digits, as a power of ten where it is small."""
    if not is_number(value):
        return "not finite"
    return "0" if value == 0 else f"{value:.2e}" if abs(value) < 1e-3 else digits(value)


def digits(value: float) -> str:
    """Three significant digits without an exponent; whole numbers stay whole."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    rounded = float(f"{value:.2e}")
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def ratio_text(before: float | None, after: float | None) -> str:
    """After ÷ before, as budgets state it: 0.35×."""
    if not is_number(before) or not is_number(after) or before == 0:
        return "–"
    return f"{digits(after / before)}×"


def change_text(before: float | None, after: float | None, less: str, more: str) -> str:
    """The larger ÷ the smaller, with the word that fits: 2.86× fewer; empty where nothing can be said."""
    if not is_number(before) or not is_number(after) or before <= 0 or after <= 0:
        return ""
    if math.isclose(before, after, rel_tol=5e-4):
        return UNCHANGED
    return f"{digits(before / after)}× {less}" if after < before else f"{digits(after / before)}× {more}"


def points_text(before: float | None, after: float | None) -> str:
    """Points of accuracy lost or gained; empty where one of them was not measured."""
    if not is_number(before) or not is_number(after):
        return ""
    lost = round(before - after, 2)
    if lost == 0:
        return "no points lost"
    return f"{abs(lost):.2f} points {'lost' if lost > 0 else 'gained'}"


def interval_of(accuracy: float | None, num_samples: int) -> tuple[float, float] | None:
    """95 % interval of an accuracy in per cent over this many samples (Wilson 1927)."""
    if not is_number(accuracy) or num_samples < 1:
        return None
    share, z2 = accuracy / 100, 1.96**2
    middle = (share + z2 / (2 * num_samples)) / (1 + z2 / num_samples)
    spread = math.sqrt(share * (1 - share) * z2 / num_samples + (z2 / (2 * num_samples)) ** 2) / (1 + z2 / num_samples)
    return 100 * max(0.0, middle - spread), 100 * min(1.0, middle + spread)


def rewrite_text(rewrite: str) -> str:
    """The rewrite's name in words; an unknown one as it is written."""
    return REWRITES.get(rewrite, rewrite)


def options_text(options: dict[str, object]) -> str:
    """Options in words: rank 2, parallel form."""
    return ", ".join(option_text(key, value) for key, value in options.items() if value not in (None, "plain"))


def option_text(key: str, value: object) -> str:
    """One option in words."""
    if key == "form":
        return f"{value} form"
    if key == "order":
        return f"{value} first"
    return f"{key.replace('_', ' ')} {value}"


def shape_text(shape: tuple[int, ...]) -> str:
    """Axes joined by a times sign: 3 × 32 × 32."""
    return " × ".join(map(str, shape))
