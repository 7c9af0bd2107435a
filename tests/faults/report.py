"""The table of a campaign, in Markdown."""

from collections.abc import Sequence

from tests.faults.campaign import Result


def table(results: Sequence[Result]) -> str:
    lines = ["| row | fault | runs | kills | figures | pass |", "|---|---|---|---|---|---|"]
    for result in results:
        figures = ", ".join(f"{name} {value:,.4g}" for name, value in result.figures.items() if value)
        verdict = "yes" if result.passed else "**no**: " + "; ".join(result.problems)
        lines.append(f"| {result.row} | {result.title} | {result.runs} | {result.kills} | {figures} | {verdict} |")
    kills = sum(result.kills for result in results)
    messages, acks = (sum(result.figures.get(name, 0) for result in results) for name in ("messages", "acks"))
    lines.append(f"\n{kills} kills with requests in flight, {messages:,.0f} messages confirmed, {acks:,.0f} acks.")
    return "\n".join(lines)
