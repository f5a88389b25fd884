"""The `astra` command. Each subcommand imports only what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from astra.cli.output import Format, print_error, print_json, print_table
from astra.cli.settings import find_config
from astra.config import load
from astra.errors import AstraError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="AstraStorage: several servers, one S3-compatible object store.",
)
key_app = typer.Typer(no_args_is_help=True, help="Users and their access keys.")
node_app = typer.Typer(help="Runs a node, or administers the nodes of a cluster.")
config_app = typer.Typer(no_args_is_help=True, help="Settings.")
app.add_typer(node_app, name="node")
app.add_typer(key_app, name="key")
app.add_typer(config_app, name="config")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with the settings.")]
DataDir = Annotated[
    Path | None, typer.Option("--data", help="Data directory of an `astra dev` cluster.")
]
Output = Annotated[Format, typer.Option("-o", "--output", help="table or json.")]
Parent = Annotated[int, typer.Option("--parent", hidden=True)]

_EXIT_ERROR = 1
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


def _finish(run: Callable[[], int]) -> None:
    """Runs a command: an error of ours is one line and a status that is not 0."""
    try:
        status = run()
    except AstraError as error:
        print_error(str(error))
        status = _EXIT_ERROR
    except KeyboardInterrupt:
        status = _EXIT_INTERRUPTED
    if status:
        raise typer.Exit(status)


def _follow(parent: int) -> None:
    if parent:
        from astra.cli.process import end_with_parent

        end_with_parent(parent)


@app.command()
def dev(
    listen: Annotated[str | None, typer.Option(help="HOST:PORT of the S3 endpoint.")] = None,
    data: Annotated[Path, typer.Option(help="Data directory; kept between runs.")] = Path(".astra"),
    nodes: Annotated[int, typer.Option(help="Number of node processes.")] = 3,
    workers: Annotated[int | None, typer.Option(help="Gateway worker processes.")] = None,
    backend: Annotated[str, typer.Option(help="embedded, or services (see --services).")] = (
        "embedded"
    ),
    services: Annotated[
        Path, typer.Option(help="JSON file with the servers of --backend services.")
    ] = Path(".services/services.json"),
    config: ConfigFile = None,
) -> None:
    """Starts a whole cluster on this machine and prints what to paste.

    Example: astra dev --listen 127.0.0.1:9555 --data /tmp/astra --nodes 3 --workers 2
    """
    from astra.cli.dev import run_dev

    def run() -> int:
        if backend not in {"embedded", "services"}:
            raise AstraError(f"--backend {backend}: it is either embedded or services")
        flags = {"gateway.listen": listen, "gateway.workers": workers}
        found = load(flags=flags, environ=os.environ, file=config)
        backends_file = services if backend == "services" else None
        return run_dev(found, data=data, nodes=nodes, backends_file=backends_file)

    _finish(run)


@node_app.callback(invoke_without_command=True)
def node(
    context: typer.Context,
    config: ConfigFile = None,
    node_id: Annotated[str | None, typer.Option("--id", help="Which of cluster.peers.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Its data directory.")] = None,
    parent: Parent = 0,
) -> None:
    """Runs one node: astra node --config /etc/astra.toml --id n1 --data /srv/astra

    Or administers them: see the commands below, which take --data or --config themselves."""
    if context.invoked_subcommand is not None:
        return
    _follow(parent)
    from astra.cli.node import run_node

    _finish(lambda: run_node(find_config(config, node__id=node_id, data__dir=data)))


NodeId = Annotated[str, typer.Argument(help="Id of the node.")]


@node_app.command("add")
def node_add(
    node_id: Annotated[str, typer.Option("--id", help="Id of the new node.")],
    address: Annotated[str, typer.Option(help="HOST:PORT where the others reach it.")],
    zone: Annotated[str, typer.Option(help="Rack, room or site.")] = "",
    data: DataDir = None,
    config: ConfigFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Lets a node join. Example: astra node add --data .astra --id n4 --address 10.0.0.4:9010"""
    from astra.cli.nodes import add_node

    _finish(
        lambda: add_node(
            find_config(config, data), node_id=node_id, address=address, zone=zone, output=output
        )
    )


@node_app.command("list")
def node_list(
    data: DataDir = None, config: ConfigFile = None, output: Output = Format.TABLE
) -> None:
    """Lists the members: address, zone, state, and whether they vote."""
    from astra.cli.nodes import list_nodes

    _finish(lambda: list_nodes(find_config(config, data), output))


