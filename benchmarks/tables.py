"""A run's results for people: tables in Markdown, and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]

_HEADING = ("what", "per", "median", "quartiles", "speed over twin", "memory", "twin's", "GFLOP/s", "GB/s", "promised")


def markdown(results: Results) -> str:
    """The machine, its ceilings, and a table each for cases, growth and stages; what was not measured says so."""
    about, ceilings = results["machine"], results["machine"]["ceilings"]
    extent = "full" if about["full"] else "quick"
    parts = [
        f"**{about['name']}** ({about['device']}, {about['cores']} cores, load {about['load']:.1f} at the start, "
        f"PyTorch {about['torch']}, {extent} run of {about['code']}). Ceilings measured in the same run: "
        f"{ceilings['flops'] / 1e9:.0f} GFLOP/s (matrix product, float32), {ceilings['bytes'] / 1e9:.1f} GB/s (copy, "
        "read and written)."
    ]
    if not results["is_finished"]:
        parts.append("**Interrupted**: the same command goes on from here.")
    if results["cases"]:
        parts.append(_table([_HEADING, *(_case_row(one) for one in results["cases"])]))
    if figures := [(one["name"], *item) for one in results["cases"] for item in one["figures"].items()]:
        parts.append(
            _table([("of", "figure", "value"), *((name, key, f"{value:.3g}") for name, key, value in figures)])
        )
    if grown := [*results["growth"], *_over_calls(results)]:
        heading = ("growth of", "over", "from", "to", "seconds^", "±", "last two", "memory^")
        parts.append(_table([heading, *(_growth_row(one) for one in grown)]))
    if results["stages"]:
        parts.append("Stages of the last reproduction on this machine, as its runs were recorded:")
        parts.append(_table([("stage", "wall", "peak memory"), *(_stage_row(one) for one in results["stages"])]))
    parts += [f"**Failed**: {one['failure']}" for one in results["failures"]]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, ["---"] * len(heading), *body))


def _case_row(one: Results) -> tuple[str, ...]:
    seconds, speedup, demand = one["seconds"], one["speedup"], one["demand"]
    rates = ["-", "-"]
    if demand is not None and demand["operators"]:
        rates = [
            f"{one[f'{name}_per_second'] / 1e9:.3g} ({one[f'{name}_share']:.0%})" if demand[name] else "-"
            for name in ("flops", "bytes")
        ]
    limit = one["limit"]
    promised = "-" if limit is None else f"{_time(limit)}, {'kept' if seconds['median'] <= limit else 'MISSED'}"
    return (
        one["name"],
        one["unit"] + (", cpu" if one["clock"] == "cpu" else ""),
        _time(seconds["median"]),
        f"{_time(seconds['low'])} to {_time(seconds['high'])} of {seconds['count']}",
        "-" if speedup is None else f"{speedup['median']:.2f} ({speedup['low']:.2f} to {speedup['high']:.2f})",
        _memory(one["peak_bytes"]),
        _memory(one["plain_peak_bytes"]),
        *rates,
        promised,
    )


def _over_calls(results: Results) -> list[dict[str, Any]]:
    return [
        {"name": one["name"], "memory_exponent": None, **one["over_calls"]}
        for one in results["cases"]
        if one["over_calls"] is not None
    ]


def _growth_row(one: Results) -> tuple[str, ...]:
    exponent, memory = one["exponent"], one["memory_exponent"]
    sizes, seconds = one["sizes"], one["seconds"]
    return (
        one["name"],
        one["over"],
        f"{sizes[0]:g}: {_time(seconds[0])}",
        f"{sizes[-1]:g}: {_time(seconds[-1])}",
        f"{exponent['value']:.2f}",
        f"{exponent['error']:.2f}",
        f"{exponent['tail']:.2f}",
        "-" if memory is None else f"{memory['value']:.2f}",
    )


def _stage_row(one: Results) -> tuple[str, ...]:
    peak = one["peak_bytes"]
    return one["name"], f"{one['seconds'] / 60:.1f} min", _memory(peak)


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def _memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.3g} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"


def plots(results: Results, folder: Path) -> None:
    """speed.png: each case against its twin. growth.png: time over size with the fitted line. Those that have data."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if twins := [one for one in results["cases"] if one["speedup"] is not None]:
        drawing, axes = pyplot.subplots(figsize=(9, 1.2 + 0.35 * len(twins)))
        at = range(len(twins))
        medians = [one["speedup"]["median"] for one in twins]
        low = [median - one["speedup"]["low"] for median, one in zip(medians, twins)]
        high = [one["speedup"]["high"] - median for median, one in zip(medians, twins)]
        axes.barh(at, medians, xerr=[low, high], color="#1f6feb")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_yticks(at, [one["name"] for one in twins])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("times the plain twin's speed, median and quartiles")
        drawing.savefig(folder / "speed.png", dpi=110, bbox_inches="tight")
        pyplot.close(drawing)
    if grown := [*results["growth"], *_over_calls(results)]:
        columns = min(3, len(grown))
        rows = math.ceil(len(grown) / columns)
        drawing, grid = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False)
        for axes, one in zip(grid.flat, grown):
            _draw_growth(axes, one)
        for axes in grid.flat[len(grown) :]:
            axes.set_axis_off()
        drawing.tight_layout()
        drawing.savefig(folder / "growth.png", dpi=110)
        pyplot.close(drawing)


def _draw_growth(axes: Any, one: Results) -> None:
    sizes, seconds, exponent = one["sizes"], one["seconds"], one["exponent"]["value"]
    # The line through the middle of the logarithms, as least squares give it.
    middle = [math.exp(sum(map(math.log, values)) / len(values)) for values in (sizes, seconds)]
    axes.loglog(sizes, seconds, "o", color="#1f6feb")
    axes.loglog(sizes, [middle[1] * (size / middle[0]) ** exponent for size in sizes], color="#d1582a", linewidth=1)
    axes.set_title(f"{one['name']}: ^{exponent:.2f}", fontsize=8)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(one["over"])
    axes.set_ylabel("seconds")
