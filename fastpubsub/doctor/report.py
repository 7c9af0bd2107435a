"""Findings as people and as programs read them."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from fastpubsub.doctor.findings import Finding

MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


def worst(findings: Sequence[Finding]) -> str:
    levels = {one.level for one in findings}
    return next(level for level in ("problem", "warning", "ok") if level in levels or level == "ok")


def table(findings: Sequence[Finding]) -> str:
    width = max(len(one.check) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{MARKS[one.level]:<7}  {one.check:<{width}}  {one.what}")
        indent = " " * (7 + 2 + width + 2)
        lines += [f"{indent}{name}: {text}" for name, text in (("why", one.why), ("do", one.next_step)) if text]
    counts = {level: sum(one.level == level for one in findings) for level in MARKS}
    return "\n".join([*lines, f"{counts['problem']} problems, {counts['warning']} warnings, {counts['ok']} ok"])


def document(findings: Sequence[Finding]) -> str:
    return json.dumps({"status": worst(findings), "findings": [asdict(one) for one in findings]}, indent=2)
