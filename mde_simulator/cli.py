"""`mde-simulator`: a tenant to point any client of the API at, until Ctrl-C.

What it prints on stdout is a shell's: `export` lines with everything a client needs, then a line
that begins with `# ready`. Knows nothing of how the tenant works.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NoReturn

from mde_simulator.defender.odata import MAXIMUM
from mde_simulator.defender.quota import DOCUMENTED, EXPORT, EXPORT_JSON, Quota
from mde_simulator.entra.identity import BEARER_FORMS, ROLES
from mde_simulator.entra.managed import HOSTS
from mde_simulator.exports.records import ExportShape
from mde_simulator.faults.fault import KINDS, OPTIONS, Fault
from mde_simulator.feeds.feeds import NAMES as FEED_NAMES
from mde_simulator.fleet.fleet import START, Fleet
from mde_simulator.simulator import AUTH_METHODS, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_MACHINES, LAST_PORT, LAST_NIGHT = 1_000_000, 65_535, 3_650
MOST_RECORDS, MOST_FILES, MOST_NOISE = 10_000, 1_000, 10_000
YEAR = 365 * 86_400.0
MOST_ROWS = 10**6


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number between two."""

    def read(text: str) -> int:
        number = int(text) if text.strip().lstrip("-").isdecimal() else least - 1
        if not least <= number <= most:
            msg = f"{text!r} is not a whole number from {least} to {most}"
            raise argparse.ArgumentTypeError(msg)
        return number

    return read


def day(text: str) -> int:
    """A day of the fleet, by its number; or the one that it is today, in UTC."""
    return (datetime.now(timezone.utc).date() - START).days if text == "today" else whole(0, LAST_NIGHT)(text)


