"""``deeptalk serve``: the model behind a socket."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from deeptalk.cli.arguments import Model

POCKET_CONTEXT = 128
"""The built-in model loses its way in conversations of more than about four turns."""

UNLIMITED = 2**20


def serve(
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="What to bind; others than this machine need a key."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Port; 0 takes a free one.", min=0, max=65_535)
    ] = 8000,
    key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="DEEPTALK_API_KEY",
            metavar="KEY",
            help="What clients must send; better given by the environment.",
            show_default=False,
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin", metavar="URL", help="A page of another origin that may call; repeatable."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Bind a public address without a key all the same.")
    ] = False,
    max_sessions: Annotated[
        int, typer.Option("--max-sessions", metavar="N", help="Sessions and HTTP answers at a time.", min=1)
    ] = 2,
    max_sessions_per_key: Annotated[
        int | None,
        typer.Option(
            "--max-sessions-per-key",
            metavar="N",
            help="Of these, what one key may have; every ephemeral key is one.",
            min=1,
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            "--ssl-certfile",
            metavar="FILE",
            help="Serve https and wss with this certificate, in PEM.",
            show_default=False,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            "--tls-key",
            "--ssl-keyfile",
            metavar="FILE",
            help="The certificate's key, where it does not stand in the same file.",
            show_default=False,
        ),
    ] = None,
    self_signed: Annotated[
        bool,
        typer.Option(
            "--self-signed",
            help="Serve https with a certificate made for now: browsers warn, and then lend the microphone.",
        ),
    ] = False,
    drain_seconds: Annotated[
        float,
        typer.Option("--drain-s", metavar="S", help="How long running answers may take to end.", min=0.1),
    ] = 30.0,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="N",
            help="Positions of a conversation that the model reads, its last turns (12 a second of speech); "
            "128 for the built-in model, all for others.",
            min=1,
            show_default=False,
        ),
    ] = None,
    instructions: Annotated[
        bool,
        typer.Option(
            "--instructions",
            help="Let the model read the instructions of clients; the built-in one never learnt to.",
        ),
    ] = False,
    input_transcripts: Annotated[
        Literal["off", "model"],
        typer.Option(
            "--input-transcripts",
            help="Let clients have what users say written down, by the model itself; it costs a row more.",
        ),
    ] = "off",
    vad: Annotated[
        Literal["auto", "energy", "silero"],
        typer.Option(
            "--vad",
            help="What finds the turns of clients that leave it to the server: silero-vad, or energy and "
            "spectrum; auto takes silero-vad where it is installed ('deeptalk[vad]').",
        ),
    ] = "auto",
    no_ui: Annotated[bool, typer.Option("--no-ui", help="Leave the talk page out.")] = False,
    model: Model = "pocket",
) -> None:
    """Serve a model to voice clients: the OpenAI Realtime protocol and OpenAI's HTTP routes."""
    from deeptalk.errors import ConfigError

    try:
        from deeptalk.serving.app import create_app
        from deeptalk.serving.server import bind, run
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'deeptalk[serve]'.") from error
    import logging

    from deeptalk.cli.opening import open_model
    from deeptalk.serving.limits import ServerLimits
    from deeptalk.serving.model_thread import ModelThread
    from deeptalk.serving.security import security_for
    from deeptalk.serving.service import Service
    from deeptalk.serving.silero import detector_of
    from deeptalk.serving.tls import certificate_for

    if max_sessions_per_key is not None and key is None:
        raise ConfigError("--max-sessions-per-key needs a key (DEEPTALK_API_KEY): without one all are alike.")
    new_voice = detector_of(vad)
    security = security_for(host, key=key, origins=allow_origin or (), is_insecure=insecure)
    limits = ServerLimits(
        context_positions=context or (POCKET_CONTEXT if model == "pocket" else UNLIMITED),
        max_sessions=max_sessions,
        max_sessions_per_key=max_sessions_per_key or UNLIMITED,
        max_waiting=2 * max_sessions,
        drain_seconds=drain_seconds,
    )
    with ExitStack() as held:
        certificate = held.enter_context(
            certificate_for(host, cert=tls_cert, key=tls_key, is_self_signed=self_signed)
        )
        listening = bind(host, port)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        thread = ModelThread(open_model(model), limits=limits)
        service = Service(
            thread,
            model=model,
            follows_instructions=instructions,
            transcribes=input_transcripts == "model",
            new_voice=new_voice,
        )
        address, bound = listening.getsockname()[:2]
        here = f"{'http' if certificate is None else 'https'}://{address}:{bound}"
        page = "" if no_ui else f"; talk to it in a browser: {here}/"
        print(f"{here}/v1 (stop with Ctrl-C){page}", flush=True)
        app = create_app(service, security, has_page=not no_ui)
        status = run(app, service, listening, certificate=certificate)
    if status:
        raise typer.Exit(status)
