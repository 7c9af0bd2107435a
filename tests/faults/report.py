"""The table of a campaign, in Markdown."""

from collections.abc import Sequence

from tests.faults.campaign import Result


def table(results: Sequence[Result]) -> str:
    lines = ["| row | fault | runs | kills | figures | pass |", "|---|---|---|---|---|---|"]
    for result in results:
        figures = ", ".join(f"{name} {shown(value)}" for name, value in result.figures.items() if value)
        verdict = "yes" if result.passed else "**no**: " + "; ".join(result.problems)
        lines.append(f"| {result.row} | {result.title} | {result.runs} | {result.kills} | {figures} | {verdict} |")
    kills = sum(result.kills for result in results)
    names = ("messages", "acks", "again")
    messages, acks, again = (sum(result.figures.get(name, 0) for result in results) for name in names)
    lines.append(
        f"\n{kills} kills with requests in flight, {messages:,.0f} messages confirmed, {acks:,.0f} acks,"
        f" {again:,.0f} deliveries of what had come before."
    )
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.2g}"