def decimal(most: float) -> Callable[[str], float]:
    """A number from 0 to another."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number <= most:
            msg = f"{text!r} is not a number from 0 to {most:g}"
            raise argparse.ArgumentTypeError(msg)
        return number

    return read


def fault(text: str) -> Fault:
    """A fault in its written form."""
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def feeds(text: str) -> tuple[str, ...]:
    """Names of advisory feeds."""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if unknown := {*names} - {*FEED_NAMES}:
        msg = f"there is no feed {', '.join(sorted(unknown))}, only {', '.join(FEED_NAMES)}"
        raise argparse.ArgumentTypeError(msg)
    return names


def parser() -> Parser:
    """All options."""
    (per_minute, _), (per_hour, _) = DOCUMENTED
    kinds = "\n".join(f"  {name:22} {kind.help}" for name, kind in KINDS.items())
    made = Parser(
        prog="mde-simulator",
        description="A Microsoft Defender for Endpoint tenant on this machine, until Ctrl-C. "
        "Prints what a client needs as lines for a shell, then `# ready`.",
        epilog=f"faults (--fault KIND or KIND:name=value,…; names: {', '.join(OPTIONS)}):\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--machines", type=whole(0, MOST_MACHINES), default=250, metavar="N",
        help="how many machines are listed on the first day (default: 250)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="S", help="the same seed gives the same fleet (default: 0)")
    add("--port", type=whole(0, LAST_PORT), default=0, metavar="P", help="where to listen (default: any free port)")
    add("--night", "--day", type=day, default=0, metavar="N",
        help=f"show the fleet as it is N days after {START}, or as it is today (default: 0)")  # fmt: skip
    add("--discovered", type=decimal(1), default=0.1, metavar="SHARE",
        help="the share of devices that are not onboarded, from 0 to 1 (default: 0.1)")  # fmt: skip
    add("--excluded", type=decimal(1), default=0.025, metavar="SHARE",
        help="the share of devices that people excluded, from 0 to 1 (default: 0.025)")  # fmt: skip
    add("--silent", type=decimal(1), default=0.03, metavar="SHARE",
        help="the share of devices that report no more on the first day, from 0 to 1 (default: 0.03)")  # fmt: skip
    add("--behind", type=decimal(1), default=0.0, metavar="SHARE",
        help="the share of devices that install nothing, more than do so anyway, from 0 to 1 (default: 0)")  # fmt: skip
    add("--requests-per-minute", type=whole(1, 10**6), default=per_minute, metavar="N",
        help=f"the quota (default: {per_minute}, as documented)")  # fmt: skip
    add("--requests-per-hour", type=whole(1, 10**8), default=per_hour, metavar="N",
        help=f"the quota (default: {per_hour}, as documented)")  # fmt: skip
    add("--no-quota", action="store_true", help="answer any number of calls, exports included")
    add("--export-records", type=whole(0, MOST_RECORDS), default=0, metavar="N",
        help="the least number of export records for each device")  # fmt: skip
    add("--export-files", type=whole(1, MOST_FILES), default=3, metavar="N",
        help="how many files an export has (default: 3)")  # fmt: skip
    add("--export-width", type=whole(0, MOST_RECORDS), default=1000, metavar="BYTES",
        help="about how many bytes an export record has; below 950, fields that do not matter for "
        "missing KBs are left out (default: 1000)")  # fmt: skip
    add("--export-noise", type=whole(0, MOST_NOISE), default=0, metavar="DIGITS",
        help="how many hex digits of a record in a file are in no other one: 120 make files compress ten to one "
        "(default: 0, thirty to one)")  # fmt: skip
    add("--export-now", action="store_true", help="write the export's files before `# ready`, not when asked for")
    add("--latency", type=decimal(600), default=0.0, metavar="SECONDS", help="of every answer of the API")
    add("--clock-ahead", type=float, default=0.0, metavar="SECONDS",
        help="how far the services' clock is ahead of this machine's; below 0: behind (default: 0)")  # fmt: skip
    add("--token-life", type=decimal(YEAR), default=3599.0, metavar="SECONDS",
        help="how long a token is valid (default: 3599)")  # fmt: skip
    add("--page-size", type=whole(1, MAXIMUM), default=MAXIMUM, metavar="N",
        help=f"the most machines in one page (default: {MAXIMUM})")  # fmt: skip
    add("--role", action="append", metavar="ROLE",
        help=f"a permission in the tokens; may be repeated (default: {', '.join(ROLES)})")  # fmt: skip
    add("--auth-method", choices=AUTH_METHODS, default="client_secret",
        help="the credential to print; what it needs is created (default: client_secret)")  # fmt: skip
    add("--certificate", metavar="FILE",
        help="the application's key and certificate in one PEM file; implies --auth-method certificate")  # fmt: skip
    add("--host", choices=HOSTS, default="vm",
        help="the kind of host that gives tokens to a managed identity (default: vm)")  # fmt: skip
    add("--bearer-form", choices=BEARER_FORMS, default="jwt",
        help="what a token looks like: "
        + "; ".join(f"{form}: {what}" for form, what in BEARER_FORMS.items()))  # fmt: skip
    add("--fault", type=fault, action="append", default=[], metavar="FAULT",
        help="something that goes wrong, for example reset:chance=0.05; may be repeated; kinds below")  # fmt: skip
    add("--advisory-feeds", type=feeds, default=(), metavar="FEEDS",
        help="advisory feeds to play, and to name in the settings: msrc,kev,epss (default: none)")  # fmt: skip
    add("--epss-rows", type=whole(0, MOST_ROWS), default=20_000, metavar="N",
        help="the least number of EPSS scores (default: 20000; the real file has 345,000)")  # fmt: skip
    add("--no-compress", action="store_true", help="send every body as it is, neither deflate nor gzip")
    return made


def simulator(options: argparse.Namespace) -> Simulator:
    """The simulator that the options ask for."""
    limits = ((options.requests_per_minute, 60.0), (options.requests_per_hour, 3600.0))
    fleet = Fleet(
        options.machines,
        options.seed,
        night=options.night,
        discovered=options.discovered,
        excluded=options.excluded,
        silent=options.silent,
        behind=options.behind,
    )
    return Simulator(
        fleet,
        quota=None if options.no_quota else Quota(limits),
        export_shape=ExportShape(
            options.export_records, options.export_files, options.export_width, options.export_noise
        ),
        export_quota=None if options.no_quota else Quota(EXPORT),
        export_json_quota=None if options.no_quota else Quota(EXPORT_JSON),
        faults=options.fault,
        latency=options.latency,
        clock=lambda: time.time() + options.clock_ahead,
        token_life=options.token_life,
        page_size=options.page_size,
        roles=ROLES if options.role is None else options.role,
        port=options.port,
        seed=options.seed,
        compress=not options.no_compress,
        bearer_form=options.bearer_form,
        managed_identity=options.auth_method == "managed_identity",
        advisory_feeds=options.advisory_feeds,
        epss_rows=options.epss_rows,
    )


def environment(tenant: Simulator, options: argparse.Namespace) -> dict[str, str]:
    """What a client needs for the credential that was asked for."""
    method = options.auth_method
    if method == "client_secret":
        return tenant.environment
    settings = tenant.exported(tenant.settings_for(method, options.certificate))
    return settings | (tenant.managed_identity_environment(options.host) if tenant.managed else {})


def say(*lines: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; the exit status."""
    options = parser().parse_args(arguments)
    if options.certificate:
        options.auth_method = "certificate"
    enough = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: enough.set())
    tenant = simulator(options)
    try:
        tenant.start()
    except OSError as error:
        reason = error.strerror or str(error)
        sys.stderr.write(f"mde-simulator: cannot listen on port {options.port}: {reason}\n")
        return 1
    try:
        variables = environment(tenant, options)
    except (OSError, ValueError) as error:
        tenant.stop()
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        sys.stderr.write(f"mde-simulator: cannot use the certificate {options.certificate}: {reason}\n")
        return 1
    try:
        if options.export_now:
            tenant.exports.build()
        quoted = {name: text.replace("'", "'\\''") for name, text in variables.items()}
        say(
            *(f"export {name}='{text}'" for name, text in quoted.items()),
            f"# ready: {len(tenant.fleet.listed())} machines at {tenant.url} until Ctrl-C",
        )
        enough.wait()
    finally:
        tenant.stop()
    violations = tenant.violations
    sys.stderr.write(f"{tenant.calls} calls, {len(violations)} violations\n")
    sys.stderr.writelines(f"  {violation}\n" for violation in violations[:10])
    return 0
