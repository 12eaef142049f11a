"""`mde-simulator`: a tenant to point any client of the API at, until Ctrl-C.

What it prints on stdout is a shell's: `export` lines with everything a client needs, then a line
that begins with `# ready`. Knows nothing of how the tenant works.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from mde_simulator.defender.odata import MAXIMUM
from mde_simulator.defender.quota import DOCUMENTED, EXPORT, EXPORT_JSON, Quota
from mde_simulator.entra.identity import BEARER_FORMS, ROLES
from mde_simulator.entra.managed import HOSTS
from mde_simulator.exports.records import ExportShape
from mde_simulator.faults.fault import KINDS, Fault
from mde_simulator.fleet.fleet import Fleet
from mde_simulator.simulator import AUTH_METHODS, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_MACHINES, LAST_PORT, LAST_NIGHT = 100_000, 65_535, 3_650
MOST_RECORDS, MOST_FILES = 10_000, 1_000
YEAR = 365 * 86_400.0


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


def parser() -> Parser:
    """All options."""
    (per_minute, _), (per_hour, _) = DOCUMENTED
    kinds = "\n".join(f"  {name:22} {kind.help}" for name, kind in KINDS.items())
    made = Parser(
        prog="mde-simulator",
        description="A Microsoft Defender for Endpoint tenant on loopback, until Ctrl-C.",
        epilog=f"faults (KIND:name=value,…; names: path, machine, method, times, after, chance, "
        f"each, seconds, retry_after, code, status, text, size):\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--machines", type=whole(0, MOST_MACHINES), default=250, metavar="N")
    add("--seed", type=int, default=0, metavar="S", help="another seed, another fleet")
    add("--port", type=whole(0, LAST_PORT), default=0, metavar="P", help="0: any")
    add("--night", "--day", type=whole(0, LAST_NIGHT), default=0, metavar="N",
        help="the fleet as it is after so many days")  # fmt: skip
    add("--discovered", type=decimal(1), default=0.1, metavar="SHARE",
        help="of devices that are not onboarded")  # fmt: skip
    add("--requests-per-minute", type=whole(1, 10**6), default=per_minute, metavar="N")
    add("--requests-per-hour", type=whole(1, 10**8), default=per_hour, metavar="N")
    add("--no-quota", action="store_true")
    add("--export-records", type=whole(0, MOST_RECORDS), default=0, metavar="N",
        help="records of the vulnerability export for each device, at least")  # fmt: skip
    add("--export-files", type=whole(1, MOST_FILES), default=3, metavar="N")
    add("--export-width", type=whole(0, MOST_RECORDS), default=1000, metavar="BYTES",
        help="of a record, about; below 950 fields are left out, but none that missing KBs follow from")  # fmt: skip
    add("--export-now", action="store_true", help="write the export's files before `# ready`, not when asked for")
    add("--latency", type=decimal(600), default=0.0, metavar="SECONDS", help="of every answer")
    add("--token-life", type=decimal(YEAR), default=3599.0, metavar="SECONDS")
    add("--page-size", type=whole(1, MAXIMUM), default=MAXIMUM, metavar="N",
        help="machines in a page at most")  # fmt: skip
    add("--role", action="append", metavar="ROLE",
        help=f"a permission in the tokens, instead of {', '.join(ROLES)}")  # fmt: skip
    add("--auth-method", choices=AUTH_METHODS, default="client_secret",
        help="the credential that is exported; what it needs is made (default: client_secret)")  # fmt: skip
    add("--certificate", metavar="FILE",
        help="a PEM with key and certificate, the application's; implies --auth-method certificate")  # fmt: skip
    add("--host", choices=HOSTS, default="vm",
        help="whose endpoint gives tokens to a managed identity (default: vm)")  # fmt: skip
    add("--bearer-form", choices=BEARER_FORMS, default="jwt",
        help="; ".join(f"{form}: {what}" for form, what in BEARER_FORMS.items()))  # fmt: skip
    add("--fault", type=fault, action="append", default=[], metavar="FAULT",
        help="for example reset:chance=0.05")  # fmt: skip
    add("--no-compress", action="store_true", help="never deflate or gzip")
    return made


def simulator(options: argparse.Namespace) -> Simulator:
    """The simulator that the options ask for."""
    limits = ((options.requests_per_minute, 60.0), (options.requests_per_hour, 3600.0))
    fleet = Fleet(options.machines, options.seed, night=options.night, discovered=options.discovered)
    return Simulator(
        fleet,
        quota=None if options.no_quota else Quota(limits),
        export_shape=ExportShape(options.export_records, options.export_files, options.export_width),
        export_quota=None if options.no_quota else Quota(EXPORT),
        export_json_quota=None if options.no_quota else Quota(EXPORT_JSON),
        faults=options.fault,
        latency=options.latency,
        token_life=options.token_life,
        page_size=options.page_size,
        roles=ROLES if options.role is None else options.role,
        port=options.port,
        seed=options.seed,
        compress=not options.no_compress,
        bearer_form=options.bearer_form,
        managed_identity=options.auth_method == "managed_identity",
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
