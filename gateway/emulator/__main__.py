"""``python -m gateway.emulator``: virtual trackers that drive along routes and report to a gateway."""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence

from gateway.emulator import options as arguments_of
from gateway.emulator.capture import Recording
from gateway.emulator.fleet import NeverConnected, Share
from gateway.emulator.load import run_load
from gateway.emulator.run import device_count, run_share
from gateway.emulator.tally import Tally, merged
from gateway.emulator.view import JsonLines, Lines, Quiet, Screen, View
from gateway.emulator.workers import WorkerFailed, run_workers
from gateway.errors import ConfigError

_OTHER_FILES = 64


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = arguments_of.parse(arguments)
    is_single = device_count(options) == 1 and not (options.json or options.replay or options.load)
    work = run_load if options.load else run_share
    view: View = Quiet() if is_single else _view(options)
    try:
        _allow_sockets(device_count(options))
        if options.record:
            Recording(options.record).close()
        if options.processes > 1:
            return exit_status(run_workers(work, options, view))
        return exit_status(work(options, Share(), view))
    except NeverConnected as error:
        print(f"cannot connect to {options.made.to}: {error}", file=sys.stderr)
        return 2
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except WorkerFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1


def exit_status(tallies: Sequence[Tally]) -> int:
    """0 where every record was acknowledged; also says which idents were not welcome."""
    total = merged(list(tallies))
    if total.rejected:
        whom = f"the ident {tallies[0].name}" if total.devices == 1 else f"{total.rejected} of {total.devices} idents"
        print(f"the gateway rejected {whom} (verdict 00)", file=sys.stderr)
    return 0 if total.is_all_acknowledged else 1


def _view(options: argparse.Namespace) -> View:
    if options.json:
        return JsonLines()
    if options.quiet:
        return Quiet()
    return Screen() if sys.stdout.isatty() else Lines()


def _allow_sockets(count: int) -> None:
    """As many open files as there are trackers. Raises ConfigError where the system forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ConfigError(f"{count} trackers need {wanted} open files, the limit is {hard} (ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
