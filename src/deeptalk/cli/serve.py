"""``deeptalk serve``: the model behind a socket."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deeptalk.cli.arguments import Model

if TYPE_CHECKING:
    from deeptalk.serving.detector import Patience
    from deeptalk.serving.limits import ServerLimits
    from deeptalk.serving.security import App
    from deeptalk.serving.service import Service

POCKET_CONTEXT = 128
"""The built-in model loses its way in conversations of more than about four turns."""

UNLIMITED = 2**20

SESSIONS, SESSIONS_ACCELERATED = 2, 8

NOT_STARTED = 1
"""The exit status where the port is taken, a file or a package is missing, or memory does not suffice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What a server is made of, in whichever process that happens."""

    model: str
    device: str
    limits: "ServerLimits"
    follows_instructions: bool
    transcribes: bool
    logs_transcripts: bool
    vad: Literal["auto", "energy", "silero"]
    patience: "Patience"
    is_restarting: bool

    def __call__(self) -> "Service":
        """Open the model, in a service of its own."""
        from deeptalk.cli.opening import open_model
        from deeptalk.serving.model_thread import ModelThread
        from deeptalk.serving.service import Service
        from deeptalk.serving.silero import detector_of

        return Service(
            ModelThread(open_model(self.model, device=self.device), limits=self.limits),
            model=self.model,
            follows_instructions=self.follows_instructions,
            transcribes=self.transcribes,
            logs_transcripts=self.logs_transcripts,
            new_voice=detector_of(self.vad),
            patience=self.patience,
            is_restarting=self.is_restarting,
        )


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
        int | None,
        typer.Option(
            "--max-sessions",
            metavar="N",
            help=f"Sessions and HTTP answers at a time; {SESSIONS} on a CPU, else {SESSIONS_ACCELERATED}.",
            min=1,
            show_default=False,
        ),
    ] = None,
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
    restarting: Annotated[
        bool,
        typer.Option(
            "--restarting", help="Going down, close sessions with 1012: this server comes back, try again."
        ),
    ] = False,
    max_body_mb: Annotated[
        float, typer.Option("--max-body-mb", metavar="MB", help="The largest HTTP body.", min=0.001)
    ] = 25.0,
    max_utterance_seconds: Annotated[
        float,
        typer.Option(
            "--max-utterance-s", metavar="S", help="The longest turn, within what the model hears.", min=0.1
        ),
    ] = 30.0,
    out_queue_seconds: Annotated[
        float,
        typer.Option("--out-queue-s", metavar="S", help="Unsent sound at which an answer waits.", min=0.1),
    ] = 8.0,
    replicas: Annotated[
        int,
        typer.Option(
            "--replicas",
            metavar="K",
            help="Servers behind this address, each a process with a model of its own, on Ray Serve "
            "('deeptalk[ray]').",
            min=1,
        ),
    ] = 1,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="Where the model runs, as cuda:0.")
    ] = "cpu",
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
    log_transcripts: Annotated[
        bool,
        typer.Option(
            "--log-transcripts", help="Write what is said into the log, for everybody who reads it."
        ),
    ] = False,
    vad: Annotated[
        Literal["auto", "energy", "silero"],
        typer.Option(
            "--vad",
            help="What finds the turns of clients that leave it to the server: silero-vad, or energy and "
            "spectrum; auto takes silero-vad where it is installed ('deeptalk[vad]').",
        ),
    ] = "auto",
    onset_ms: Annotated[
        int, typer.Option("--onset-ms", metavar="MS", help="Voice that begins a turn found by the server.")
    ] = 80,
    barge_in_ms: Annotated[
        int,
        typer.Option(
            "--barge-in-ms", metavar="MS", help="Voice, within 600 ms, that interrupts an answer one hears."
        ),
    ] = 350,
    barge_in_silence_ms: Annotated[
        int,
        typer.Option(
            "--barge-in-silence-ms", metavar="MS", help="Silence after which less voice changes nothing."
        ),
    ] = 250,
    barge_in_db: Annotated[
        float,
        typer.Option(
            "--barge-in-db", metavar="DB", help="How much louder than else voice must be over an answer."
        ),
    ] = 6.0,
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
    from deeptalk.serving.detector import Patience
    from deeptalk.serving.limits import ServerLimits
    from deeptalk.serving.logs import configure_logging
    from deeptalk.serving.security import security_for
    from deeptalk.serving.silero import detector_of
    from deeptalk.serving.tls import certificate_for

    if max_sessions_per_key is not None and key is None:
        raise ConfigError("--max-sessions-per-key needs a key (DEEPTALK_API_KEY): without one all are alike.")
    if replicas > 1 and port == 0:
        raise ConfigError("--replicas needs a --port of its own, 0 can't be shared.")
    detector_of(vad)  # told before a model is opened
    _check_device(device, num_replicas=replicas)
    security = security_for(host, key=key, origins=allow_origin or (), is_insecure=insecure)
    slots = max_sessions or (SESSIONS if device == "cpu" else SESSIONS_ACCELERATED)
    limits = ServerLimits(
        context_positions=context or (POCKET_CONTEXT if model == "pocket" else UNLIMITED),
        max_sessions=slots,
        max_sessions_per_key=max_sessions_per_key or UNLIMITED,
        max_waiting=2 * slots,
        drain_seconds=drain_seconds,
        max_body_bytes=int(max_body_mb * 2**20),
        utterance_seconds=max_utterance_seconds,
        out_high=out_queue_seconds,
        out_low=out_queue_seconds / 2,
    )
    new_service = Served(
        model=model,
        device=device,
        limits=limits,
        follows_instructions=instructions,
        transcribes=input_transcripts == "model",
        logs_transcripts=log_transcripts,
        vad=vad,
        patience=Patience(
            onset_ms=onset_ms,
            barge_in_ms=barge_in_ms,
            silence_ms=barge_in_silence_ms,
            louder_db=barge_in_db,
        ),
        is_restarting=restarting,
    )
    wanted = certificate_for(host, cert=tls_cert, key=tls_key, is_self_signed=self_signed)
    with _starting(), wanted as certificate:
        scheme = "http" if certificate is None else "https"

        def tell(address: str, bound: int) -> None:
            name = f"[{address}]" if ":" in address else address
            page = "" if no_ui else f"; talk to it in a browser: {scheme}://{name}:{bound}/"
            print(f"{scheme}://{name}:{bound}/v1 (stop with Ctrl-C){page}", flush=True)

        configure_logging()
        if replicas > 1:
            from deeptalk.serving.replicas import Fleet, serve_fleet

            fleet = Fleet(
                new_service=new_service,
                security=security,
                limits=limits,
                num_replicas=replicas,
                num_gpus=0 if device == "cpu" else 1,
                has_page=not no_ui,
            )
            status = serve_fleet(
                fleet, host=host, port=port, certificate=certificate, on_ready=lambda: tell(host, port)
            )
        else:
            listening = bind(host, port)

            def open_app() -> "tuple[App, Service]":
                service = new_service()
                return create_app(service, security, has_page=not no_ui), service

            status = run(
                open_app,
                security,
                limits,
                listening,
                certificate=certificate,
                on_open=lambda: tell(*listening.getsockname()[:2]),
            )
    if status:
        raise typer.Exit(status)


@contextmanager
def _starting() -> Iterator[None]:
    """Tell in one line what keeps a server from its work, and leave with ``NOT_STARTED``."""
    from deeptalk.errors import DeepTalkError

    try:
        yield
    except (DeepTalkError, MemoryError, RuntimeError) as error:
        if not isinstance(error, DeepTalkError | MemoryError) and "memory" not in str(error):
            raise
        plain = isinstance(error, DeepTalkError)
        print(error if plain else "There is too little memory for the model.", file=sys.stderr)
        raise typer.Exit(NOT_STARTED) from error


def _check_device(device: str, *, num_replicas: int) -> None:
    """ConfigError for a device that this machine does not have, or not for every replica."""
    if device == "cpu":
        return
    import torch

    from deeptalk.errors import ConfigError

    try:
        torch.zeros(1, device=device)
        kind = torch.device(device).type
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device {device} can't be used here: try cpu, or cuda.") from error
    if num_replicas > 1 and device != kind:
        raise ConfigError(f"--replicas chooses among devices by itself: say --device {kind}.")
