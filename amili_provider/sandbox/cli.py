"""The command ``amili-sandbox``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from amili_provider.terminal import ordinary_output

_NEEDED = ("starlette", "uvicorn")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="amili-sandbox", description="A local Amili, to try and to develop against.")
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="run a local Amili until Ctrl-C")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8642, help="port; 0 takes a free one (default: %(default)s)")
    serve.add_argument(
        "--name", action="append", metavar="NAME", help="public name under which it is reached; may be repeated"
    )
    serve.add_argument("--data", metavar="DIR", help="folder for what arrives (default: a temporary one)")
    serve.add_argument("--client", action="append", metavar="NUMBER", help="client number; may be repeated (2218)")
    serve.add_argument(
        "--file-type",
        action="append",
        metavar="TYPE",
        help="file type that the clients may upload; may be repeated (InvoiciaFormatDocFile)",
    )
    serve.add_argument("--token-lifetime", type=float, default=3600, metavar="SECONDS", help="default: %(default)s")
    serve.add_argument("--hashes-only", action="store_true", help="do not keep the files, only their SHA-256")

    demo = commands.add_parser("demo", help="show the main job: a day of files from S3 to this Amili, by a real DAG")
    demo.add_argument("--large", action="store_true", help="one of the files has several hundred MB")
    demo.add_argument(
        "--keep", action="store_true", help="keep servers, ledger and Airflow until Ctrl-C, to look around"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run ``amili-sandbox``; return its exit code.

    :raises SystemExit: if the usage is wrong, or stdout has no reader any more.
    """
    with ordinary_output():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"amili-sandbox needs {' and '.join(missing)}: pip install 'airflow-provider-amili[sandbox]'"
        print(message, file=sys.stderr)  # noqa: T201 - a command talks to a person
        return 2
    if options.command == "demo":
        from amili_provider.sandbox.demo import demo

        return demo(large=options.large, keep=options.keep)
    from amili_provider.sandbox.serving import serve

    return serve(
        host=options.host,
        port=options.port,
        names=options.name or (),
        data=options.data,
        clients=options.client or (),
        file_types=options.file_type or (),
        token_lifetime=options.token_lifetime,
        keep_contents=not options.hashes_only,
    )


if __name__ == "__main__":
    sys.exit(main())