@node_app.command("drain")
def node_drain(
    node_id: NodeId,
    undo: Annotated[bool, typer.Option("--undo", help="It is active again.")] = False,
    wait: Annotated[bool, typer.Option(help="Show progress until no blob is left on it.")] = True,
    data: DataDir = None,
    config: ConfigFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Moves all data off a node, to remove it then. Example: astra node drain --data .astra n2"""
    from astra.cli.nodes import drain_node

    _finish(
        lambda: drain_node(
            find_config(config, data), node_id=node_id, undo=undo, wait=wait, output=output
        )
    )


@node_app.command("remove")
def node_remove(
    node_id: NodeId,
    force: Annotated[
        bool, typer.Option("--force", help="Although blobs name it: it is dead for good.")
    ] = False,
    data: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Takes a drained node out of the cluster. Example: astra node remove --data .astra n2"""
    from astra.cli.nodes import remove_node

    _finish(lambda: remove_node(find_config(config, data), node_id=node_id, force=force, data=data))


@app.command()
def gateway(
    config: ConfigFile = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT of the S3 endpoint.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    parent: Parent = 0,
) -> None:
    """Runs the S3 endpoint. Example: astra gateway --config /etc/astra.toml --listen :9000"""
    _follow(parent)
    from astra.cli.gateway import run_gateway

    _finish(
        lambda: run_gateway(
            find_config(config, gateway__listen=listen, gateway__workers=workers),
            config_file=config,
        )
    )


@app.command("gateway-worker", hidden=True)
def gateway_worker(
    fd: Annotated[int, typer.Option()], config: ConfigFile = None, parent: Parent = 0
) -> None:
    """One worker of a gateway, on the socket that its parent opened."""
    _follow(parent)
    from astra.cli.gateway import run_worker

    _finish(lambda: run_worker(find_config(config), listening_fd=fd))


@app.command()
def status(data: DataDir = None, config: ConfigFile = None, output: Output = Format.TABLE) -> None:
    """Shows the nodes, and what is degraded and why. Example: astra status --data .astra -o json"""
    from astra.cli.status import show_status

    _finish(lambda: show_status(find_config(config, data), data=data, output=output))


@app.command()
def doctor(
    data: DataDir = None,
    config: ConfigFile = None,
    output: Output = Format.TABLE,
    verify: Annotated[bool, typer.Option("--verify", help="Reads every byte; slow.")] = False,
    accept_empty: Annotated[
        str, typer.Option(help="Instead: this stopped node's chunk directory is a new, empty disk.")
    ] = "",
    accept_old: Annotated[
        str, typer.Option(help="Instead: this stopped node counts although its disk is an old one.")
    ] = "",
) -> None:
    """Compares the disks of all nodes with the metadata. Example: astra doctor --data .astra"""
    from astra.cli import doctor as census

    def run() -> int:
        if accept_empty:
            return census.accept_empty(data, config, accept_empty)
        if accept_old:
            return census.accept_old(data, config, accept_old)
        return census.examine(find_config(config, data), verify=verify, output=output)

    _finish(run)


@key_app.command("create")
def key_create(
    user: Annotated[str, typer.Option(help="User id; a new one is created.")],
    name: Annotated[str, typer.Option(help="Display name.")] = "",
    email: Annotated[str, typer.Option(help="E-mail address.")] = "",
    access_key: Annotated[str, typer.Option(help="Bring a key along; empty: generated.")] = "",
    secret_key: Annotated[str, typer.Option(help="Its secret; empty: generated.")] = "",
    root: Annotated[bool, typer.Option("--root", help="May do everything.")] = False,
    data: DataDir = None,
    config: ConfigFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Gives a user one more key. Example: astra key create --data .astra --user alice"""
    from astra.cli.key import NewKey, create_key

    wanted = NewKey(
        user_id=user,
        display_name=name,
        email=email,
        access_key=access_key,
        secret_key=secret_key,
        is_root=root,
    )
    _finish(lambda: create_key(find_config(config, data), wanted, output))


@key_app.command("list")
def key_list(
    data: DataDir = None, config: ConfigFile = None, output: Output = Format.TABLE
) -> None:
    """Lists users and access keys; never a secret."""
    from astra.cli.key import list_keys

    _finish(lambda: list_keys(find_config(config, data), output))


@key_app.command("delete")
def key_delete(access_key: str, data: DataDir = None, config: ConfigFile = None) -> None:
    """Deletes an access key; it is refused from that moment on."""
    from astra.cli.key import delete_key

    _finish(lambda: delete_key(find_config(config, data), access_key))


@config_app.command("show")
def config_show(
    data: DataDir = None, config: ConfigFile = None, output: Output = Format.TABLE
) -> None:
    """Shows every setting, its value and where the value came from. Secrets are not shown."""

    def run() -> int:
        rows = [
            {
                "name": setting.name,
                "value": "(secret)" if setting.is_secret and found.value else found.value,
                "origin": found.origin,
                "help": setting.help,
            }
            for setting, found in find_config(config, data).items()
        ]
        if output is Format.JSON:
            print_json(rows)
        else:
            print_table(("name", "value", "origin", "help"), rows)
        return 0

    _finish(run)


def main() -> None:
    """The entry point of the `astra` command. A wrong option is one line, like every error."""
    try:
        status = app(prog_name="astra", standalone_mode=False)
    except TyperException as error:
        message = str(getattr(error, "format_message", error.__str__)())
        if message:  # none when there was no command at all, which shows the help
            print_error(f"{message} Try --help.")
        sys.exit(_EXIT_USAGE)
    except typer.Abort:
        sys.exit(_EXIT_INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
