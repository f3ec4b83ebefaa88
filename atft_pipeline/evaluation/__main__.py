"""`python -m atft_pipeline.evaluation`: who gives predictions, and the roll-back.

champion [--lake DIR]                              the champion and every promotion before it
promote --to RUN_ID [--reason TEXT] [--lake DIR]   make a run that passed its rules the champion, by hand
compare RUN_ID [RUN_ID] [--lake DIR]               second minus first (default: the first minus the champion)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from atft_pipeline.evaluation.champion import champion_history, promote, require_champion
from atft_pipeline.evaluation.comparison import compare, told_of
from atft_pipeline.lake.store import LakeError
from atft_pipeline.settings import Settings
from atft_pipeline.verdict import ContractBroken


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m atft_pipeline.evaluation")
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("champion", help="the champion and every promotion before it")
    by_hand = commands.add_parser("promote", help="make a run that passed its rules the champion (also the roll-back)")
    by_hand.add_argument("--to", required=True, metavar="RUN_ID")
    by_hand.add_argument("--reason", default="by hand")
    compared = commands.add_parser("compare", help="difference of daily RankIC on common validation dates")
    compared.add_argument("runs", nargs="+", metavar="RUN_ID", help="one run (against the champion) or two")
    for command in (shown, by_hand, compared):
        command.add_argument("--lake", type=Path, help="default: the lake of the present settings")
    chosen = parser.parse_args(arguments)
    lake: Path = chosen.lake or Settings.from_env().lake
    try:
        if chosen.command == "promote":
            promote(lake, chosen.to, chosen.reason)
        if chosen.command == "compare":
            first, second = chosen.runs if len(chosen.runs) == 2 else (require_champion(lake), chosen.runs[0])
            print(told_of(compare(lake, first, second)))
            return 0
        history = champion_history(lake)
    except (LakeError, ContractBroken) as error:
        print(error, file=sys.stderr)
        return 1
    for entry in history:
        print(f"{entry['at']}  {entry['run_id']}  {entry['reason']}")
    print(f"champion: {history[-1]['run_id']}" if history else f"{lake} has no champion yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
